"""Token buckets: how much passes, for whom, and in how much memory."""

from hypothesis import given
from hypothesis import strategies as st

from transports.http.web.rate import Attempts, Limiter, Pace, Places, peer_key

PACE = Pace(per_s=2.0, burst=5.0)


@given(gaps=st.lists(st.floats(0, 3), max_size=60))
def test_no_more_passes_than_burst_and_rate_allow(gaps: list[float]) -> None:
    limiter, now_s, passed = Limiter(PACE), 100.0, 0
    for gap in gaps:
        now_s += gap
        passed += limiter.take("a", now_s) == 0.0
        assert passed <= PACE.burst + (now_s - 100.0) * PACE.per_s + 1e-6


def test_the_time_to_wait_is_enough() -> None:
    limiter = Limiter(PACE)
    while not (wait_s := limiter.take("a", 100.0)):
        pass
    assert 0 < wait_s <= 0.5
    assert limiter.take("a", 100.0 + wait_s) == 0.0
    assert limiter.take("b", 100.0) == 0.0


def test_a_clock_that_stands_or_goes_back_gives_nothing() -> None:
    limiter = Limiter(Pace(per_s=1.0, burst=1.0))
    assert limiter.take("a", 100.0) == 0.0
    assert limiter.take("a", 50.0) > 0.0
    assert limiter.take("a", 100.0) > 0.0


def test_memory_is_bounded_whatever_comes() -> None:
    limiter = Limiter(PACE, keys_max=100)
    for number in range(1000):
        limiter.take(f"peer-{number}", 100.0)
    assert len(limiter) == 100


def test_many_peers_together_are_held_by_what_all_share() -> None:
    attempts = Attempts(Pace(per_s=0.1, burst=3), Pace(per_s=1.0, burst=20))
    failed = 0
    for number in range(100):
        peer = f"10.0.0.{number}"
        if attempts.wait_s(peer, 100.0) == 0.0:
            attempts.failed(peer, 100.0)
            failed += 1
    assert failed == 20


def test_one_peer_is_held_before_the_others() -> None:
    attempts = Attempts(Pace(per_s=0.1, burst=3), Pace(per_s=1.0, burst=20))
    for _ in range(3):
        assert attempts.wait_s("10.0.0.1", 100.0) == 0.0
        attempts.failed("10.0.0.1", 100.0)
    assert attempts.wait_s("10.0.0.1", 100.0) > 0.0
    assert attempts.wait_s("10.0.0.2", 100.0) == 0.0


def test_one_customer_of_ipv6_counts_as_one() -> None:
    assert peer_key("2001:db8:1:2::1") == peer_key("2001:db8:1:2:ffff::9")
    assert peer_key("2001:db8:1:2::1") != peer_key("2001:db8:1:3::1")
    assert peer_key("::ffff:10.0.0.1") == peer_key("10.0.0.1") == "10.0.0.1"
    assert peer_key("") == ""


def test_places_are_given_back() -> None:
    places = Places(2, 1)
    with places.one_for("a") as first, places.one_for("a") as second, places.one_for("b") as other:
        assert (first, second, other) == (True, False, True)
        with places.one_for("c") as full:
            assert not full
    with places.one_for("c") as any_place:
        assert any_place
