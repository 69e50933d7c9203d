"""The rules by which a schedule is due, and the instants they name. Pure.

The engines (`cronsim`, `oncalendar`) run on wall-clock times without a zone: on aware ones they
decide for themselves what becomes of skipped and repeated times, and `*/15 2 * * *` is then not
due at all on the day on which Berlin's clocks skip from 2 to 3. They are imported when the first
rule is read: most services have few schedules, and some none.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

import msgspec

from bus.schedules import Fold, Gap, ScheduleSpec
from bus.wording import did_you_mean, quoted
from handlers.schedule.wall_time import (
    SECOND,
    instants_of,
    set_back_within,
    skipped_by,
    wall_of,
)

Walls = Callable[[datetime], Iterator[datetime]]
"""The wall-clock times of a rule that are strictly later than the one given."""

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
REBOOT = "@reboot"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RULES_MAX = 4096
"""Rules that are kept, since jobs of one folder are often due by the same few."""

AT_MAX = 1000
"""Instants of one `at`."""
YEAR_MAX = 9000
"""Far from where calculating with times ends."""
RULE_KEYS = ("cron", "every_s", "at", "calendar")
"""The keys of which a schedule has exactly one."""


class ScheduleError(Exception):
    """A rule that cannot be understood or never be due; the text says what to write instead."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(reason)
        self.key = key


class WallRule(msgspec.Struct, frozen=True, kw_only=True):
    """Due at times that clocks show: `cron`, or systemd's `calendar` (`engine` says which).

    text: what stands in the definition, without an alias.
    gap, fold: what becomes of times that are skipped or come twice.
    follows: it follows elapsed time: a skipped time is not made up for if the rule is due as much
        later, too.
    """

    engine: str
    text: str
    zone: str
    gap: Gap
    fold: Fold
    follows: bool = False


class EveryRule(msgspec.Struct, frozen=True, kw_only=True):
    """Due each `every_s` seconds, counted from `anchor`, so that no restart shifts it."""

    every_s: int
    anchor: datetime = EPOCH


class AtRule(msgspec.Struct, frozen=True, kw_only=True):
    """Due at these instants, earliest first."""

    instants: tuple[datetime, ...]


class RebootRule(msgspec.Struct, frozen=True, kw_only=True):
    """Due when the service starts for the first time on another boot of the machine."""


Rule = WallRule | EveryRule | AtRule | RebootRule


def rule_of(spec: ScheduleSpec) -> Rule:
    """The rule of one `[[schedule]]`; `zone` must be filled in.

    Raises:
        ScheduleError: it has none or several, cannot be understood, or is never due.
    """
    given = [key for key in RULE_KEYS if getattr(spec, key) is not None]
    if len(given) != 1:
        has = " and ".join(given)
        what = f"has {has}; keep one of them" if given else f"needs one of {', '.join(RULE_KEYS)}"
        raise ScheduleError(given[1] if given else "", f"a schedule {what}")
    zone_of(spec.zone)
    if spec.anchor is not None and spec.every_s is None:
        raise ScheduleError("anchor", "anchor is what every_s is counted from; write it with it")
    if spec.cron is not None:
        return cron_rule(spec.cron, spec.zone, spec.dst_gap, spec.dst_fold)
    if spec.calendar is not None:
        return calendar_rule(spec.calendar, spec.zone, spec.dst_gap, spec.dst_fold)
    if spec.every_s is not None:
        anchor = EPOCH if spec.anchor is None else moment_of(spec.anchor, spec.zone, "anchor")
        return EveryRule(every_s=spec.every_s, anchor=anchor)
    if not spec.at:
        raise ScheduleError("at", 'at is empty; write for example at = "2026-12-24T18:00:00"')
    if len(spec.at) > AT_MAX:
        reason = f"at has {len(spec.at)} instants and may have {AT_MAX}; write several schedules"
        raise ScheduleError("at", reason)
    instants = {moment_of(text, spec.zone, "at") for text in spec.at}
    return AtRule(instants=tuple(sorted(instants)))


def zone_of(name: str) -> ZoneInfo:
    """The zone of that name.

    Raises:
        ScheduleError: there is none.
    """
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:
        # By the last part, too: people write "Berlin".
        short = {known.rpartition("/")[2].casefold(): known for known in available_timezones()}
        near = short.get(name.casefold().replace(" ", "_"))
        hint = f"; did you mean {quoted(near)}?" if near else did_you_mean(name, _zones())
        raise ScheduleError("zone", f"there is no zone {quoted(name)}{hint}") from error


def _zones() -> list[str]:
    return ["UTC", "Europe/Berlin", *sorted(available_timezones())]


def moment_of(text: str, zone: str, key: str) -> datetime:
    """The instant that a text names.

    Raises:
        ScheduleError: it names none.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise ScheduleError(
            key, f'{quoted(text)} is no date and time; write for example "2026-12-24T18:00:00"'
        ) from error
    if not EPOCH.year <= moment.year <= YEAR_MAX:
        reason = f"{quoted(text)} does not lie between {EPOCH.year} and {YEAR_MAX}"
        raise ScheduleError(key, reason)
    if moment.tzinfo is not None:
        return moment.astimezone(UTC)
    return instants_of(moment, zone_of(zone), Gap.RUN, Fold.ONCE)[0]


def is_reboot(cron: str) -> bool:
    """Whether it is due with reboots, and at no time that clocks show."""
    return cron.strip().lower() == REBOOT


@lru_cache(maxsize=RULES_MAX)
def cron_rule(text: str, zone: str, gap: Gap | None = None, fold: Fold | None = None) -> Rule:
    """The rule of a line of cron.

    Without `gap` and `fold` fixed times are due once, behind a gap and in a fold; patterns (`*`,
    steps) follow elapsed time, so that they are never silent for an hour and never crowd.

    Raises:
        ScheduleError: it cannot be understood, or is never due.
    """
    from cronsim import CronSim, CronSimError

    wanted = " ".join(text.split())
    if not wanted:
        raise ScheduleError("cron", 'cron is empty; e.g. "0 3 * * *" is daily at three')
    if is_reboot(wanted):
        return RebootRule()
    line = ALIASES.get(wanted.lower(), wanted)
    _check_dialect(line)
    try:
        CronSim(line, _PLAIN_EPOCH)
    except CronSimError as error:
        raise ScheduleError("cron", _cron_sentence(line, str(error))) from error
    times = line.split()[:-3]
    is_pattern = any("*" in field or "/" in field for field in times)
    return _checked("cron", line, zone, gap, fold, is_pattern=is_pattern)


@lru_cache(maxsize=RULES_MAX)
def calendar_rule(text: str, zone: str, gap: Gap | None = None, fold: Fold | None = None) -> Rule:
    """The rule of one expression as in systemd's `OnCalendar=`; a zone at its end wins.

    Raises:
        ScheduleError: it cannot be understood, or is never due.
    """
    from oncalendar import BaseIterator, OnCalendarError

    wanted = " ".join(text.split())
    head, _, last = wanted.rpartition(" ")
    if head and (last == "UTC" or ("/" in last and last[:1].isalpha())):
        wanted, zone = head, last
        try:
            zone_of(zone)
        except ScheduleError as error:
            raise ScheduleError("calendar", str(error)) from error
    try:
        BaseIterator(wanted, _PLAIN_EPOCH)
    except OnCalendarError as error:
        raise ScheduleError(
            "calendar",
            f"{quoted(text)} is no calendar expression; write for example "
            '"Mon..Fri 09:00" or "*-*-01 04:30:00"',
        ) from error
    time = next((part for part in wanted.split() if ":" in part), "")
    is_pattern = "*" in time or "/" in time or wanted.lower() in ("minutely", "hourly")
    return _checked("calendar", wanted, zone, gap, fold, is_pattern=is_pattern)


def _checked(
    engine: str, text: str, zone: str, gap: Gap | None, fold: Fold | None, *, is_pattern: bool
) -> WallRule:
    rule = WallRule(
        engine=engine,
        text=text,
        zone=zone,
        gap=gap or Gap.RUN,
        fold=fold or (Fold.TWICE if is_pattern else Fold.ONCE),
        follows=is_pattern and gap is None,
    )
    if next_after(rule, EPOCH) is None:
        raise ScheduleError(engine, f"{quoted(text)} is never due: there is no such day")
    return rule


def next_after(rule: Rule, instant: datetime) -> datetime | None:
    """The first instant strictly later than `instant` at which `rule` is due; None if there is
    none any more. Rules of reboots are due at no instant that could be known before."""
    match rule:
        case WallRule():
            return _next_of_walls(rule, instant)
        case EveryRule(every_s=every_s, anchor=anchor):
            step = timedelta(seconds=every_s)
            return max(anchor, anchor + step * ((instant - anchor) // step + 1))
        case AtRule(instants=instants):
            return next((due for due in instants if due > instant), None)
        case RebootRule():
            return None


def due_between(rule: Rule, after: datetime, until: datetime) -> Iterator[datetime]:
    """The instants in (`after`, `until`] at which `rule` is due, earliest first."""
    due = next_after(rule, after)
    while due is not None and due <= until:
        yield due
        due = next_after(rule, due)


def _next_of_walls(rule: WallRule, instant: datetime) -> datetime | None:
    """See `next_after`.

    The first comings of wall-clock times are in their order, and so are the second ones; in a
    fold the two rows overlap. The search begins as far back as clocks are about to be set, and
    ends when the first coming is later than what was found.
    """
    zone = ZoneInfo(rule.zone)
    begin = wall_of(instant, zone) - set_back_within(instant, zone) - SECOND
    found: datetime | None = None
    for wall in _walls_of(rule)(begin):
        due = _instants_of(rule, wall, zone)
        later = [moment for moment in due if moment > instant]
        if later and (found is None or later[0] < found):
            found = later[0]
        if found is not None and due and due[0] >= found:
            return found
    return found


def _instants_of(rule: WallRule, wall: datetime, zone: ZoneInfo) -> tuple[datetime, ...]:
    if rule.follows:
        skipped = skipped_by(wall, zone)
        if skipped and next(_walls_of(rule)(wall + skipped - SECOND), None) == wall + skipped:
            return ()
    return instants_of(wall, zone, rule.gap, rule.fold)


def _walls_of(rule: WallRule) -> Walls:
    engine = _engine(rule.engine)
    return lambda begin: engine(rule.text, begin)


@lru_cache(2)
def _engine(name: str) -> Callable[[str, datetime], Iterator[datetime]]:
    from cronsim import CronSim
    from oncalendar import BaseIterator

    return CronSim if name == "cron" else BaseIterator


def _check_dialect(line: str) -> None:
    """Raises for words of other schedulers, with what stands for them here."""
    fields = line.split()
    if line.startswith("@"):
        known = ", ".join(sorted({*ALIASES, REBOOT}))
        raise ScheduleError("cron", f"{quoted(line)} is no known name; there are {known}")
    if len(fields) == 7:
        raise ScheduleError(
            "cron",
            f"{quoted(line)} has seven fields; a year cannot be given: write six (with seconds) "
            "or five, or calendar",
        )
    if len(fields) not in (5, 6):
        raise ScheduleError(
            "cron",
            f"{quoted(line)} has {len(fields)} fields; write five (minute, hour, day of the month,"
            " month, day of the week), or six with seconds before them",
        )
    for field in fields:
        for word in field.upper().split(","):
            _check_word(line, word)


def _check_word(line: str, word: str) -> None:
    if "?" in word:
        raise ScheduleError("cron", f"{quoted(line)}: there is no '?'; write '*' for any day")
    if word == "H" or word.startswith(("H/", "H(")):
        raise ScheduleError(
            "cron",
            f"{quoted(line)}: there is no 'H'; write a fixed time, and jitter_s to spread starts",
        )
    if word == "W" or (word.endswith("W") and word[:-1].isdigit()):
        raise ScheduleError(
            "cron",
            f"{quoted(line)}: there is no 'W' for the nearest weekday; write 'LW' for the last "
            "weekday of the month, or days of the week such as 'MON-FRI'",
        )


_PLAIN_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - a wall-clock time
_FIELDS = ("second", "minute", "hour", "day of the month", "month", "day of the week")
_RANGES = ("0-59", "0-59", "0-23", "1-31, L or LW", "1-12 or JAN-DEC", "0-7, SUN-SAT or MON#2")
_ENGINE_WORDS = ("second", "minute", "hour", "day-of-month", "month", "day-of-week")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August", "September"),
    *("October", "November", "December"),
)


def _cron_sentence(line: str, said: str) -> str:
    """What is wrong with a line, from the name of the field that the engine refused."""
    fields = line.split()
    fields = ["0", *fields] if len(fields) == 5 else fields
    for word, name, span, field in zip(_ENGINE_WORDS, _FIELDS, _RANGES, fields, strict=True):
        if said.lower() != f"bad {word}":
            continue
        if name == "day of the month" and _is_understood(f"0 0 {field} * *"):
            months = fields[4]
            known = months.isdigit() and 1 <= int(months) <= 12
            shown = _MONTHS[int(months) - 1] if known else f"month {months}"
            return f"{quoted(line)} is never due: there is no day {field} in {shown}"
        return (
            f"{quoted(line)}: {quoted(field)} is no {name}; it may be {span}, a list, a range or a "
            "step"
        )
    return f"{quoted(line)} cannot be understood as a line of cron"


def _is_understood(line: str) -> bool:
    from cronsim import CronSim, CronSimError

    try:
        CronSim(line, _PLAIN_EPOCH)
    except CronSimError:
        return False
    return True
