"""Whether a command of a definition can be called, and no given text becomes code in it. Pure."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from bus.job_definition import JobSpec, VariableType
from handlers.catalog.problem import Problem, shown
from handlers.catalog.templates import names_in
from handlers.catalog.toml_lines import Path

CODE_FLAGS = {
    re.compile(r"(?:ba|da|z|k|mk|a|fi|c|tc)?sh|busybox"): re.compile(r"-[A-Za-z]*c"),
    re.compile(r"python[0-9.]*|pypy[0-9.]*"): re.compile(r"-[A-Za-z]*c"),
    re.compile(r"perl|ruby|node|lua"): re.compile(r"-[A-Za-z]*e|--eval"),
    re.compile(r"pwsh|powershell(?:\.exe)?"): re.compile(r"(?i)-c(?:ommand)?"),
}
"""Programs that run code given as an argument, and the flag before that argument."""


def command(spec: JobSpec) -> Iterator[Problem]:
    """What is wrong with `command`."""
    yield from program_call(spec, ("command",), spec.command)


def program_call(spec: JobSpec, path: Path, call: tuple[str, ...]) -> Iterator[Problem]:
    """What is wrong with a program and its arguments, which stand at `path`."""
    if not call:
        yield Problem(path, f'{shown(path)} is empty: give a program, e.g. ["./run.sh"]')
        return
    if not call[0]:
        yield Problem((*path, 0), f"the program of {shown(path)} is empty")
    for name in names_in(call[0]):
        if _is_text(spec, name):
            yield Problem(
                (*path, 0),
                f"{{{{{name}}}}} would let a text choose the program; use type choice",
                (("variables", name),),
            )
    for index in _code_arguments(call):
        for name in names_in(call[index]):
            if _is_text(spec, name):
                yield Problem(
                    (*path, index),
                    f"{{{{{name}}}}} would become code here; read JOBBUS_VAR_{name} from the "
                    "environment, or pass it as an argument of its own",
                    (("variables", name), (*path, 0), (*path, index - 1)),
                )


def _code_arguments(call: tuple[str, ...]) -> Iterator[int]:
    """Where an interpreter takes its next argument as code."""
    program = PurePosixPath(call[0]).name
    for interpreter, flag in CODE_FLAGS.items():
        if interpreter.fullmatch(program):
            for index, element in enumerate(call[1:-1], 1):
                if flag.fullmatch(element):
                    yield index + 1


def _is_text(spec: JobSpec, name: str) -> bool:
    return name in spec.variables and spec.variables[name].type is VariableType.STRING
