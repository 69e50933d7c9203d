from transports.http.web.log_quota import LINES_BURST, LINES_PER_S, Quiet


def test_a_flood_leaves_few_lines_and_says_how_many_are_missing() -> None:
    quiet = Quiet()
    said = [fields for n in range(30_000) if (fields := quiet.may_say(n / 5_000)) is not None]
    assert LINES_BURST <= len(said) <= LINES_BURST + 6 * LINES_PER_S + 1
    later = quiet.may_say(1_000.0)
    assert later is not None
    assert len(said) + later["left_out"] + sum(f.get("left_out", 0) for f in said) == 30_000
    assert quiet.may_say(1_001.0) == {}
