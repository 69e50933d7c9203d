"""The calendars and blackouts that are in force together, or what is wrong with them. Pure."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple
from zoneinfo import ZoneInfo

from bus.calendars import BlackoutAct, BlackoutSpec, CalendarsSpec
from bus.job_definition import Mistake
from bus.schedules import Bar, ScheduleSpec, Why
from handlers.calendars.blackouts import Blackout, blackout_of, window_at
from handlers.calendars.days import Calendar, CalendarError, Source, calendar_of, no_calendar
from handlers.catalog.layers import Layer
from handlers.catalog.problem import Problem, shown
from handlers.catalog.record_decoding import RecordDecoder
from handlers.catalog.toml_lines import Path, line_of
from handlers.schedule.plan import instant
from handlers.schedule.rules import ScheduleError, zone_of

NAMED_MAX = 200
"""Calendars, and blackouts, of one service."""


class Faulty(Exception):
    """A `calendars.toml` that cannot be used; `mistakes` say why and where."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        super().__init__()
        self.mistakes = tuple(mistakes)


class CalendarSet(NamedTuple):
    """What is in force: immutable, replaced as a whole."""

    calendars: Mapping[str, Calendar]
    blackouts: tuple[Blackout, ...] = ()

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
        window = window_at(self.blackouts, job_id, moment)
        if window is None:
            return None
        waits = window.do is BlackoutAct.WAIT and window.until is not None
        until_ms = int(window.until.timestamp() * 1000) if waits and window.until else None
        text = f"blackout {window.name}{f': {window.why}' if window.why else ''}"
        return Bar(why=Why.BLACKOUT, text=text, until_ms=until_ms)

    def concerns(self, job_id: str, spec: ScheduleSpec) -> bool:
        """Whether any instant of the schedule could be barred."""
        goes_by = bool(spec.only or spec.except_)
        return goes_by or any(each.concerns(job_id) for each in self.blackouts)


def _calendar(text: str) -> Bar:
    return Bar(why=Why.CALENDAR, text=text)


NO_CALENDARS = CalendarSet({})


def decode(content: bytes, file: str) -> tuple[CalendarsSpec, Layer]:
    """What a `calendars.toml` says, not yet looked at for sense.

    Raises:
        Faulty: it is no TOML, or not of this form; with all else that is wrong.
    """
    layer = Layer(file, content)
    if layer.fault is not None:
        raise Faulty([Mistake(file=file, line=layer.fault.line, reason=layer.fault.reason)])
    decoder = RecordDecoder()
    try:
        values = decoder.fields(CalendarsSpec, layer.document, ())
    except RecursionError:
        reason = "lists or tables are nested too deeply"
        raise Faulty([Mistake(file=file, line=0, reason=reason)]) from None
    spec = CalendarsSpec(**values)
    if decoder.problems:
        *_, problems = _made(spec, {}, "UTC")
        # The files that it names are not read for it.
        sound = (each for each in decoder.sound(problems) if not _names_file(spec, each.path))
        raise Faulty(_placed([*decoder.problems, *sound], layer))
    return spec, layer


def compiled(
    spec: CalendarsSpec, layer: Layer, ics: Mapping[str, Source], zone: str
) -> CalendarSet:
    """The set; `ics` has the files that it names, `zone` is that of blackouts that name none.

    Raises:
        Faulty: with all that is wrong.
    """
    calendars, blackouts, problems = _made(spec, ics, zone)
    if problems:
        raise Faulty(_placed(problems, layer))
    return CalendarSet(calendars, blackouts)


def _names_file(spec: CalendarsSpec, path: Path) -> bool:
    """Whether the path is of a calendar that goes by a file."""
    calendar = spec.calendar.get(str(path[1])) if path[:1] == ("calendar",) else None
    return calendar is not None and calendar.ics is not None


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
        except CalendarError as error:
            problems.append(Problem(("calendar", name, *error.path), error.reason))
    blackouts: list[Blackout] = []
    for name, window in spec.blackout.items():
        try:
            blackouts.append(_blackout(name, window, spec, calendars, zone))
        except CalendarError as error:
            problems.append(Problem(("blackout", name, *error.path), error.reason))
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
    for index, wanted in enumerate(window.on):
        if wanted not in spec.calendar:
            raise CalendarError(("on", index), no_calendar(wanted, spec.calendar))
    try:
        its_zone = zone_of(window.zone or zone)
    except ScheduleError as error:
        raise CalendarError(("zone",), str(error)) from error
    if any(wanted not in calendars for wanted in window.on):
        raise _Unusable
    return blackout_of(name, window, [calendars[wanted] for wanted in window.on], its_zone)


def _placed(problems: Iterable[Problem], layer: Layer) -> list[Mistake]:
    return [
        Mistake(
            file=layer.file,
            line=line_of(each.path, layer.lines),
            reason=each.reason,
            key=shown(each.path),
        )
        for each in problems
    ]
