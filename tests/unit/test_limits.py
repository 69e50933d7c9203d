"""Limits of executions: how they are written, refused, and handed to a control group."""

import os
from pathlib import Path

import pytest

from bus.job_definition import DefinitionFault, JobSpec
from bus.sizes import parse_size
from handlers.catalog.definition_decoding import decode_definition
from handlers.catalog.machine_checks import machine_problems
from handlers.shim.cgroup import ControlGroup, GroupLimits, delegation


def decoded(text: str) -> JobSpec | DefinitionFault:
    content = f"command = ['true']\n{text}\n".encode()
    return decode_definition(content, file="job.toml", directory="/x")


def test_size_is_bytes_or_a_number_with_its_unit() -> None:
    sizes: list[str | int] = [4096, "4096", "4K", "4k", "4 KiB", "512M", "2G", "1T"]
    assert [parse_size(size) for size in sizes] == [
        *[4096] * 5, 512 << 20, 2 << 30, 1 << 40,
    ]  # fmt: skip
    assert [parse_size(size) for size in ("", "M", "512MB", "1.5G", "-1", "many")] == [None] * 6


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (
            "[limits]\nmemory = '512MB'",
            3,
            "limits.memory must be a number of bytes, or text such as",
        ),
        ("[limits]\nmemory = 512", 3, "limits.memory must be from 1048576"),
        ("[limits]\nmemory = '1G'\nmemory_bytes = 5", 3, "memory_bytes is an older name"),
        ("[limits]\ncpu_weight = 0", 3, "limits.cpu_weight must be from 1 to 10000, not 0"),
        ("[limits]\npids = 0", 3, "limits.pids must be from 1"),
        ("[limits]\noom_score_adj = 1001", 3, "from -1000 to 1000"),
        ("nice = 20", 2, "nice must be from -20 to 19, not 20"),
        ("nice = 1\n[limits]\nnice = 2", 4, "nice stands at the top of the file already"),
        ("shell = true", 2, 'unknown key "shell"; there is no shell unless command names one'),
        ("env_file = '?'", 2, "env_file is empty"),
        ("stdin = 'file:'", 2, 'stdin = "file:PATH" needs a path'),
        ("stdin = 'nul'", 2, 'stdin must be "null", "file:PATH" or "variable:NAME", not "nul"'),
        ("stdin = 'variable:Tetx'\n[variables.Text]", 2, 'did you mean "Text"?'),
    ],
)
def test_mistake_is_shown_with_its_line_and_what_would_be_right(
    text: str, line: int, words: str
) -> None:
    fault = decoded(text)
    assert isinstance(fault, DefinitionFault), fault
    assert (fault.line, words in fault.reason) == (line, True), fault.reason


def test_old_and_new_spellings_mean_the_same() -> None:
    old, new = (
        decoded("[limits]\nmemory_bytes = 1073741824\nnice = 5\noom_score_adj = 7"),
        decoded("nice = 5\noom_score_adj = 7\n[limits]\nmemory = '1G'"),
    )
    assert isinstance(old, JobSpec)
    assert isinstance(new, JobSpec)
    for spec in (old, new):
        assert (spec.memory_limit, spec.niceness, spec.oom_adjustment) == (1 << 30, 5, 7)


@pytest.mark.parametrize(("key", "controller"), [("pids", "pids"), ("cpu_weight", "cpu")])
def test_limit_that_only_a_group_keeps_is_refused_where_there_is_none(
    key: str, controller: str
) -> None:
    spec = decoded(f"[limits]\n{key} = 5")
    assert isinstance(spec, JobSpec)
    found = list(machine_problems(spec))
    if controller in delegation().controllers:
        assert not found
        return
    [problem] = found
    assert problem.path == ("limits", key)
    assert f"controller {controller}" in problem.reason


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nice = -5", "nice takes the right CAP_SYS_NICE"),
        ("oom_score_adj = -500", "oom_score_adj takes the right CAP_SYS_RESOURCE"),
        ("[limits]\nopen_files = 1000000000", "limits.open_files takes the right"),
    ],
)
def test_limit_above_what_the_service_may_have_is_refused(text: str, words: str) -> None:
    spec = decoded(text)
    assert isinstance(spec, JobSpec)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        [problem] = machine_problems(spec)
    finally:
        os.seteuid(user)
    assert words in problem.reason


def test_group_is_given_each_limit_and_names_those_it_cannot_keep(tmp_path: Path) -> None:
    """Of the kernel's folder this needs only that files which do not exist cannot be written."""
    for name in ("memory.max", "pids.max"):
        (tmp_path / name).touch()
    limits = GroupLimits(memory_bytes=1 << 30, cpu_weight=50, pids=20)
    assert ControlGroup(str(tmp_path)).limit(limits) == ["cpu.weight"]
    assert (tmp_path / "memory.max").read_text() == "1073741824"
    assert (tmp_path / "pids.max").read_text() == "20"
