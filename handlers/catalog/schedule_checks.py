"""Whether `[[schedule]]` of a definition makes sense, and what is put in where it says nothing.
Pure."""

from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

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
from handlers.schedule.rules import (
    AT_MAX,
    RULE_KEYS,
    ScheduleError,
    is_reboot,
    moment_of,
    rule_of,
    zone_of,
)

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
    """What is wrong with the rule: each key is looked at by itself, so that no mistake hides
    another."""
    given = [key for key in RULE_KEYS if getattr(schedule, key) is not None]
    if len(given) != 1:
        yield from _problem(path, partial(rule_of, schedule), rests_on=(path,))
    of_zone = list(_problem(path, partial(zone_of, schedule.zone)))
    yield from of_zone
    if not given:
        return
    known = replace(schedule, zone="UTC") if of_zone else schedule
    for key in given:
        yield from _rule_alone(path, key, known)
    if schedule.anchor is not None and schedule.every_s is None:
        reason = "anchor is what every_s is counted from; write it with it"
        yield Problem((*path, "anchor"), reason, ((*path, "every_s"),))
    for key in ("dst_gap", "dst_fold"):
        if schedule.dst is not None and getattr(schedule, key) is not None:
            reason = f'dst = "auto" and {key} say different things; keep one of them'
            yield Problem((*path, key), reason, ((*path, "dst"),))
    if schedule.calendar is not None or (
        schedule.cron is not None and not is_reboot(schedule.cron)
    ):
        return
    for key in ("dst_gap", "dst_fold"):
        if getattr(schedule, key) is not None:
            reason = f"{key} is for cron and calendar alone; leave it out"
            yield Problem((*path, key), reason, ((*path, "cron"), (*path, "calendar")))


def _rule_alone(path: Path, key: str, schedule: ScheduleSpec) -> Iterator[Problem]:
    """What is wrong with one of the keys that say when, whatever stands beside it."""
    if key == "at" and schedule.at and len(schedule.at) <= AT_MAX:
        for index, text in enumerate(schedule.at):
            place = (*path, "at", index) if len(schedule.at) > 1 else (*path, "at")
            for problem in _problem(path, partial(moment_of, text, schedule.zone, "at")):
                yield problem._replace(path=place)
        return
    kept: dict[str, Any] = {key: getattr(schedule, key)}
    if key == "every_s":  # its number is looked at elsewhere
        kept = {key: max(1, schedule.every_s or 1), "anchor": schedule.anchor}
    alone = replace(schedule, **{**dict.fromkeys((*RULE_KEYS, "anchor")), **kept})
    yield from _problem(path, partial(rule_of, alone))


def _problem(
    path: Path, look: Callable[[], object], rests_on: tuple[Path, ...] = ()
) -> Iterator[Problem]:
    """What the look finds to be wrong, if anything."""
    try:
        look()
    except ScheduleError as error:
        yield Problem((*path, error.key) if error.key else path, str(error), rests_on)


def _name(path: Path, schedule: ScheduleSpec, names: set[str]) -> Iterator[Problem]:
    name = schedule.name
    if len(name) > NAME_MAX or not name.isprintable() or hides(name) or name != name.strip():
        reason = f"name must be at most {NAME_MAX} visible characters, not {quoted(name)}"
        yield Problem((*path, "name"), reason)
    elif name in names:
        reason = f"two schedules are called {quoted(name)}; give each a name of its own"
        yield Problem((*path, "name"), reason)
