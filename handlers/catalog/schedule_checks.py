"""Whether `[[schedule]]` of a definition makes sense, and what is put in where it says nothing.
Pure."""

from collections.abc import Collection, Iterator

from msgspec.structs import replace

from bus.errors import Refused
from bus.job_definition import JobSpec
from bus.schedules import NAME_MAX, ScheduleSpec, default_name
from bus.visible_text import hides
from bus.wording import quoted
from handlers.calendars.days import no_calendar
from handlers.catalog.problem import SECONDS_MAX, Problem, within
from handlers.catalog.toml_lines import Path
from handlers.catalog.variable_checks import variables
from handlers.catalog.variables import resolve_variables
from handlers.schedule.rules import ScheduleError, WallRule, rule_of

SCHEDULES_MAX = 100
"""Schedules of one job."""
JITTER_S_MAX = 86_400.0


def completed(spec: JobSpec, zone: str) -> JobSpec:
    """The definition with a name and a zone for each schedule."""
    if not spec.schedule:
        return spec
    named = (
        replace(each, name=each.name or default_name(each), zone=each.zone or zone)
        for each in spec.schedule
    )
    return replace(spec, schedule=tuple(named))


def schedules(spec: JobSpec) -> Iterator[Problem]:
    """What is wrong with the schedules of a completed definition."""
    if len(spec.schedule) > SCHEDULES_MAX:
        yield Problem(("schedule", SCHEDULES_MAX), f"a job has at most {SCHEDULES_MAX} schedules")
    names: set[str] = set()
    variables_are_sound = not any(variables(spec))
    for index, schedule in enumerate(spec.schedule):
        path: Path = ("schedule", index)
        yield from _numbers(path, schedule)
        yield from _rule(path, schedule)
        yield from _name(path, schedule, names)
        names.add(schedule.name)
        if not variables_are_sound:
            continue
        try:
            resolve_variables(spec, schedule.variables)
        except Refused as exc:
            yield Problem((*path, "variables"), exc.message, (("variables",),))


def unknown_calendars(spec: JobSpec, known: Collection[str] | None) -> Iterator[Problem]:
    """The calendars that a schedule goes by and that there are not."""
    for index, schedule in enumerate(spec.schedule if known is not None else ()):
        for key, names in (("only", schedule.only), ("except", schedule.except_)):
            for at, name in enumerate(names):
                if name not in (known or ()):
                    path = ("schedule", index, key, at)
                    yield Problem(path, no_calendar(name, known or ()))


def _numbers(path: Path, schedule: ScheduleSpec) -> Iterator[Problem]:
    yield from within((*path, "every_s"), schedule.every_s, 1, SECONDS_MAX)
    yield from within((*path, "jitter_s"), schedule.jitter_s, 0, JITTER_S_MAX)
    yield from within((*path, "missed_within_s"), schedule.missed_within_s, 0, SECONDS_MAX)


def _rule(path: Path, schedule: ScheduleSpec) -> Iterator[Problem]:
    if schedule.every_s is not None and schedule.every_s < 1:
        return
    try:
        rule = rule_of(schedule)
    except ScheduleError as error:
        yield Problem((*path, error.key) if error.key else path, str(error), (path,))
        return
    for key in ("dst_gap", "dst_fold"):
        if getattr(schedule, key) is not None and not isinstance(rule, WallRule):
            yield Problem((*path, key), f"{key} is for cron and calendar alone; leave it out")


def _name(path: Path, schedule: ScheduleSpec, names: set[str]) -> Iterator[Problem]:
    name = schedule.name
    if len(name) > NAME_MAX or not name.isprintable() or hides(name) or name != name.strip():
        reason = f"name must be at most {NAME_MAX} visible characters, not {quoted(name)}"
        yield Problem((*path, "name"), reason)
    elif name in names:
        reason = f"two schedules are called {quoted(name)}; give each a name of its own"
        yield Problem((*path, "name"), reason)
