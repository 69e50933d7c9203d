"""Bodies become commands: for each fault the place and what would be right. No IO."""

from collections.abc import Mapping
from difflib import get_close_matches

import msgspec

from bus.clock import A_MOMENT, canonical_moment
from bus.commands import (
    GRACE_S_MAX,
    REASON_MAX,
    Command,
    PauseQueue,
    PauseSchedule,
    RestartJob,
    ResumeQueue,
    StopJob,
    command_decoder,
)
from bus.envelope import canonical_uuid
from bus.malformed import described, first_unfit, why_unfit
from bus.wording import quoted
from transports.http.web.body import (
    NULL,
    UNREADABLE,
    Fields,
    decode_any,
    decode_field,
    fields_of,
    pointer_of,
    refuse_unknown,
    unreadable,
)
from transports.http.web.problems import Problem, invalid

BESIDE = ("commandId", "expiresAt")
"""Fields of a body that belong to the request and not to the command."""

_text_decoder = msgspec.json.Decoder(str)
_KINDS: dict[str, type[msgspec.Struct]] = {
    str(kind.__struct_config__.tag): kind for kind in Command.__args__
}
_OPTIONAL: dict[type, frozenset[str]] = {
    kind: frozenset(f.encode_name for f in msgspec.structs.fields(kind) if not f.required)
    for kind in _KINDS.values()
}


def command_of_line(line: bytes) -> tuple[Command, str | None, str | None]:
    """A command with the `commandId` and `expiresAt` beside it, each None if not given.

    Raises:
        Problem: as for a body of one command.
    """
    return command_of_fields(fields_of(line))


def command_of_fields(fields: Fields) -> tuple[Command, str | None, str | None]:
    """The same of a body that was read already."""
    command_id, expires_at = (decode_field(fields, name, str) for name in BESIDE)
    own = {name: raw for name, raw in fields.items() if name not in BESIDE}
    return with_canonical_ids(decode_command(own, BESIDE)), command_id, expires_at


def decode_command(fields: Mapping[str, msgspec.Raw], beside: tuple[str, ...]) -> Command:
    """The command that `fields` spell; `beside` are the request's own fields, already taken out.

    A field that may be absent may be null, too: serializers of .NET and Java write every
    member that has no value.

    Raises:
        Problem: 422 with a pointer to the faulty field.
    """
    kind = _KINDS[_kind_in(fields)]
    refuse_unknown(fields, ("command", *kind.__struct_encode_fields__, *beside))
    given = {k: v for k, v in fields.items() if bytes(v) != NULL or k not in _OPTIONAL[kind]}
    raw = msgspec.json.encode(given)
    try:
        command = command_decoder.decode(raw)
    except msgspec.ValidationError as exc:
        raise _wrong_field(exc, fields) from exc
    except UNREADABLE as exc:
        raise unreadable(raw) from exc
    _check_grace(getattr(command, "grace_s", None))
    return _with_canonical_moments(command)


def with_canonical_ids(command: Command) -> Command:
    """The command with its ids in lower case.

    Raises:
        Problem: 422; what should be an id is none.
    """
    match command:
        case StopJob(job_id=None, execution_id=None) | RestartJob(job_id=None, execution_id=None):
            raise invalid("/jobId", "missing; name a jobId or an executionId")
        case PauseQueue() | ResumeQueue() if (command.job_id is None) is (command.group is None):
            raise invalid("/jobId", "name a job as jobId or a group as group, one of them")
        case PauseSchedule(reason=reason) | PauseQueue(reason=reason) if len(reason) > REASON_MAX:
            raise invalid("/reason", f"must have at most {REASON_MAX} characters")
        case _:
            pass
    for field, wire in (("execution_id", "executionId"), ("target_id", "targetId")):
        text = getattr(command, field, None)
        if text is None:
            continue
        try:
            command = msgspec.structs.replace(command, **{field: canonical_uuid(text)})
        except ValueError as exc:
            raise invalid(f"/{wire}", str(exc)) from exc
    return command


_MOMENTS = (("not_before", "notBefore"), ("until", "until"), ("begin", "from"), ("end", "to"))
"""Fields that hold a moment, with their names on the wire."""


def _with_canonical_moments(command: Command) -> Command:
    """The command with each of its moments in the one spelling that it has."""
    for field, wire in _MOMENTS:
        text = getattr(command, field, None)
        if text is None:
            continue
        try:
            command = msgspec.structs.replace(command, **{field: canonical_moment(text)})
        except (ValueError, OverflowError) as exc:
            raise invalid(f"/{wire}", f"must be {A_MOMENT}, not {quoted(text)}") from exc
    return command


def _kind_in(fields: Mapping[str, msgspec.Raw]) -> str:
    raw = fields.get("command")
    kinds = ", ".join(_KINDS)
    if raw is None:
        raise invalid("/command", f"missing; one of {kinds}")
    try:
        kind = _text_decoder.decode(raw)
    except UNREADABLE:
        raise invalid("/command", f"must be one of {kinds}") from None
    if kind not in _KINDS:
        near = get_close_matches(kind, _KINDS, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"one of {kinds}"
        raise invalid("/command", f"unknown command {quoted(kind)}; {hint}")
    return kind


def _wrong_field(error: msgspec.ValidationError, fields: Mapping[str, msgspec.Raw]) -> Problem:
    steps, sentence = why_unfit(error)
    if steps[:1] == ("variables",):
        # The decoder names no key that is the writer's own.
        variables = decode_any(fields["variables"])
        unfit = first_unfit(variables) if isinstance(variables, dict) else None
        if unfit is not None:
            return invalid(pointer_of(("variables", unfit[0][:80])), unfit[1])
        wanted = 'must be an object such as {"Interval": 30}'
        return invalid("/variables", f"{wanted}, not {described(variables)}")
    return invalid(pointer_of(steps), sentence)


def _check_grace(grace_s: float | None) -> None:
    if grace_s is not None and not 0 <= grace_s <= GRACE_S_MAX:
        raise invalid("/graceS", f"must be from 0 to {GRACE_S_MAX:.0f} seconds")
