"""What a PowerShell script takes by its `param()` block, read from its text. No IO, nothing is run.

Only a block that stands first counts, as PowerShell has it; a value is carried over where it is
plain to read.
"""

import re
from collections.abc import Iterator
from typing import Final

from bus.job_definition import VariableSpec, VariableType
from handlers.catalog.variable_checks import VARIABLE_NAME
from jobbus.authoring.script_variables import Taken, Variable, why_unfit

_KINDS: Final = {
    "string": VariableType.STRING,
    "int": VariableType.INTEGER,
    "int32": VariableType.INTEGER,
    "int64": VariableType.INTEGER,
    "long": VariableType.INTEGER,
    "double": VariableType.NUMBER,
    "float": VariableType.NUMBER,
    "decimal": VariableType.NUMBER,
}
_ABSENT: Final = {VariableType.INTEGER: 0, VariableType.NUMBER: 0.0}
"""What a parameter of the type is when it is not given."""

_PIECE: Final = re.compile(
    r"""
      (?P<comment>\#[^\n]*|<\#.*?(?:\#>|\Z))
    | (?P<text>'(?:[^']|'')*'|"(?:[^"`]|`.|"")*")
    | (?P<open>[(\[{])
    | (?P<close>[)\]}])
    | (?P<comma>,)
    | (?P<other>[^\#<'"()\[\]{},]+|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_LEAD: Final = re.compile(r"\s*(?:using[ \t][^\n]*\n\s*)*", re.IGNORECASE)
_PARAM: Final = re.compile(r"param\s*\(", re.IGNORECASE)
_PARAMETER: Final = re.compile(r"\s*\$(\w+)\s*(?:=\s*(.*?))?\s*\Z", re.DOTALL)
_ATTRIBUTE: Final = re.compile(r"\A\[\s*(\w+)\s*(?:\((.*)\))?\s*\]\Z", re.DOTALL)
_MANDATORY: Final = re.compile(r"\bMandatory\b\s*(?:=\s*\$(\w+))?", re.IGNORECASE)
_HELP: Final = re.compile(r"\bHelpMessage\s*=\s*('(?:[^']|'')*'|\"[^\"$`]*\")", re.IGNORECASE)
_WHOLE: Final = re.compile(r"-?[0-9]{1,18}")
_NUMBER: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


class _Left(Exception):
    """Why a parameter is left to the person."""


def powershell_parameters(source: str) -> Taken:
    """The parameters of the script with plain types and defaults."""
    body = _body(_without_comments(source))
    found: dict[str, Variable] = {}
    left: list[str] = []
    for text in _split(body):
        shown = " ".join(text.split())
        try:
            variable = _variable(text)
        except _Left as why:
            left.append(f"{shown}: {why}")
            continue
        if variable.name in found:
            left.append(f"{shown}: a second parameter of that name")
        found.setdefault(variable.name, variable)
    return Taken(tuple(found.values()), tuple(left))


def _without_comments(source: str) -> str:
    pieces = _PIECE.finditer(source)
    return "".join(" " if piece["comment"] is not None else piece[0] for piece in pieces)


def _body(text: str) -> str:
    """What stands between the parentheses of `param`; empty if there is no such block."""
    at = _end(_LEAD, text, 0)
    while text[at : at + 1] == "[":  # [CmdletBinding()] and the like
        at = _end(_LEAD, text, at + len(_balanced(text[at:])))
    opened = _PARAM.match(text, at)
    return _balanced(text[opened.end() - 1 :])[1:-1] if opened is not None else ""


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found is not None else at


def _balanced(text: str) -> str:
    """From the bracket at the beginning to the one that closes it, or to the end."""
    depth = 0
    for piece in _PIECE.finditer(text):
        depth += (piece["open"] is not None) - (piece["close"] is not None)
        if depth == 0:
            return text[: piece.end()]
    return text


def _split(body: str) -> Iterator[str]:
    """At the commas that are in no brackets."""
    depth, part = 0, ""
    for piece in _PIECE.finditer(body):
        depth += (piece["open"] is not None) - (piece["close"] is not None)
        if piece["comma"] is not None and depth == 0:
            yield part
            part = ""
        else:
            part += piece[0]
    if part.strip():
        yield part


def _variable(text: str) -> Variable:
    attributes = []
    rest = text.strip()
    while rest.startswith("["):
        attribute = _balanced(rest)
        attributes.append(attribute)
        rest = rest[len(attribute) :].strip()
    parameter = _PARAMETER.match(rest)
    if parameter is None or not VARIABLE_NAME.fullmatch(parameter[1]):
        raise _Left("its name cannot be that of a variable")
    name = parameter[1]
    spec = _spec(attributes, parameter[2])
    return Variable(name, spec, (f"-{name}", f"{{{{{name}}}}}"))


def _spec(attributes: list[str], written: str | None) -> VariableSpec:
    kind, required, words = VariableType.STRING, False, ""
    typed = False
    choices: tuple[str, ...] = ()
    low: int | float | None = None
    high: int | float | None = None
    for attribute in attributes:
        parts = _ATTRIBUTE.match(attribute)
        if parts is None:
            raise _Left(f"{attribute} is no plain type")
        word, inside = parts[1].lower(), parts[2] or ""
        if word == "parameter":
            required, words = _is_mandatory(inside), _help(inside)
        elif word == "validateset":
            choices = tuple(_text(each.strip()) for each in _split(inside))
        elif word == "validaterange":
            low, high = (_number(each.strip()) for each in _split(inside))
        elif word in _KINDS and parts[2] is None:
            kind, typed = _KINDS[word], True
        elif word == "switch":
            raise _Left("a switch cannot be turned by a value; add it to command if it is on")
        elif word.startswith(("validate", "allow")) or word == "alias":
            continue  # the script itself sees to it
        else:
            raise _Left(f"{attribute} is no plain type")
    if choices and kind is VariableType.STRING:
        kind = VariableType.CHOICE
    default = _default(written, kind)
    if default is None and not required:
        if kind is VariableType.CHOICE or not typed:
            raise _Left("without a default it is left out or given; add it to command if wanted")
        default = _ABSENT.get(kind)
    return _checked(
        VariableSpec(
            type=kind,
            default=default,
            required=required,
            min=low if kind in _ABSENT else None,
            max=high if kind in _ABSENT else None,
            choices=choices,
            description=words,
            allow_dash=kind is VariableType.STRING and str(default).startswith("-"),
        )
    )


def _checked(spec: VariableSpec) -> VariableSpec:
    if (reason := why_unfit(spec)) is not None:
        raise _Left(reason)
    return spec


def _is_mandatory(inside: str) -> bool:
    found = _MANDATORY.search(inside)
    return found is not None and (found[1] or "true").lower() != "false"


def _help(inside: str) -> str:
    found = _HELP.search(inside)
    return " ".join(_text(found[1]).split()) if found is not None else ""


def _default(written: str | None, kind: VariableType) -> str | int | float | None:
    if written is None:
        return None
    if kind in (VariableType.INTEGER, VariableType.NUMBER):
        number = _number(written)
        if kind is VariableType.INTEGER and not isinstance(number, int):
            raise _Left("its default is computed")
        return number
    return _text(written)


def _number(written: str) -> int | float:
    if _WHOLE.fullmatch(written):
        return int(written)
    if not _NUMBER.fullmatch(written):
        raise _Left("a number in it is computed")
    return float(written)


def _text(written: str) -> str:
    """The text between quotes; double ones only without anything that is replaced."""
    if re.fullmatch(r"'(?:[^']|'')*'", written):
        return written[1:-1].replace("''", "'")
    if re.fullmatch(r'"[^"$`]*"', written):
        return written[1:-1]
    raise _Left("a value in it is computed")
