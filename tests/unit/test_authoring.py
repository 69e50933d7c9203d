"""What scripts take is read without running them, and becomes a definition that means the same."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.job_definition import JobSpec, VariableSpec, VariableType
from handlers.catalog.definition_decoding import decode_definition
from handlers.catalog.templates import render
from handlers.catalog.variables import resolve_variables
from jobbus.authoring.powershell_parameters import powershell_parameters
from jobbus.authoring.python_arguments import python_arguments
from jobbus.authoring.script_variables import Taken, Variable
from jobbus.authoring.starter import PROGRAMS, command_of, definition_text, taken_by

PYTHON = """
import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--count", type=int, default=5, help="how many\\nof them")
parser.add_argument("-r", "--rate", type=float, default=2.5)
parser.add_argument("--dry-run-of", default="-x \\"quoted\\"", metavar="WORD")
parser.add_argument("-s", default="short")
parser.add_argument("--mode", choices=["fast", "slow"], default="slow", dest="how")
parser.add_argument("--as-text", type=int, default="7")
group = parser.add_argument_group("more")
group.add_argument("--more", default="")
parser.add_argument("--verbose", action="store_true")
parser.add_argument("--maybe")
parser.add_argument("--many", nargs="*", default=[])
parser.add_argument("--untyped", default=3)
parser.add_argument("--computed", default=len("x"))
parser.add_argument("--made", type=lambda text: text, default="a")
parser.add_argument("--version", action="version", version="1")
either = parser.add_mutually_exclusive_group()
either.add_argument("--either", default="a")
print(parser.parse_args())
"""


def spec_from(name: str, source: str) -> JobSpec:
    taken = taken_by(name, source)
    command = command_of(name, "", is_executable=False)
    assert command is not None
    text = definition_text("A/J", name, command, taken)
    read = decode_definition(text.encode(), file="job.toml", directory="/x")
    assert isinstance(read, JobSpec), (read, text)
    return read


def test_arguments_of_argparse_become_variables() -> None:
    spec = spec_from("run.py", PYTHON)
    assert spec.variables == {
        "count": VariableSpec(type=VariableType.INTEGER, default=5, description="how many of them"),
        "rate": VariableSpec(type=VariableType.NUMBER, default=2.5),
        "dry_run_of": VariableSpec(default='-x "quoted"', allow_dash=True),
        "s": VariableSpec(default="short"),
        "how": VariableSpec(type=VariableType.CHOICE, choices=("fast", "slow"), default="slow"),
        "as_text": VariableSpec(type=VariableType.INTEGER, default=7),
        "more": VariableSpec(default=""),
    }
    left = python_arguments(PYTHON).left
    flags = ("verbose", "maybe", "many", "untyped", "computed", "made", "either")
    assert len(left) == len(flags)
    assert all(f"--{flag}" in sentence for flag, sentence in zip(flags, left, strict=True))


def test_program_gets_by_its_variables_what_it_gets_without_arguments(tmp_path: Path) -> None:
    spec = spec_from("run.py", PYTHON)
    (tmp_path / "run.py").write_text(PYTHON, encoding="utf-8")
    values = resolve_variables(spec, {})
    arguments = [render(each, values) for each in spec.command[1:]]

    def said(*words: str) -> str:
        return subprocess.run(
            [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout

    assert said(*arguments) == said("run.py")


def test_positional_and_required_arguments_must_be_given() -> None:
    source = (
        "import argparse\np = argparse.ArgumentParser()\n"
        "p.add_argument('source')\np.add_argument('--to', required=True)\n"
        "p.add_argument('target')\n"
    )
    spec = spec_from("copy.py", source)
    assert spec.command == ("python3", "copy.py", "{{source}}", "--to={{to}}", "{{target}}")
    assert all(each.required for each in spec.variables.values())


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def (:\n", "cannot be read as Python"),
        ("p.add_subparsers()\np.add_argument('--x', default='a')\n", "subcommands"),
        ("p.add_argument('--x', **more)\n", "keywords are computed"),
        ("p.add_argument(name, default='x')\n", "name is computed"),
        ("p.add_argument('--x', default='a')\np.add_argument('--x', default='b')\n", "second"),
        ("p.add_argument('--x', choices=['a'], default='b')\n", "default does not fit"),
        ("p.add_argument('--x', action=own, default='b')\n", "action is computed"),
    ],
)
def test_what_is_not_plain_is_left_to_the_person_with_the_reason(source: str, reason: str) -> None:
    (left,) = python_arguments(source).left
    assert reason in left


POWERSHELL = """
#requires -Version 7
using namespace System.IO
<# a comment, with param([int]$Nothing) #>
[CmdletBinding(SupportsShouldProcess = $true)]
param(
    # how many, of (them)
    [Parameter(HelpMessage = 'How many')] [ValidateRange(1, 10)] [int] $Count = 5,
    [ValidateSet('fast', "slow")][string]$Mode = 'slow',
    [Parameter(Mandatory)][string]$Source,
    [Parameter(Mandatory = $false)][string]$Word = "it's; (a, b)",
    [double]$Rate = 2.5,
    [string]$Empty,
    [long]$Zero,
    $Untyped = 'x',
    [switch]$Fast,
    [string[]]$Many = @('a', 'b'),
    [string]$Home = "$env:HOME",
    [int]$Computed = (1 + 2),
    [datetime]$When,
    $Bare
)
Write-Output $Count
"""


def test_parameters_of_powershell_become_variables() -> None:
    spec = spec_from("run.ps1", POWERSHELL)
    assert spec.variables == {
        "Count": VariableSpec(
            type=VariableType.INTEGER, default=5, min=1, max=10, description="How many"
        ),
        "Mode": VariableSpec(type=VariableType.CHOICE, choices=("fast", "slow"), default="slow"),
        "Source": VariableSpec(required=True),
        "Word": VariableSpec(default="it's; (a, b)"),
        "Rate": VariableSpec(type=VariableType.NUMBER, default=2.5),
        "Empty": VariableSpec(),
        "Zero": VariableSpec(type=VariableType.INTEGER, default=0),
        "Untyped": VariableSpec(default="x"),
    }
    assert spec.command[:7] == (
        *("pwsh", "-NoProfile", "-NonInteractive", "-File", "run.ps1"),
        *("-Count", "{{Count}}"),
    )
    left = powershell_parameters(POWERSHELL).left
    names = ("Fast", "Many", "Home", "Computed", "When", "Bare")
    assert len(left) == len(names)
    assert all(f"${name}" in sentence for name, sentence in zip(names, left, strict=True))


@pytest.mark.parametrize(
    "source",
    [
        "function f { param([int]$X = 1) }\n",
        "Write-Output 'x'\nparam([int]$X = 1)\n",
        "# param([int]$X = 1)\n",
        "'param([int]$X = 1)'\n",
    ],
)
def test_only_a_block_that_stands_first_is_of_the_script(source: str) -> None:
    assert powershell_parameters(source) == Taken()


def test_variables_that_a_script_reads_by_our_names_are_declared() -> None:
    source = 'echo "${JOBBUS_VAR_Name:-x} $JOBBUS_VAR_Size $JOBBUS_VAR_Name"\n'
    assert list(spec_from("run.sh", source).variables) == ["Name", "Size"]


@pytest.mark.parametrize("name", ["run.sh", "run.py", "run.ps1", "run.js"])
def test_every_comment_of_a_starter_can_be_uncommented(name: str) -> None:
    taken = Taken((Variable("Name", VariableSpec(default="x")),), ("a thing",))
    text = definition_text("A/J", name, ("./run.sh",), taken)
    lines = [
        line.removeprefix("# ") if " = " in line or line.startswith("# [") else line
        for line in text.splitlines()
    ]
    read = decode_definition("\n".join(lines).encode(), file="job.toml", directory="/x")
    assert isinstance(read, JobSpec), read
    assert (read.timeout_s, read.retry.attempts, read.env) == (3600, 3, {"STAGE": "test"})
    assert read.variables["Name"].default == "x"


@given(st.text(max_size=300), st.sampled_from(sorted(PROGRAMS)))
def test_no_script_makes_a_definition_that_cannot_be_read(source: str, ending: str) -> None:
    spec_from(f"run{ending}", source)


@given(
    st.lists(
        st.sampled_from(
            [
                "param(", "[", "]", "(", ")", ",", "=", "$A", "$B", "'", '"', "#", "<#", "#>", "`",
                "[int]", "[string]", "1", "'x'", "\n", "Mandatory", "[Parameter(", "{", "}", " ",
            ]
        ),
        max_size=30,
    )
)  # fmt: skip
def test_no_beginning_of_a_powershell_script_is_too_odd(pieces: list[str]) -> None:
    spec_from("run.ps1", "".join(pieces))


@given(st.text(max_size=100), st.text(max_size=100), st.text(min_size=1, max_size=20))
def test_texts_of_scripts_are_written_so_that_they_are_read_again(
    words: str, default: str, choice: str
) -> None:
    source = (
        f"p.add_argument('--a', default={default!r}, help={words!r})\n"
        f"p.add_argument('--b', choices=[{choice!r}], default={choice!r})\n"
    )
    spec = spec_from("run.py", source)
    for variable in spec.variables.values():
        assert variable.default in (default, choice)
    assert len(spec.variables) + len(python_arguments(source).left) == 2
