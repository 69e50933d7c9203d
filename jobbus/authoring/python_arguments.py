"""What a Python script takes by `argparse`, read from its syntax tree. No IO, nothing is run."""

import ast
from typing import Any, Final

from bus.job_definition import VariableSpec, VariableType
from handlers.catalog.variable_checks import LENGTH_MAX, VARIABLE_NAME
from jobbus.authoring.script_variables import Taken, Variable, why_unfit

_KINDS: Final = {
    "str": VariableType.STRING,
    "int": VariableType.INTEGER,
    "float": VariableType.NUMBER,
}
_IGNORED: Final = ("metavar",)
"""Keywords that change only the help."""

_SILENT: Final = ("help", "version")
"""Actions that are for people at a terminal."""


class _Left(Exception):
    """Why an argument is left to the person."""


def python_arguments(source: str) -> Taken:
    """The arguments that the script declares with literal values."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return Taken(left=("its arguments: it cannot be read as Python",))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    if any(_method(call) == "add_subparsers" for call in calls):
        return Taken(left=("its subcommands: give the one that is meant in command",))
    alternatives = _alternatives(tree)
    found: dict[str, Variable] = {}
    left: list[str] = []
    arguments = [call for call in calls if _method(call) == "add_argument"]
    for call in sorted(arguments, key=lambda call: (call.lineno, call.col_offset)):
        shown = ast.unparse(call)
        if _owner(call) in alternatives:
            left.append(f"{shown}: only one of several may be given")
            continue
        try:
            variable = _variable(call)
        except _Left as why:
            left.append(f"{shown}: {why}")
            continue
        if variable is not None and variable.name in found:
            left.append(f"{shown}: a second argument of that name")
        elif variable is not None:
            found[variable.name] = variable
    return Taken(tuple(found.values()), tuple(left))


def _method(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


def _owner(call: ast.Call) -> str:
    """The name of the object whose method is called."""
    assert isinstance(call.func, ast.Attribute)
    return ast.unparse(call.func.value)


def _alternatives(tree: ast.Module) -> set[str]:
    """Names of groups of which one argument alone may be given."""
    return {
        ast.unparse(target)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        if _method(node.value) == "add_mutually_exclusive_group"
        for target in node.targets
    }


def _variable(call: ast.Call) -> Variable | None:
    """The variable that an `add_argument` comes to; None for what is no value."""
    flags = [_literal(each, str, "its name is computed") for each in call.args]
    given = {each.arg: each.value for each in call.keywords if each.arg not in _IGNORED}
    if None in given:
        raise _Left("its keywords are computed")
    action = _literal(given.pop("action", None), str | None, "its action is computed")
    if action in _SILENT:
        return None
    if action not in (None, "store"):
        raise _Left(f"{action} cannot be switched by a value; add the flag to command if it is on")
    for word in ("nargs", "const"):
        if word in given:
            raise _Left(f"{word} makes several arguments of it, or none")
    dest = _literal(given.pop("dest", None), str | None, "its dest is computed")
    name = _name(flags, dest)
    is_option = flags[0].startswith("-")
    spec = _spec(given, is_option=is_option)
    if is_option and spec.default is None and not spec.required:
        raise _Left("without a default it is left out or given; add it to command if it is wanted")
    return Variable(name, spec, _arguments(flags, name, is_option=is_option))


def _name(flags: list[str], dest: str | None) -> str:
    if not flags:
        raise _Left("it has no name")
    long = next((flag for flag in flags if flag.startswith("--")), flags[0])
    name = dest or long.lstrip("-").replace("-", "_")
    if not VARIABLE_NAME.fullmatch(name):
        raise _Left("its name cannot be that of a variable")
    return name


def _arguments(flags: list[str], name: str, *, is_option: bool) -> tuple[str, ...]:
    value = f"{{{{{name}}}}}"
    if not is_option:
        return (value,)
    long = next((flag for flag in flags if flag.startswith("--")), None)
    return (f"{long}={value}",) if long else (flags[0], value)


def _spec(given: dict[str | None, ast.expr], *, is_option: bool) -> VariableSpec:
    kind = _kind(given.pop("type", None))
    default = _literal(given.pop("default", None), object, "its default is computed")
    required = _literal(given.pop("required", None), bool | None, "required is computed")
    words = _literal(given.pop("help", None), str | None, "its help is computed") or ""
    choices = _literal(given.pop("choices", None), object, "its choices are computed")
    if given:
        raise _Left(f"{', '.join(map(str, given))}: not known here")
    if choices is not None:
        if kind is not VariableType.STRING or not _are_texts(choices):
            raise _Left("only texts can be choices")
        kind = VariableType.CHOICE
    if kind is VariableType.INTEGER and isinstance(default, str):
        default = int(default) if default.lstrip("-").isdecimal() else default
    spec = VariableSpec(
        type=kind,
        default=default if is_option else None,
        required=bool(required) or not is_option,
        choices=tuple(choices) if choices is not None else (),
        description=" ".join(words.split())[:LENGTH_MAX],
        allow_dash=kind is VariableType.STRING and str(default).startswith("-"),
    )
    if (reason := why_unfit(spec)) is not None:
        raise _Left(reason)
    return spec


def _kind(node: ast.expr | None) -> VariableType:
    if node is None:
        return VariableType.STRING
    kind = _KINDS.get(node.id) if isinstance(node, ast.Name) else None
    if kind is None:
        raise _Left(f"values are made by {ast.unparse(node)}")
    return kind


def _are_texts(choices: object) -> bool:
    return isinstance(choices, list | tuple) and all(isinstance(each, str) for each in choices)


def _literal(node: ast.expr | None, kind: Any, otherwise: str) -> Any:
    """The value that stands there."""
    if node is None:
        return None
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise _Left(otherwise) from None
    if not isinstance(value, kind):
        raise _Left(otherwise)
    return value
