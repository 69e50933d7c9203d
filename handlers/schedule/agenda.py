"""What many schedules are due for in the time to come, in one order. Pure."""

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice, takewhile

import msgspec

from bus.schedules import ScheduleSpec
from bus.views import PlannedView
from handlers.schedule.plan import BarOf, Coming, coming, local_text
from handlers.schedule.rules import Rule


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule whose instants later than `after_ms` are to come; `why` says why none of them
    starts anything, if that is known for all."""

    job_id: str
    spec: ScheduleSpec
    rule: Rule
    after_ms: int
    bar_of: BarOf | None = None
    why: str | None = None


def agenda(rows: Sequence[Row], until_ms: int, most: int) -> list[PlannedView]:
    """The first `most` instants up to a moment, earliest first."""
    merged = heapq.merge(*(_of(row, until_ms) for row in rows), key=lambda pair: pair[0].at_ms)
    return [_view(row, each) for each, row in islice(merged, most)]


def _of(row: Row, until_ms: int) -> Iterator[tuple[Coming, Row]]:
    found = coming(row.spec, row.rule, row.after_ms, row.bar_of)
    return ((each, row) for each in takewhile(lambda each: each.at_ms <= until_ms, found))


def _view(row: Row, each: Coming) -> PlannedView:
    return PlannedView(
        job_id=row.job_id,
        schedule=row.spec.name,
        at=local_text(each.at_ms, row.spec.zone),
        starts=row.why is None and not each.is_barred,
        note="; ".join(filter(None, (row.why, each.note))),
    )
