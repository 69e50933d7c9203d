"""Which instants of a schedule are due, and which come next. Pure.

Instants are those of the rule. What a schedule starts for one may be later by its jitter, which is
the same for all of them: it is derived from the job and the name, so no restart changes it.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import msgspec
from msgspec.structs import replace

from bus.clock import TIME_MS_MAX
from bus.commands import ReportScheduleDue
from bus.schedules import (
    Bar,
    BarredInstants,
    Instants,
    MissedPolicy,
    ScheduleSpec,
    ScheduleState,
)
from handlers.schedule.rules import EPOCH, RebootRule, Rule, due_between, next_after

LATE_MS = 60_000
"""A start that comes no later than this is on time: no policy on missed ones is asked."""

MADE_UP_MAX = 100
"""Missed instants that are started for, each; the newest."""

COUNT_MAX = 10_000
"""Instants that are counted; of more it is only said that there are more."""

AHEAD_MAX = 1_000
"""So many instants are looked at for one that is not barred: where days are barred, one a day."""

ROWS_MAX = 100
"""Rows of barred instants that one decision records."""

BarOf = Callable[[int], Bar | None]
"""What keeps an instant of a schedule from starting the job; None if nothing does."""

ChanceOf = Callable[[int], int]
"""The first moment at which something else may be true than at an instant that starts nothing."""

_MS = timedelta(milliseconds=1)
_LATEST_MS = TIME_MS_MAX - 100 * 366 * 86_400_000
"""The engines look for the next instant through half a century."""
_FIRST_SPAN_MS = 60_000


class Coming(msgspec.Struct, frozen=True):
    """An instant that is to come; `note` says what the clocks of its zone do, if anything, and why
    it starts nothing then."""

    at_ms: int
    note: str = ""
    is_barred: bool = False


def _bar_note(bar: Bar, zone: str) -> str:
    until = f"waits until {local_text(bar.until_ms, zone)}" if bar.until_ms else "starts nothing"
    return f"{until}: {bar.text}"


def jitter_ms(job_id: str, spec: ScheduleSpec) -> int:
    """By how much the starts of the schedule are later than its instants."""
    digest = hashlib.blake2b(f"{job_id}\0{spec.name}".encode(), digest_size=4).digest()
    return int(spec.jitter_s * 1000 * int.from_bytes(digest, "big") / 2**32)


def next_start_ms(job_id: str, spec: ScheduleSpec, rule: Rule, after_ms: int) -> int | None:
    """When something is to be done for the first instant later than `after_ms`."""
    due = next_after(rule, instant(after_ms))
    return None if due is None else ms_of(due) + jitter_ms(job_id, spec)


class Ahead(msgspec.Struct, frozen=True, kw_only=True):
    """When a schedule starts something next, as it was looked for from `after_ms` on; None if there
    is nothing until `looked_ms`."""

    after_ms: int
    looked_ms: int
    next_ms: int | None

    def counts_at(self, decided_ms: int) -> bool:
        """Whether it says as much once instants up to that moment are decided."""
        half_ms = (self.after_ms + self.looked_ms) // 2
        return self.after_ms <= decided_ms < (half_ms if self.next_ms is None else self.looked_ms)


def next_allowed(
    job_id: str, spec: ScheduleSpec, rule: Rule, after_ms: int, bar_of: BarOf, chance_of: ChanceOf
) -> Ahead:
    """When the first instant later than `after_ms` that is not barred starts something."""
    found, looked_ms, due = None, after_ms, next_after(rule, instant(after_ms))
    for _ in range(AHEAD_MAX):
        if due is None:
            looked_ms = _LATEST_MS
            break
        looked_ms = ms_of(due)
        bar = bar_of(looked_ms)
        if bar is None or bar.until_ms is not None:
            found = looked_ms + jitter_ms(job_id, spec) if bar is None else bar.until_ms
            break
        due = next_after(rule, instant(chance_of(looked_ms) - 1))
    return Ahead(after_ms=after_ms, looked_ms=looked_ms, next_ms=found)


def upcoming(
    spec: ScheduleSpec, rule: Rule, after_ms: int, count: int, bar_of: BarOf | None = None
) -> list[Coming]:
    """The first `count` instants later than `after_ms`, see `coming`."""
    return list(islice(coming(spec, rule, after_ms, bar_of), count))


def coming(
    spec: ScheduleSpec, rule: Rule, after_ms: int, bar_of: BarOf | None = None
) -> Iterator[Coming]:
    """The instants later than `after_ms`, with notes on changes of the clocks and on what keeps
    them from starting anything."""
    due = next_after(rule, instant(after_ms))
    zone = ZoneInfo(spec.zone)
    before = instant(after_ms).astimezone(zone).utcoffset()
    while due is not None:
        local = due.astimezone(zone)
        note = ""
        if local.utcoffset() != before:
            note = f"the clocks change before it, to UTC{local.isoformat()[-6:]}"
        elif local.fold:
            note = "the second coming of this hour"
        before = local.utcoffset()
        bar = bar_of(ms_of(due)) if bar_of is not None else None
        if bar is not None:
            note = "; ".join(filter(None, (note, _bar_note(bar, spec.zone))))
        yield Coming(ms_of(due), note, is_barred=bar is not None and bar.until_ms is None)
        due = next_after(rule, due)


def due_reports(
    job_id: str,
    spec: ScheduleSpec,
    rule: Rule,
    state: ScheduleState,
    now_ms: int,
    bar_of: BarOf | None = None,
) -> list[ReportScheduleDue]:
    """What is to be reported of the instants that have come, in their order.

    `bar_of` says what keeps an instant from starting the job. Those that start nothing for such a
    reason are reported as that, and no policy on missed ones counts them.
    """
    if bar_of is None or state.decided_ms is None or isinstance(rule, RebootRule):
        return _due_reports(job_id, spec, rule, state, now_ms)
    come_ms = now_ms - jitter_ms(job_id, spec)
    barred = _barred(rule, state.decided_ms, come_ms, bar_of)
    allowed = _Allowed(rule=rule, barred=frozenset(barred))
    reports = _due_reports(job_id, spec, allowed, state, now_ms)
    reports = [replace(each, bar=bar_of(each.at_ms)) for each in reports]
    return list(_with_barred(job_id, spec, state, reports, barred))


def _due_reports(
    job_id: str, spec: ScheduleSpec, rule: "Rule | _Allowed", state: ScheduleState, now_ms: int
) -> list[ReportScheduleDue]:
    if state.decided_ms is None or isinstance(rule, RebootRule):
        return []
    come_ms = now_ms - jitter_ms(job_id, spec)
    wanted = MADE_UP_MAX if spec.missed is MissedPolicy.ALL else 1
    newest = _newest(rule, state.decided_ms, come_ms, wanted)
    if not newest:
        return []
    since_ms = come_ms - int(spec.missed_within_s * 1000)
    made_up = _made_up(spec.missed, newest, since_ms, come_ms)
    first = made_up[0] if made_up else newest[-1]
    merged = None
    if spec.missed is MissedPolicy.ONCE and made_up:
        since_ms = min(max(since_ms - 1, state.decided_ms), first)
        merged = _counted(rule, since_ms, first)
        skipped = _counted(rule, state.decided_ms, since_ms + 1)
    else:
        skipped = _counted(rule, state.decided_ms, first)
    starts = made_up or [first]
    return [
        ReportScheduleDue(
            job_id=job_id,
            schedule=spec.name,
            mark=state.mark,
            at_ms=at_ms,
            start=bool(made_up),
            queue=len(starts) > 1,
            skipped=skipped if number == 0 else None,
            merged=merged if number == 0 else None,
        )
        for number, at_ms in enumerate(starts)
    ]


class _Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """A rule without the instants that are barred."""

    rule: Rule
    barred: frozenset[int]


def _instants(rule: Rule | _Allowed, after_ms: int, until_ms: int) -> Iterator[int]:
    """The instants in (`after_ms`, `until_ms`], earliest first."""
    plain, barred = (rule.rule, rule.barred) if isinstance(rule, _Allowed) else (rule, frozenset())
    found = map(ms_of, due_between(plain, instant(after_ms), instant(until_ms)))
    return (at_ms for at_ms in found if at_ms not in barred)


def _barred(rule: Rule, after_ms: int, until_ms: int, bar_of: BarOf) -> dict[int, Bar]:
    """The instants that start nothing, of the first in a span; later ones are asked about when one
    of them is to start something."""
    found = ((at_ms, bar_of(at_ms)) for at_ms in _instants(rule, after_ms, until_ms))
    return {
        at_ms: bar
        for at_ms, bar in islice(found, COUNT_MAX)
        if bar is not None and bar.until_ms is None
    }


def _with_barred(
    job_id: str,
    spec: ScheduleSpec,
    state: ScheduleState,
    reports: Sequence[ReportScheduleDue],
    barred: Mapping[int, Bar],
) -> Iterator[ReportScheduleDue]:
    """The reports, each with the barred instants before it, and one more for those behind."""
    left = list(barred.items())
    for report in reports:
        before = [pair for pair in left if pair[0] < report.at_ms]
        left = left[len(before) :]
        yield replace(report, barred=_rows(before))
    if left:
        at_ms, bar = left.pop()
        yield ReportScheduleDue(
            job_id=job_id,
            schedule=spec.name,
            mark=state.mark,
            at_ms=at_ms,
            bar=bar,
            barred=_rows(left),
        )


def _rows(barred: Sequence[tuple[int, Bar]]) -> tuple[BarredInstants, ...]:
    """Instants that are barred by the same, together; what is too much goes with the last."""
    rows: list[BarredInstants] = []
    for at_ms, bar in barred:
        last = rows[-1] if rows else None
        if last is not None and (last.bar == bar or len(rows) == ROWS_MAX):
            grown = replace(last.instants, last_ms=at_ms, count=last.instants.count + 1)
            rows[-1] = replace(last, instants=grown)
        else:
            rows.append(
                BarredInstants(instants=Instants(first_ms=at_ms, last_ms=at_ms, count=1), bar=bar)
            )
    return tuple(rows)


def _made_up(
    missed: MissedPolicy, newest: Sequence[int], since_ms: int, come_ms: int
) -> Sequence[int]:
    """Those of the newest instants that something is started for."""
    on_time = [at_ms for at_ms in newest[-1:] if come_ms - at_ms <= LATE_MS]
    if missed is MissedPolicy.SKIP:
        return on_time
    return [at_ms for at_ms in newest if at_ms >= since_ms] or on_time


def _newest(rule: Rule | _Allowed, after_ms: int, until_ms: int, wanted: int) -> list[int]:
    """The newest `wanted` instants in (`after_ms`, `until_ms`], earliest first; the engines go
    forwards alone, so longer and longer spans before the end are looked at."""
    span_ms = _FIRST_SPAN_MS
    while after_ms < until_ms:
        begin_ms = max(after_ms, until_ms - span_ms)
        found = list(_instants(rule, begin_ms, until_ms))
        if len(found) >= wanted or begin_ms == after_ms:
            return found[-wanted:]
        span_ms *= 4
    return []


def _counted(rule: Rule | _Allowed, after_ms: int, before_ms: int) -> Instants | None:
    """The instants between the two, without them; None if there are none."""
    found = list(islice(_instants(rule, after_ms, before_ms - 1), COUNT_MAX + 1))
    if not found:
        return None
    has_more = len(found) > COUNT_MAX
    last_ms = _newest(rule, after_ms, before_ms - 1, 1)[0] if has_more else found[-1]
    return Instants(
        first_ms=found[0],
        last_ms=last_ms,
        count=min(len(found), COUNT_MAX),
        more=has_more,
    )


def instant(at_ms: int) -> datetime:
    """The time in UTC; one that cannot be calculated with becomes the last or first that can."""
    return EPOCH + min(max(at_ms, 0), _LATEST_MS) * _MS


def ms_of(moment: datetime) -> int:
    return (moment - EPOCH) // _MS


def local_text(at_ms: int, zone: str) -> str:
    """An instant as RFC 3339 with the offset of the zone."""
    return instant(at_ms).astimezone(ZoneInfo(zone)).isoformat()
