"""What values of a call mean: variables typed as the job's definition says, and times. No IO."""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from bus.clock import from_rfc3339
from bus.job_definition import VariableType
from bus.malformed import why_no_json, why_no_value
from bus.wording import quoted
from jobbus.cli.exits import CliError, Exit
from jobbus.client.command_records import SecretRef, Value
from jobbus.client.records import Variable

_AGO = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*(s|m|min|h|d)")
_AHEAD = re.compile(r"\+\s*(\d{1,9}(?:\.\d{1,3})?)\s*(s|m|min|h|d)")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_TIME_OF_DAY = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")
_UNIT_S = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(:?=)(.*)", re.DOTALL)


def variables_of(
    assignments: Sequence[str], declared: Mapping[str, Variable] | None
) -> dict[str, Value]:
    """The variables of `NAME=VALUE` and `NAME:=JSON`.

    A plain value becomes what `declared` says about its name: a number, a truth value, the name of
    a secret. What is not declared (or all, if it is None) stays text; the service decides about it.

    Raises:
        CliError: one is malformed, given twice, or cannot be what it should.
    """
    values: dict[str, Value] = {}
    for assignment in assignments:
        match = _ASSIGNMENT.fullmatch(assignment)
        if match is None:
            raise _wrong(f"the variable {assignment!r}: write NAME=VALUE, or NAME:=JSON")
        name, sign, text = match.groups()
        if name in values:
            raise _wrong(f"-V {name} is given twice")
        if sign == ":=":
            values[name] = _json(name, text)
        else:
            spec = declared.get(name) if declared is not None else None
            values[name] = _typed(name, text, spec.type if spec else VariableType.STRING)
    return values


def moment_s(flag: str, text: str, now_s: float) -> float:
    """The time that `10m`, `2h` (ago) or an RFC 3339 time names, in seconds since 1970.

    Raises:
        CliError: it is neither.
    """
    match = _AGO.fullmatch(text.strip())
    if match is not None:
        return now_s - float(match[1]) * _UNIT_S[match[2]]
    try:
        return from_rfc3339(text) / 1000
    except (ValueError, OverflowError):
        raise _wrong(
            f"{flag} {quoted(text)}: write how long ago, such as 30s, 10m, 2h or 1d, or a time "
            "such as 2026-01-26T18:00:00Z"
        ) from None


def coming_moment(flag: str, text: str, now_s: float) -> str:
    """The moment that `18:00`, `+2h` or a time such as `2026-11-30 18:00` names, as RFC 3339.

    A time of day is the next one; what names no zone is meant by this machine's clock.

    Raises:
        CliError: it is none of these, or has passed.
    """
    written = text.strip()
    now = datetime.fromtimestamp(now_s).astimezone()
    if (match := _AHEAD.fullmatch(written)) is not None:
        at = now + timedelta(seconds=float(match[1]) * _UNIT_S[match[2]])
    elif (match := _TIME_OF_DAY.fullmatch(written)) is not None:
        at = _next_time_of_day(flag, text, now, [int(part or 0) for part in match.groups()])
    else:
        at = _written_moment(flag, text, written)
    if at <= now:
        raise _wrong(f"{flag} {quoted(text)} has passed: it is {now:%Y-%m-%d %H:%M:%S} now")
    return at.isoformat()


def end_of_span(flag: str, text: str, *, is_last: bool) -> str:
    """One end of a span of time, as RFC 3339: a day, or a day and a time; both ends are in it.

    What names no zone is meant by this machine's clock.

    Raises:
        CliError: it is neither.
    """
    written = text.strip()
    if _DAY.fullmatch(written):
        written += " 23:59:59.999" if is_last else " 00:00"
    try:
        at = datetime.fromisoformat(written)
        return (_on_this_clock(at) if at.tzinfo is None else at).isoformat()
    except (ValueError, OverflowError):
        raise _wrong(
            f"{flag} {quoted(text)}: write a day such as 2026-11-01, or with a time such as "
            "2026-11-01 18:00"
        ) from None


def _next_time_of_day(flag: str, text: str, now: datetime, parts: list[int]) -> datetime:
    hour, minute, second = parts
    try:
        today = now.replace(hour=hour, minute=minute, second=second, microsecond=0, tzinfo=None)
    except ValueError:
        raise _no_moment(flag, text) from None
    at = _on_this_clock(today)
    return at if at > now else _on_this_clock(today + timedelta(days=1))


def _written_moment(flag: str, text: str, written: str) -> datetime:
    try:
        at = datetime.fromisoformat(written)
        if ":" not in written:
            raise _no_moment(flag, text)  # a day alone: midnight is hardly meant
        return _on_this_clock(at) if at.tzinfo is None else at
    except (ValueError, OverflowError):
        raise _no_moment(flag, text) from None


def _on_this_clock(wall: datetime) -> datetime:
    """The first moment at which this machine's clock shows `wall`; of one that it skips, the later
    of the two that it may be taken for: what is asked for is not before."""
    first, second = wall.replace(fold=0).astimezone(), wall.replace(fold=1).astimezone()
    is_shown = first.replace(tzinfo=None, fold=0) == wall
    return first if is_shown else max(first, second)


def _no_moment(flag: str, text: str) -> CliError:
    return _wrong(
        f"{flag} {quoted(text)}: write when, such as 18:00, +30m, +2h, 2026-11-30 18:00 or "
        "2026-11-30T18:00:00+01:00"
    )


def looks_typed(assignment: str) -> bool:
    """Whether a plain `NAME=VALUE` holds something that may be meant as number or truth value."""
    _, _, text = assignment.partition("=")
    return ":=" not in assignment and bool(re.fullmatch(r"-?\d+(\.\d+)?|true|false", text))


def _typed(name: str, text: str, kind: str) -> Value:
    match kind:
        case VariableType.INTEGER:
            if not re.fullmatch(r"[+-]?[0-9]{1,400}", text):
                raise _wrong(f"-V {name}: {text!r} is no whole number")
            return int(text)
        case VariableType.NUMBER:
            return _number(name, text)
        case VariableType.BOOLEAN:
            return _boolean(name, text)
        case VariableType.SECRET:
            return _reference(text)
        case _:
            return text


def _reference(text: str) -> SecretRef:
    """A secret by its name, or by the reference to it as HTTP takes it."""
    try:
        return msgspec.json.decode(text, type=SecretRef)
    except msgspec.DecodeError:
        return SecretRef(secret=text)


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise _wrong(f"-V {name}: {text!r} is no number")
    return number


def _boolean(name: str, text: str) -> bool:
    match text.lower():
        case "true" | "yes" | "on" | "1":
            return True
        case "false" | "no" | "off" | "0":
            return False
        case _:
            raise _wrong(f"-V {name}: must be true or false, not {text!r}")


def _json(name: str, text: str) -> Value:
    try:
        value: Value = msgspec.json.decode(text, type=Value)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
        raise _wrong(f"-V {name}:={text}: {_why_no_value(name, text)}") from exc
    return value


def _why_no_value(name: str, text: str) -> str:
    raw = text.encode("utf-8", "surrogatepass")
    try:
        return why_no_value(name, msgspec.json.decode(raw)) or why_no_json(raw)
    except (ValueError, RecursionError):
        return f"no JSON: {why_no_json(raw)}; for text write {name}=…"


def _wrong(sentence: str) -> CliError:
    return CliError(sentence, Exit.USAGE)
