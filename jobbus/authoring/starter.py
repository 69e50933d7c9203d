"""The text of a new `job.toml` with comments, and of the program beside it. No IO."""

import json
import re
from pathlib import PurePath
from typing import Final

from bus.job_definition import VariableSpec
from jobbus.authoring.powershell_parameters import powershell_parameters
from jobbus.authoring.python_arguments import python_arguments
from jobbus.authoring.script_variables import Taken, Variable, read_from_environment

PROGRAMS: Final[dict[str, tuple[str, ...]]] = {
    ".py": ("python3",),
    ".sh": ("sh",),
    ".bash": ("bash",),
    ".ps1": ("pwsh", "-NoProfile", "-NonInteractive", "-File"),
    ".js": ("node",),
    ".mjs": ("node",),
    ".cjs": ("node",),
    ".php": ("php",),
    ".rb": ("ruby",),
    ".pl": ("perl",),
    ".go": ("go", "run"),
    ".java": ("java",),
    ".jar": ("java", "-jar"),
}
"""What runs a script, by the end of its name; one with a `#!` line that may be run runs itself."""

_STARTERS: Final = {
    ".sh": """#!/bin/sh
# A starter: replace it by what the job is to do.
set -eu
echo "Hello, $JOBBUS_VAR_Name"
echo "50% half of it" >> "$JOBBUS_PROGRESS"
echo "done"
""",
    ".py": '''"""A starter: replace it by what the job is to do."""

import os

print(f"Hello, {os.environ['JOBBUS_VAR_Name']}")
with open(os.environ["JOBBUS_PROGRESS"], "a", encoding="utf-8") as progress:
    progress.write("50% half of it\\n")
print("done")
''',
    ".ps1": """# A starter: replace it by what the job is to do.
param([string]$Name = 'World')
Write-Output "Hello, $Name"
Set-Content $env:JOBBUS_PROGRESS '50% half of it'
Write-Output 'done'
""",
    ".js": """// A starter: replace it by what the job is to do.
const fs = require("node:fs");
console.log(`Hello, ${process.env.JOBBUS_VAR_Name}`);
fs.appendFileSync(process.env.JOBBUS_PROGRESS, "50% half of it\\n");
console.log("done");
""",
}
_GREETED: Final = Variable("Name", VariableSpec(default="World", description="Who is greeted"))

_TOP: Final = """
# What else there is: uncomment what is needed. `jobbus schema` has every key with its words.
# timeout_s = 3600          # how long it may run; without it there is no limit
# overlap = "queue"         # a start while it runs: reject, queue, replace or skip
# stop_grace_s = 30         # seconds to end in after the stop signal
# tags = ["example"]        # words of your choice
"""

_TAIL: Final = """
# [env]
# STAGE = "test"

# [retry]
# attempts = 3              # starts in all

# [roles]
# start = ["operator"]      # who may start it
"""


def starter_program(name: str) -> str | None:
    """A program in the language that the name ends with; None if there is no starter in it."""
    return _STARTERS.get(PurePath(name).suffix.lower())


def command_of(name: str, first_line: str, *, is_executable: bool) -> tuple[str, ...] | None:
    """The call of a script in the job's folder; None if it is not known how to run it."""
    if first_line.startswith("#!") and is_executable:
        return (f"./{name}",)
    if re.match(r"#!.*\bbash\b", first_line):
        return ("bash", name)
    program = PROGRAMS.get(PurePath(name).suffix.lower())
    if program is None:
        return (f"./{name}",) if is_executable else None
    return (*program, name)


def taken_by(name: str, source: str) -> Taken:
    """What the script takes: by arguments where they can be read, and by our environment."""
    match PurePath(name).suffix.lower():
        case ".py":
            arguments = python_arguments(source)
        case ".ps1":
            arguments = powershell_parameters(source)
        case _:
            arguments = Taken()
    known = {each.name for each in arguments.variables}
    more = (each for each in read_from_environment(source).variables if each.name not in known)
    return Taken((*arguments.variables, *more), arguments.left)


def taken_by_starter(name: str) -> Taken:
    """The same of our own starter."""
    if PurePath(name).suffix.lower() == ".ps1":
        return Taken((_GREETED._replace(arguments=("-Name", "{{Name}}")),))
    return Taken((_GREETED,))


def definition_text(job_id: str, script: str, command: tuple[str, ...], taken: Taken) -> str:
    """The whole `job.toml`."""
    arguments = [argument for each in taken.variables for argument in each.arguments]
    lines = [
        f"# {job_id}. A saved change is in force at once; `jobbus check` lists all mistakes.",
        "",
        f"command = {_list([*command, *arguments])}",
        f"# description = {_text(f'What {job_id} is for')}",
        *_TOP.splitlines(),
    ]
    for each in taken.variables:
        lines += ["", f"[variables.{each.name}]", *_declared(each.spec)]
        if not each.arguments:
            lines.append(f"# the program finds it as JOBBUS_VAR_{each.name}")
    if taken.left:
        lines += ["", f"# Not carried over from {script}:"]
        lines += [f"# - {_one_line(each)}" for each in taken.left]
    return "\n".join(lines) + "\n" + _TAIL


def _declared(spec: VariableSpec) -> list[str]:
    values = {
        "type": spec.type.value,
        "default": spec.default,
        "required": spec.required or None,
        "min": spec.min,
        "max": spec.max,
        "choices": spec.choices or None,
        "allow_dash": spec.allow_dash or None,
        "description": spec.description or None,
    }
    return [f"{key} = {_value(value)}" for key, value in values.items() if value is not None]


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _text(value)
        case tuple():
            return _list(list(value))
        case _:
            return repr(value)


def _list(words: list[str]) -> str:
    return f"[{', '.join(map(_text, words))}]"


def _text(text: str) -> str:
    """As a basic string of TOML; JSON writes the same but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _one_line(text: str) -> str:
    """A comment may hold no control character."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))[:300]
