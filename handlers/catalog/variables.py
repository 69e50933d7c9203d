"""What a command's variables must be, and the values a job gets. Pure: no IO, no clock.

Types are exact, as in any JSON API: `30` is an integer and `"30"` is text, so each of them has one
meaning and a wrong value is refused at once instead of arriving at the job. What is equal in JSON
is taken: `30.0` for an integer, `30` for a number. `null` is the same as not given.
"""

import math
from collections.abc import Collection, Mapping

from bus.errors import ErrorCode, Refused
from bus.job_definition import JobSpec, VariableSpec, VariableType
from bus.model import SecretRef, Value
from bus.secret_sources import SECRET_NAME
from bus.wording import did_you_mean, quoted
from handlers.catalog.expressions import NotUsable, matches

INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1
"""Integers fit 64 bits, so that every program and every JSON reader can hold them."""

EXACT_FLOAT_MAX = 2**53
"""Up to here a float holds each whole number exactly."""


def resolve_variables(spec: JobSpec, given: Mapping[str, Value]) -> dict[str, Value]:
    """The values the job gets, in the order of the definition: given ones checked, defaults added.

    A variable that is neither given nor has a default is absent. Resolving the answer again gives
    the same answer.

    Raises:
        Refused: `bad_variables`, or `secret_by_value` before anything else is looked at, so that
            a command with a secret in it is known as such whatever else is wrong with it.
    """
    for name, variable in spec.variables.items():
        if variable.type is VariableType.SECRET and name in given:
            _check_secret(name, given[name])
    for name in given:
        if name not in spec.variables:
            known = did_you_mean(name, spec.variables) or "; it declares none"
            raise _bad(name, f"the job has no variable {quoted(name)}{known}")
    resolved: dict[str, Value] = {}
    for name, variable in spec.variables.items():
        value = given.get(name)
        if value is None:
            value = variable.default
        if value is not None:
            resolved[name] = check_value(name, variable, value)
        elif variable.required:
            raise _bad(name, f"variable {quoted(name)} is required: {_wanted(variable)}")
    return resolved


def check_secret_names(resolved: Mapping[str, Value], known: Collection[str]) -> None:
    """Every reference names a secret that is configured for the job.

    Raises:
        Refused: `bad_variables`. The name is not repeated: it may be a value that went astray.
    """
    for name, value in resolved.items():
        if isinstance(value, SecretRef) and value.secret not in known:
            raise _unfit(
                name,
                "refers to a secret that is not configured for this job; give the name of one that "
                "stands in [secrets] of jobbus.toml",
            )


def reveals(spec: JobSpec, given: Mapping[str, Value], known: Collection[str]) -> bool:
    """Whether a value that was meant to be secret may stand in `given`: it must not be kept."""
    secret = {name for name, one in spec.variables.items() if one.type is VariableType.SECRET}
    for name, value in given.items():
        if isinstance(value, SecretRef):
            if value.secret not in known:
                return True
        elif value is not None and name in secret:
            return True
    return False


def check_value(name: str, variable: VariableSpec, value: Value) -> Value:
    """`value` as the job gets it (an integer given as `30.0` is 30).

    Raises:
        Refused: it does not fit; the sentence says what would.
    """
    if isinstance(value, SecretRef) and variable.type is not VariableType.SECRET:
        raise _unfit(name, f"is no secret and takes no reference to one: {_expected(variable)}")
    match variable.type:
        case VariableType.SECRET:
            return _check_secret(name, value)
        case VariableType.BOOLEAN:
            if not isinstance(value, bool):
                raise _unfit(name, f"{_expected(variable)}, not {_described(value)}")
            return value
        case VariableType.INTEGER | VariableType.NUMBER:
            number = _number(name, variable, value)
            _check_range(name, variable, number)
            return number
        case VariableType.CHOICE:
            return _check_choice(name, variable, value)
        case VariableType.STRING:
            return _check_string(name, variable, value)


def _number(name: str, variable: VariableSpec, value: Value) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _unfit(name, f"{_expected(variable)}, not {_described(value)}")
    if isinstance(value, int):
        if not INTEGER_MIN <= value <= INTEGER_MAX:
            raise _unfit(name, f"must lie between {INTEGER_MIN} and {INTEGER_MAX} (64 bits)")
        return value
    if not math.isfinite(value):
        raise _unfit(name, "must be a finite number")
    if variable.type is VariableType.NUMBER:
        return value
    if not value.is_integer() or abs(value) > EXACT_FLOAT_MAX:
        raise _unfit(name, f"{_expected(variable)}, not {value!r}")
    return int(value)


def _check_range(name: str, variable: VariableSpec, number: int | float) -> None:
    if variable.min is not None and number < variable.min:
        raise _unfit(name, f"must be at least {variable.min}, not {number}")
    if variable.max is not None and number > variable.max:
        raise _unfit(name, f"must be at most {variable.max}, not {number}")


def _check_choice(name: str, variable: VariableSpec, value: Value) -> str:
    if not isinstance(value, str):
        raise _unfit(name, f"{_expected(variable)}, not {_described(value)}")
    if value not in variable.choices:
        raise _unfit(name, f"has no choice {quoted(value)}{did_you_mean(value, variable.choices)}")
    return value


def _check_string(name: str, variable: VariableSpec, value: Value) -> str:
    if not isinstance(value, str):
        raise _unfit(name, f"{_expected(variable)}, not {_described(value)}")
    # The length comes first: it bounds what the pattern may cost.
    if len(value) > variable.max_length:
        raise _unfit(name, f"may have {variable.max_length} characters, not {len(value)}")
    if "\0" in value:
        raise _unfit(name, "may not hold a NUL character: no program could receive it")
    if not _is_unicode(value):
        raise _unfit(name, "holds half of a surrogate pair, which is no text")
    if value.startswith("-") and not variable.allow_dash:
        raise _unfit(
            name,
            'may not begin with "-": the program could take it for an option '
            "(the definition can permit it by allow_dash = true)",
        )
    if variable.pattern is not None:
        _check_pattern(name, variable.pattern, value)
    return value


def _check_pattern(name: str, pattern: str, value: str) -> None:
    try:
        is_match = matches(pattern, value)
    except NotUsable as exc:
        # Of a definition that an earlier version took; its author is shown what to write.
        raise _unfit(name, f"cannot be checked: its pattern {exc}") from exc
    if not is_match:
        raise _unfit(name, f"must match {pattern} as a whole")


def _check_secret(name: str, value: Value) -> Value:
    """The reference; a value is refused and not repeated anywhere."""
    if value is None:
        return value
    if not isinstance(value, SecretRef):
        raise Refused(
            ErrorCode.SECRET_BY_VALUE,
            f"variable {quoted(name)} is a secret and is given by name only: "
            '{"secret": "NAME"}, with NAME from [secrets] of jobbus.toml',
            pointer=_pointer(name),
        )
    if not SECRET_NAME.fullmatch(value.secret):
        raise _unfit(name, "refers to a secret by something that cannot be its name")
    return value


def _expected(variable: VariableSpec) -> str:
    match variable.type:
        case VariableType.STRING:
            return 'must be text such as "abc"'
        case VariableType.INTEGER:
            return "must be an integer such as 30, without quotes"
        case VariableType.NUMBER:
            return "must be a number such as 2.5, without quotes"
        case VariableType.BOOLEAN:
            return "must be true or false, without quotes"
        case VariableType.CHOICE:
            return f"must be one of {', '.join(map(quoted, variable.choices))}"
        case VariableType.SECRET:
            return 'must be a reference such as {"secret": "NAME"}'


def _wanted(variable: VariableSpec) -> str:
    """What a value that was not given should be: an example must not break the pattern."""
    if variable.type is VariableType.STRING and variable.pattern is not None:
        return f"must match {variable.pattern} as a whole"
    return _expected(variable)


def _described(value: Value) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return "text"
        case int():
            return "an integer"
        case float():
            return "a number"
        case _:
            return "that"


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _unfit(name: str, what: str) -> Refused:
    return _bad(name, f"variable {quoted(name)} {what}")


def _bad(name: str, sentence: str) -> Refused:
    return Refused(ErrorCode.BAD_VARIABLES, sentence, pointer=_pointer(name))


def _pointer(name: str) -> str:
    """RFC 6901; what cannot be encoded or is absurdly long is replaced and cut."""
    text = name[:200].encode("utf-8", "replace").decode()
    return "/variables/" + text.replace("~", "~0").replace("/", "~1")
