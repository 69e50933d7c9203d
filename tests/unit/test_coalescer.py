"""What the audit keeps of floods whose senders choose what makes them different."""

import pytest

from bus.audit import ANONYMOUS, REFUSED, AuditEntry
from handlers.audit.coalescer import FEW_BURST, REST, REST_S, Coalescer


def entry(number: int, actor: str, **fields: str) -> AuditEntry:
    return AuditEntry(
        at="2026-01-26T18:00:00.000Z",
        kind=REFUSED,
        actor=actor,
        action=fields.get("action", "GET /api/v1/jobs"),
        job=fields.get("job"),
        error_code="unauthenticated",
        detail={"peer": f"127.{number >> 16}.{number >> 8 & 255}.{number & 255}"},
    )


@pytest.mark.parametrize("actor", [ANONYMOUS, "uid:1001"])
@pytest.mark.parametrize("chosen", ["peer", "action", "job"])
def test_whatever_an_outsider_chooses_a_flood_leaves_few_entries(actor: str, chosen: str) -> None:
    coalescer = Coalescer()
    written: list[AuditEntry] = []
    for number in range(28_000):
        fields = {} if chosen == "peer" else {chosen: f"x{number}"}
        one = entry(number, actor, **fields)
        if coalescer.is_first(one, number / 5_000):
            written.append(one)
        written.extend(coalescer.due(number / 5_000))
    written.extend(coalescer.due(REST_S + 10))
    assert len(written) <= 2 * FEW_BURST + 2
    assert sum(each.count for each in written) == 28_000
    assert sum(each.action == REST for each in written) == 1


def test_a_flood_that_goes_on_for_a_day_stays_small() -> None:
    coalescer, entries, now_s = Coalescer(), 0, 0.0
    for number in range(86_400):
        now_s += 1.0
        entries += coalescer.is_first(entry(number, ANONYMOUS), now_s)
        entries += len(list(coalescer.due(now_s)))
    assert entries < 2 * (FEW_BURST + 24 * 60) + 2 * 24


def test_few_from_different_places_are_kept_apart() -> None:
    coalescer = Coalescer()
    assert all(coalescer.is_first(entry(number, ANONYMOUS), 0.0) for number in range(50))
    assert not coalescer.is_first(entry(7, ANONYMOUS), 1.0)


def test_a_flood_of_outsiders_hides_no_other_entry() -> None:
    coalescer = Coalescer()
    for number in range(1000):
        coalescer.is_first(entry(number, ANONYMOUS), 0.0)
    assert coalescer.is_first(entry(0, "alice"), 0.0)
