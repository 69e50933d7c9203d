"""Windows in which no schedule starts a job, and when they end. Pure."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time, timedelta
from fnmatch import fnmatchcase
from functools import partial
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from bus.calendars import BlackoutAct, BlackoutSpec
from bus.wording import quoted
from handlers.calendars.days import Calendar, CalendarError, CalendarErrors, all_of

_SPAN = re.compile(r"(\d{1,2}):(\d{2})\s*(?:\.\.|-)\s*(\d{1,2}):(\d{2})")
_DAY = timedelta(days=1)
JOINED_MAX = 1_000
"""Windows that follow one another without a gap: more of them are no window but always."""


class Window(NamedTuple):
    """A blackout that holds at some moment, and the first moment at which none does any more
    (None: always, or it skips)."""

    name: str
    do: BlackoutAct
    why: str
    until: datetime | None


class Blackout(msgspec.Struct, frozen=True):
    """One `[blackout.NAME]`. `spans` are pairs of times of day, the second not after the first if
    it is one of the next day; none are the whole day."""

    name: str
    do: BlackoutAct
    reason: str
    zone: ZoneInfo
    jobs: tuple[str, ...]
    spans: tuple[tuple[time, time], ...]
    on: tuple[Calendar, ...]

    def concerns(self, job_id: str) -> bool:
        return any(fnmatchcase(job_id, pattern) for pattern in self.jobs)

    def holds_at(self, instant: datetime) -> tuple[str, datetime] | None:
        """Why it holds, and until when at least; None if it does not hold at this instant."""
        local = instant.astimezone(self.zone)
        for begin, end in self._spans_around(local):
            if not begin <= local < end:
                continue
            if not self.on:
                return self._said(""), end.astimezone(UTC)
            for calendar in self.on:
                cover = calendar.cover(begin if self.spans else local)
                if cover is not None:
                    until = end if self.spans else cover.until
                    return self._said(f"{calendar.name}, {cover.why}"), until.astimezone(UTC)
        return None

    def _said(self, day: str) -> str:
        return ": ".join(part for part in (self.reason, day) if part)

    def _spans_around(self, local: datetime) -> Iterator[tuple[datetime, datetime]]:
        """The spans that begin on the day of `local` or on the one before."""
        for day in (local.date() - _DAY, local.date()):
            for begin, end in self.spans or ((time(0), time(0)),):
                last = day if end > begin else day + _DAY
                yield (
                    datetime.combine(day, begin, self.zone),
                    datetime.combine(last, end, self.zone),
                )


def blackout_of(name: str, spec: BlackoutSpec, on: Sequence[Calendar], zone: ZoneInfo) -> Blackout:
    """The blackout that is defined so; `on` are its calendars, as far as there are such.

    Raises:
        CalendarErrors: spans are none, or it would hold always.
    """
    spans = tuple(all_of(partial(_span, text, index) for index, text in enumerate(spec.daily)))
    if not spans and not spec.on:
        reason = 'it would hold always; give daily = ["22:00..06:00"], on, or both'
        raise CalendarErrors([CalendarError((), reason)])
    return Blackout(
        name=name,
        do=spec.do,
        reason=spec.reason,
        zone=zone,
        jobs=spec.jobs,
        spans=spans,
        on=tuple(on),
    )


class Ends:
    """When windows end that follow one another without a gap: that is asked for instant after
    instant, and takes long where hardly a gap is. `_known` has for blackouts, by name, the span
    that was looked through last, and the end that was found (None: none)."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], tuple[datetime, datetime, datetime | None]] = {}

    def after(
        self, blackouts: Sequence[Blackout], instant: datetime, until: datetime
    ) -> datetime | None:
        """The first moment at which none holds any more; one holds at `instant`, and until
        `until` at least."""
        names = tuple(each.name for each in blackouts)
        begin, looked_until, known = self._known.get(names, (until, until, None))
        if begin <= instant < looked_until:
            return known
        end = until
        for _ in range(JOINED_MAX):
            ends = [found[1] for each in blackouts if (found := each.holds_at(end)) is not None]
            if not ends:
                self._known[names] = (instant, end, end)
                return end
            end = max(ends)
        self._known[names] = (instant, end, None)
        return None


def window_at(
    blackouts: Sequence[Blackout], job_id: str, instant: datetime, known: Ends
) -> Window | None:
    """The blackout that holds for the job at the instant; one that skips wins over one that waits.

    Where several follow one another without a gap, it ends with the last of them. The end of one
    that skips is not asked for.
    """
    ours = [each for each in blackouts if each.concerns(job_id)]
    holding = [(each, found) for each in ours if (found := each.holds_at(instant)) is not None]
    if not holding:
        return None
    first, (why, until) = min(holding, key=lambda pair: pair[0].do is not BlackoutAct.SKIP)
    end = known.after(ours, instant, until) if first.do is BlackoutAct.WAIT else None
    return Window(first.name, first.do, why, end)


def _span(text: str, index: int) -> tuple[time, time]:
    match = _SPAN.fullmatch(text.strip())
    if match is not None:
        hours = [int(part) for part in match.groups()]
        try:
            begin, end = time(hours[0], hours[1]), time(hours[2] % 24, hours[3])
        except ValueError:
            match = None
        else:
            if hours[2] < 24 or hours[3] == 0:
                return begin, end
    raise CalendarError(
        ("daily", index), f"{quoted(text)} is no span of a day; write for example 22:00..06:00"
    )
