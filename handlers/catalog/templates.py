"""`{{Variable}}` in the texts of a definition, and how values are spelled there. Pure.

A reference is two braces around a name, blanks allowed: `{{Interval}}`, `{{ Interval }}`. Braces
around anything else (`{{.Names}}` of a Go template) are plain text.
"""

import re
from collections.abc import Mapping
from decimal import Decimal

from bus.model import SecretRef, Value

REFERENCE = re.compile(r"\{\{[ \t]*([A-Za-z_][A-Za-z0-9_]*)[ \t]*\}\}")


def names_in(text: str) -> tuple[str, ...]:
    """The variables that `text` refers to, in order of appearance."""
    return tuple(match.group(1) for match in REFERENCE.finditer(text))


def render(text: str, values: Mapping[str, Value]) -> str:
    """`text` with every reference replaced by its value, in one pass.

    A value that itself looks like a reference stays as it is. A variable without a value gives
    nothing, so that the number of arguments never depends on what somebody gave.
    """
    return REFERENCE.sub(lambda match: spell(values.get(match.group(1))), text)


def spell(value: Value) -> str:
    """A value as a program reads it, in arguments and environment alike.

    Text as it is; `true` and `false`; numbers in plain decimal digits without an exponent, whole
    ones without a point (30.0 is `30`); nothing for no value.
    """
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case int():
            return str(value)
        case float():
            return _decimal(value)
        case SecretRef():
            raise AssertionError("a secret has no spelling: definitions that need one are refused")


def _decimal(value: float) -> str:
    """Positional digits that read back as exactly `value`; `-0.0` is `0`."""
    if value == 0:
        return "0"
    digits = format(Decimal(repr(value)), "f")
    return digits.rstrip("0").rstrip(".") if "." in digits else digits
