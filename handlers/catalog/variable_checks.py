"""Whether the variables of a definition make sense, and the references to them. Pure."""

import re
from collections.abc import Iterator
from math import isfinite

from bus.errors import Refused
from bus.job_definition import JobSpec, VariableSpec, VariableType
from bus.wording import did_you_mean, quoted
from handlers.catalog.expressions import STEPS_MAX, program_size
from handlers.catalog.problem import Problem, expression, shown, within
from handlers.catalog.templates import names_in
from handlers.catalog.toml_lines import Path
from handlers.catalog.variables import check_value

LENGTH_MAX = 32_000
"""Characters of a text variable: in UTF-8 still one argument for Linux (128 KiB)."""

VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def variables(spec: JobSpec) -> Iterator[Problem]:
    """What is wrong with `[variables.…]`."""
    steps = 0
    for name, variable in spec.variables.items():
        path = ("variables", name)
        if not VARIABLE_NAME.fullmatch(name):
            yield Problem(
                path,
                f"{quoted(name)} cannot be the name of a variable: letters, digits and _, "
                "no digit first, at most 64",
            )
        unfit = list(_variable(path, variable))
        yield from unfit
        if variable.pattern is not None and not unfit:
            before, steps = steps, steps + program_size(variable.pattern) * variable.max_length
            if before <= STEPS_MAX < steps:
                reason = "the patterns of all variables together take too long: lower max_length"
                yield Problem((*path, "pattern"), reason, (path,))
        if variable.default is None or unfit:
            continue
        if variable.type is VariableType.SECRET:
            reason = "a secret has no default: it never stands in a file"
            yield Problem((*path, "default"), reason, (path,))
            continue
        try:
            check_value(name, variable, variable.default)
        except Refused as exc:
            reason = f"the default does not fit: {exc.message}"
            yield Problem((*path, "default"), reason, (path,))


ONLY_FOR = {
    "min": (VariableType.INTEGER, VariableType.NUMBER),
    "max": (VariableType.INTEGER, VariableType.NUMBER),
    "max_length": (VariableType.STRING,),
    "pattern": (VariableType.STRING,),
    "allow_dash": (VariableType.STRING,),
    "choices": (VariableType.CHOICE,),
}
"""Keys that mean something for some types only."""


def _variable(path: Path, variable: VariableSpec) -> Iterator[Problem]:
    for key, kinds in ONLY_FOR.items():
        if variable.type not in kinds and getattr(variable, key) != getattr(VariableSpec(), key):
            words = " or ".join(kinds)
            reason = f"{key} is for type {words}, not {variable.type}"
            yield Problem((*path, key), reason, ((*path, "type"),))
    low, high = variable.min, variable.max
    for key, bound in (("min", low), ("max", high)):
        if isinstance(bound, float) and not isfinite(bound):
            yield Problem((*path, key), f"{key} must be a finite number; leave it out for none")
    if low is not None and high is not None and low > high:
        yield Problem((*path, "min"), f"min {low} is above max {high}", ((*path, "max"),))
    yield from within((*path, "max_length"), variable.max_length, 1, LENGTH_MAX)
    if variable.pattern is not None:
        yield from expression((*path, "pattern"), variable.pattern, variable.max_length)
    if variable.type is VariableType.CHOICE:
        yield from _choices(path, variable.choices)


def _choices(path: Path, choices: tuple[str, ...]) -> Iterator[Problem]:
    if not choices:
        reason = f'{shown(path)} needs choices, e.g. choices = ["fast", "slow"]'
        yield Problem(path, reason, (path,))
    known: set[str] = set()
    for index, choice in enumerate(choices):
        if not choice or "\0" in choice:
            yield Problem((*path, "choices", index), "a choice is empty or holds a NUL character")
        elif choice in known:
            yield Problem((*path, "choices", index), f"the choice {quoted(choice)} comes twice")
        known.add(choice)


def texts(spec: JobSpec) -> Iterator[tuple[Path, str]]:
    """Where references to variables are rendered."""
    yield from ((("command", i), element) for i, element in enumerate(spec.command))
    if spec.health is not None:
        yield from ((("health", "command", i), e) for i, e in enumerate(spec.health.command))
    yield from ((("env", name), text) for name, text in spec.env.items())
    yield ("description",), spec.description


def references(spec: JobSpec) -> Iterator[Problem]:
    """What is wrong with the `{{Variable}}`s of a definition."""
    for path, text in texts(spec):
        for name in names_in(text):
            if name not in spec.variables:
                hint = did_you_mean(name, spec.variables) or f"; add [variables.{name}]"
                reason = f"{shown(path)} refers to {{{{{name}}}}}, which is not declared{hint}"
                yield Problem(path, reason, (("variables", name),))
            elif path[0] != "env" and spec.variables[name].type is VariableType.SECRET:
                yield Problem(
                    path,
                    f"{{{{{name}}}}} is a secret and may not stand in {shown(path)}; "
                    f"the job finds it as JOBBUS_VAR_{name} in its environment",
                    (("variables", name),),
                )
    for key, text in (("name", spec.name), ("cwd", spec.cwd)):
        for name in names_in(text):
            yield Problem((key,), f"{key} takes no {{{{{name}}}}}; it is the same for all values")
