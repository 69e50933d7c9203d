"""The calendars and blackouts that are in force together, or what is wrong with them. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from bus.calendars import BlackoutAct, BlackoutSpec, CalendarSpec, CalendarsSpec
from bus.job_definition import Mistake
from bus.schedules import Bar, ScheduleSpec, Why
from handlers.calendars.blackouts import Blackout, Ends, blackout_of, window_at
from handlers.calendars.days import (
    Calendar,
    CalendarError,
    CalendarErrors,
    Source,
    calendar_of,
    day_after,
    no_calendar,
)
from handlers.catalog.layers import Layer
from handlers.catalog.problem import Problem, shown
from handlers.catalog.record_decoding import RecordDecoder
from handlers.catalog.toml_lines import Path, line_of
from handlers.schedule.plan import instant
from handlers.schedule.rules import ScheduleError, zone_of

NAMED_MAX = 200
"""Calendars, and blackouts, of one service."""


class Written(NamedTuple):
    """What one file says of calendars and blackouts, and on which line each of its keys stands."""

    file: str
    spec: CalendarsSpec
    lines: dict[Path, int]

    def has(self, path: Path) -> bool:
        """Whether the calendar or the blackout that the path leads to stands there."""
        named: Mapping[str, object] = getattr(self.spec, str(path[0]), {})
        return len(path) > 1 and path[1] in named


NOTHING_WRITTEN = Written("", CalendarsSpec(), {})


class Faulty(Exception):
    """Calendars and blackouts that cannot be used; `mistakes` say why and where. `written` is what
    could be read of a file all the same."""

    def __init__(self, mistakes: Iterable[Mistake], written: Written | None = None) -> None:
        super().__init__()
        self.mistakes = tuple(mistakes)
        self.written = written


class CalendarSet(NamedTuple):
    """What is in force: immutable but for what `ends` has worked out, replaced as a whole."""

    calendars: Mapping[str, Calendar]
    blackouts: tuple[Blackout, ...]
    ends: Ends

    def bar(self, job_id: str, spec: ScheduleSpec, at_ms: int) -> Bar | None:
        """What keeps the instant of the schedule from starting the job; None if nothing does.

        A calendar that there is no more keeps it from that too: what it would say is not known.
        """
        moment = instant(at_ms)
        local = moment.astimezone(ZoneInfo(spec.zone))
        for name in (*spec.only, *spec.except_):
            if name not in self.calendars:
                return _calendar(f"the calendar {name} cannot be read")
        for name in spec.except_:
            cover = self.calendars[name].cover(local)
            if cover is not None:
                return _calendar(f"except {name}: {cover.why}")
        if spec.only and not any(self.calendars[name].cover(local) for name in spec.only):
            return _calendar(f"{local.day} {local:%B} is not in {' or '.join(spec.only)}")
        window = window_at(self.blackouts, job_id, moment, self.ends)
        if window is None:
            return None
        waits = window.do is BlackoutAct.WAIT and window.until is not None
        until_ms = int(window.until.timestamp() * 1000) if waits and window.until else None
        text = f"blackout {window.name}{f': {window.why}' if window.why else ''}"
        return Bar(why=Why.BLACKOUT, text=text, until_ms=until_ms)

    def chance_ms(self, job_id: str, spec: ScheduleSpec, at_ms: int) -> int:
        """The first moment at which the schedule may start something, if it starts nothing at the
        instant."""
        moment = instant(at_ms)
        local = moment.astimezone(ZoneInfo(spec.zone))
        named = [self.calendars[name] for name in spec.only if name in self.calendars]
        untils = [
            cover.until
            for name in spec.except_
            if name in self.calendars and (cover := self.calendars[name].cover(local)) is not None
        ]
        if named and all(each.is_of_days and each.cover(local) is None for each in named):
            untils.append(day_after(local))
        untils += (
            found[1]
            for each in self.blackouts
            if each.do is BlackoutAct.SKIP
            and each.concerns(job_id)
            and (found := each.holds_at(moment)) is not None
        )
        return max((int(each.timestamp() * 1000) for each in untils), default=at_ms + 1)

    def concerns(self, job_id: str, spec: ScheduleSpec) -> bool:
        """Whether any instant of the schedule could be barred."""
        goes_by = bool(spec.only or spec.except_)
        return goes_by or any(each.concerns(job_id) for each in self.blackouts)


def _calendar(text: str) -> Bar:
    return Bar(why=Why.CALENDAR, text=text)


NO_CALENDARS = CalendarSet({}, (), Ends())


def decode(content: bytes, file: str, elsewhere: Collection[str] = ()) -> Written:
    """What a `calendars.toml` says, not yet looked at for sense; `elsewhere` are the calendars of
    other files.

    Raises:
        Faulty: it is no TOML, or not of this form; with all else that is wrong.
    """
    layer = Layer(file, content)
    if layer.fault is not None:
        raise Faulty([Mistake(file=file, line=layer.fault.line, reason=layer.fault.reason)])
    try:
        spec, problems, is_whole = examined(layer.document, elsewhere)
    except RecursionError:
        reason = "lists or tables are nested too deeply"
        raise Faulty([Mistake(file=file, line=0, reason=reason)]) from None
    written = Written(file, spec, layer.lines)
    if not is_whole:
        raise Faulty(_placed(problems, [written]), written)
    return written


def examined(
    tables: Mapping[str, Any], elsewhere: Collection[str] | None = None
) -> tuple[CalendarsSpec, list[Problem], bool]:
    """What `[calendar]` and `[blackout]` of one file say, what is wrong with that by itself, and
    whether all of it could be decoded. `elsewhere` are the calendars of other files, None if that
    is not known; the files that calendars name are not read.

    Raises:
        RecursionError: lists or tables are nested too deeply.
    """
    decoder = RecordDecoder()
    spec = CalendarsSpec(**decoder.fields(CalendarsSpec, tables, ()))
    *_, problems = _made(spec, {}, "UTC")
    own = (each for each in problems if not _may_be_elsewhere(spec, each.path, elsewhere))
    return spec, [*decoder.problems, *decoder.sound(own)], not decoder.problems


def _may_be_elsewhere(spec: CalendarsSpec, path: Path, elsewhere: Collection[str] | None) -> bool:
    """Whether the path is of a calendar's name that a blackout goes by, and another file may have
    that calendar."""
    match path:
        case ("blackout", str(name), "on", int(index)):
            return elsewhere is None or spec.blackout[name].on[index] in elsewhere
        case _:
            return False


def compiled(files: Sequence[Written], ics: Mapping[str, Source], zone: str) -> CalendarSet:
    """The set of what all files say together; `ics` has the files that they name, `zone` is that
    of blackouts that name none.

    Raises:
        Faulty: with all that is wrong.
    """
    spec, twice = together(files)
    calendars, blackouts, problems = _made(spec, ics, zone)
    if problems or twice:
        raise Faulty([*twice, *_placed(problems, files)])
    return CalendarSet(calendars, blackouts, Ends())


def together(files: Sequence[Written]) -> tuple[CalendarsSpec, list[Mistake]]:
    """What all files say, and the names that several of them have."""
    calendars: dict[str, CalendarSpec] = {}
    blackouts: dict[str, BlackoutSpec] = {}
    mistakes: list[Mistake] = []
    for index, written in enumerate(files):
        for kind, there, own in (
            ("calendar", calendars, written.spec.calendar),
            ("blackout", blackouts, written.spec.blackout),
        ):
            for name in own.keys() & there.keys():
                path: Path = (kind, name)
                first = next(each for each in files[:index] if each.has(path))
                reason = (
                    f"[{shown(path)}] stands in {first.file}, line {line_of(path, first.lines)}, "
                    "too; write it once, or give one of them another name"
                )
                mistakes.append(_mistake(Problem(path, reason), written))
        calendars |= written.spec.calendar
        blackouts |= written.spec.blackout
    return CalendarsSpec(calendar=calendars, blackout=blackouts), mistakes


def _made(
    spec: CalendarsSpec, ics: Mapping[str, Source], zone: str
) -> tuple[dict[str, Calendar], tuple[Blackout, ...], list[Problem]]:
    """All that can be used, and what is wrong with the rest."""
    problems = [
        Problem((kind,), f"there are more than {NAMED_MAX} of [{kind}]")
        for kind in ("calendar", "blackout")
        if len(getattr(spec, kind)) > NAMED_MAX
    ]
    calendars: dict[str, Calendar] = {}
    for name, each in spec.calendar.items():
        try:
            calendars[name] = calendar_of(name, each, ics.get(each.ics or ""))
        except CalendarErrors as found:
            problems += (Problem(("calendar", name, *e.path), e.reason) for e in found.errors)
    blackouts: list[Blackout] = []
    for name, window in spec.blackout.items():
        try:
            blackouts.append(_blackout(name, window, spec, calendars, zone))
        except CalendarErrors as found:
            problems += (Problem(("blackout", name, *e.path), e.reason) for e in found.errors)
        except _Unusable:
            pass  # its calendar is faulty, which is said there
    return calendars, tuple(blackouts), problems


class _Unusable(Exception):
    pass


def _blackout(
    name: str,
    window: BlackoutSpec,
    spec: CalendarsSpec,
    calendars: Mapping[str, Calendar],
    zone: str,
) -> Blackout:
    errors = [
        CalendarError(("on", index), no_calendar(wanted, spec.calendar))
        for index, wanted in enumerate(window.on)
        if wanted not in spec.calendar
    ]
    its_zone = ZoneInfo("UTC")
    try:
        its_zone = zone_of(window.zone or zone)
    except ScheduleError as error:
        errors.append(CalendarError(("zone",), str(error)))
    on = [calendars[wanted] for wanted in window.on if wanted in calendars]
    try:
        made = blackout_of(name, window, on, its_zone)
    except CalendarErrors as found:
        raise CalendarErrors([*errors, *found.errors]) from None
    if errors:
        raise CalendarErrors(errors)
    if len(on) < len(window.on):
        raise _Unusable
    return made


def _placed(problems: Iterable[Problem], files: Sequence[Written]) -> list[Mistake]:
    """Each where it was written; of several files the last that has it, as it counts."""
    placed = []
    for each in problems:
        of = (written for written in reversed(files) if written.has(each.path))
        placed.append(_mistake(each, next(of, files[-1])))
    return placed


def _mistake(problem: Problem, written: Written) -> Mistake:
    line = line_of(problem.path, written.lines)
    return Mistake(file=written.file, line=line, reason=problem.reason, key=shown(problem.path))
