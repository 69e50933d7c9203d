"""The command line on a terminal of 80 columns, and on a pipe: an evening of a person's work."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command_line import (
    Cli,
    Ended,
    environment,
    in_this_process,
    made,
    on_terminal,
    process,
    service,
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = made(tmp_path_factory.mktemp("terminal"))
    broken = place / "apps" / "T" / "jobs" / "Broken"
    broken.mkdir()
    (broken / "job.toml").write_text("comand = 1\n", encoding="utf-8")
    with service(place):
        yield place


@pytest.fixture
def jobbus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return in_this_process(monkeypatch, capsys)


def fits(shown: Ended) -> bool:
    return all(len(line) <= 80 for line in shown.plain.splitlines())


def test_start_on_a_terminal_names_what_the_next_commands_take(shared: Path, jobbus: Cli) -> None:
    started = on_terminal(shared, "start", "T/Stay")
    assert (started.code, fits(started)) == (0, True), started.plain
    first, *others = started.plain.splitlines()
    short, job, state = first.split()
    assert (job, state in ("starting", "running")) == ("T/Stay", True)
    whole = jobbus(shared, "ps", "--job", "T/Stay", "--json").json["items"][0]["executionId"]
    assert whole.startswith(short)
    assert f"jobbus logs -f {short}" in others[-1]
    command = next(line.split()[-1] for line in others if "command:" in line)
    for word in (short, command, short.upper()):
        assert jobbus(shared, "status", word, "--json").json["executionId"] == whole
    listed = on_terminal(shared, "ps")
    [row] = [line for line in listed.plain.splitlines() if "T/Stay" in line]
    assert (row.split()[0], fits(listed)) == (short, True)
    stopped = on_terminal(shared, "stop", short, "--wait")
    assert (stopped.code, "T/Stay" in stopped.plain) == (0, True)
    assert "stopped by admin" in stopped.plain.splitlines()[0]


def test_a_queued_start_says_for_what_it_waits_and_several_are_not_stopped_by_one_word(
    shared: Path, jobbus: Cli
) -> None:
    first = jobbus(shared, "start", "T/Queue", "--wait").out.strip()
    queued = on_terminal(shared, "start", "T/Queue")
    assert f"queued: one is running already ({first[:13]}" in queued.plain
    which = jobbus(shared, "stop", "T/Queue")
    assert (which.code, which.out) == (6, "")
    second = queued.plain.split()[0]
    assert all(word in which.err for word in (first[:13], second, "--all", "2 executions"))
    begin = first[:4]
    several = jobbus(shared, "status", begin)
    assert (several.code, f"{begin} is the beginning of several ids" in several.err) == (2, True)
    for _ in range(6):
        assert jobbus(shared, "start", "T/Gone", "--wait").code == 1
    crowd = jobbus(shared, "status", begin).err
    assert crowd.endswith(" T/Gone failed and more; write more of it\n"), "causes fill the screen"
    assert jobbus(shared, "cancel", second, "--wait").code == 0
    assert jobbus(shared, "stop", "T/Queue", "--all", "--kill", "--wait").code == 0
    assert jobbus(shared, "wait", first, second).code == 1


def test_run_says_why_it_failed_and_what_to_do(shared: Path, jobbus: Cli) -> None:
    ran = jobbus(shared, "run", "T/Wrong")
    assert ran.code == 1
    *_, ending, why_title, why, steps = ran.err.splitlines()
    assert "T/Wrong: failed: exit code 3" in ending
    assert (why_title, why) == ("  the last lines of its stderr:", "  | why")
    again = steps.partition("jobbus retry ")[2].split()[0]
    assert f"jobbus inspect {again}" in steps
    everything = jobbus(shared, "inspect", again).json
    assert everything["execution"]["ending"] == "failed: exit code 3"
    assert everything["job"]["jobId"] == "T/Wrong"
    assert everything["command"]["command"] == "start"
    assert everything["lastLines"][-1]["text"] == "30"
    gone = jobbus(shared, "run", "T/Gone")
    assert "failed: could not start: the program './nowhere' was not found in" in gone.err
    on_screen = on_terminal(shared, "run", "T/Wrong")
    assert "| why" in on_screen.plain, "it had scrolled away"


def test_last_word_of_a_waited_start_is_the_programs_end(shared: Path, jobbus: Cli) -> None:
    on_pipe = jobbus(shared, "start", "--wait", "T/Wrong")
    assert (on_pipe.code, len(on_pipe.out.strip())) == (1, 36)
    assert "T/Wrong: failed: exit code 3" in on_pipe.err
    assert "| why" in on_pipe.err
    as_json = jobbus(shared, "start", "--wait", "--json", "T/Wrong")
    assert (as_json.code, as_json.json["command"]) == (1, "start")
    assert "failed: exit code 3" in as_json.err
    shown = on_terminal(shared, "start", "--wait", "T/Wrong")
    assert (shown.code, "Completed" in shown.plain) == (1, False)
    assert shown.plain.splitlines()[0].endswith("failed: exit code 3")
    gone = jobbus(shared, "start", "--wait", "T/Gone")
    assert (gone.code, gone.out) == (1, "")
    assert "the program './nowhere' was not found" in gone.err


def test_interrupted_followers_say_what_goes_on(shared: Path, jobbus: Cli) -> None:
    run = on_terminal(shared, "run", "T/Stay", until=b"here")
    execution = jobbus(shared, "ps", "--job", "T/Stay", "--json").json["items"][0]["executionId"]
    expected = f"still running: jobbus logs -f {execution[:13]}   stop: jobbus stop"
    assert (run.code, expected in run.plain) == (130, True)
    logs = on_terminal(shared, "logs", "-f", "T/Stay", until=b"here")
    assert (logs.code, expected in logs.plain) == (130, True)
    assert jobbus(shared, "stop", execution, "--kill", "--wait").code == 0


def test_tables_fit_80_columns_with_short_ids_and_colour(shared: Path, jobbus: Cli) -> None:
    jobbus(shared, "run", "T/Talk")
    jobbus(shared, "run", "T/Gone")
    for arguments in (("ps", "-a"), ("jobs",), ("commands",), ("status", "T/Gone")):
        shown = on_terminal(shared, *arguments)
        assert (shown.code, fits(shown)) == (0, True), shown.plain
        assert "\x1b[" in shown.out
    jobs = on_terminal(shared, "jobs").plain
    rows = {line.split()[0]: line for line in jobs.splitlines()}
    assert rows["T/Gone"].split()[1] == "failed"
    assert rows["T/Gone"].endswith("✗")
    assert rows["T/Talk"].split()[1] == "ok"
    assert "▇" in rows["T/Talk"]
    assert 'jobs/Broken/job.toml:1: unknown key "comand"' in rows["T/Broken"]
    failed = on_terminal(shared, "ps", "--status", "failed", "--job", "T/Gone").plain.splitlines()
    assert len(failed) > 1
    assert all(" failed " in line for line in failed[1:])
    wide = on_terminal(shared, "ps", "-a", "--wide").plain
    assert "was not found in" in wide
    watched = on_terminal(shared, "ps", "-a", "--watch", until=b"PROGRESS")
    assert (watched.code, "T/Talk" in watched.plain) == (130, True)


def test_without_colour_where_none_is_wanted(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = subprocess.run(
        [sys.executable, "-m", "jobbus", "jobs"],
        cwd=shared,
        env=environment(shared) | {"NO_COLOR": "1"},
        capture_output=True,
        check=True,
    )
    assert b"\x1b" not in child.stdout


def test_lines_are_chosen_by_stream_time_and_number(shared: Path, jobbus: Cli) -> None:
    jobbus(shared, "run", "T/Wrong")
    assert jobbus(shared, "logs", "T/Wrong", "-n", "2").out == "29\n30\n"
    assert jobbus(shared, "logs", "T/Wrong", "--stream", "err").out == "why\n"
    assert jobbus(shared, "logs", "T/Wrong", "--stream", "out", "-n", "1", "-f").out == "30\n"
    timed = jobbus(shared, "logs", "T/Wrong", "-t", "--stream", "err").out
    assert timed[:2] == "20"
    assert timed.endswith("  why\n")
    assert jobbus(shared, "logs", "T/Wrong", "--since", "1h").out.count("\n") == 61
    assert jobbus(shared, "logs", "T/Wrong", "--since", "2999-01-01T00:00:00Z").out == ""
    jobbus(shared, "run", "T/Talk")
    both = jobbus(shared, "logs", "T/Wrong", "T/Talk", "-n", "1").out
    assert both.count("==> ") == 2
    together = jobbus(shared, "logs", "-f", "T/Wrong", "T/Talk", "--stream", "err").out
    assert sorted(line.split("  ")[1] for line in together.splitlines()) == ["bad", "why"]


def test_several_words_are_taken_and_what_is_wrong_with_one_is_said(
    shared: Path, jobbus: Cli
) -> None:
    jobbus(shared, "run", "T/Talk")
    found = jobbus(shared, "status", "T/Talk", "T/Nothing", "T/Stay", "--json")
    assert found.code == 3
    ids = [json.loads(line)["job"]["jobId"] for line in found.out.splitlines()]
    assert ids == ["T/Talk", "T/Stay"]
    assert 'there is no job "T/Nothing"' in found.err


def test_wait_ends_with_the_execution_and_as_it_did(shared: Path, jobbus: Cli) -> None:
    started = jobbus(shared, "start", "T/Talk", "-V", "Code=4").out.strip()
    waited = jobbus(shared, "wait", started)
    assert (waited.code, waited.out) == (1, f"{started}  failed: exit code 4\n")
    assert jobbus(shared, "wait", started, "--exit-code").code == 4
    stays = jobbus(shared, "start", "T/Stay").out.strip()
    late = jobbus(shared, "wait", stays, "--timeout", "0.1")
    assert (late.code, late.out) == (124, "")
    assert late.err == f"jobbus: {stays[:13]} T/Stay has not ended within 0.1 s; it goes on\n"
    with process(shared, "wait", stays, "--json") as waiting:
        assert jobbus(shared, "stop", stays, "--kill").code == 0
        out, _ = waiting.communicate()
        assert (waiting.returncode, json.loads(out)["status"]) == (1, "Stopped")


def test_maintenance_is_begun_seen_and_ended(shared: Path, jobbus: Cli) -> None:
    assert jobbus(shared, "maintenance").out == "off\n"
    begun = jobbus(shared, "maintenance", "on", "--reason", "moving disks")
    assert (begun.code, begun.out) == (0, "on  by admin: moving disks\n")
    try:
        refused = jobbus(shared, "start", "T/Talk")
        assert (refused.code, "maintenance" in refused.err) == (5, True)
    finally:
        assert jobbus(shared, "maintenance", "off").out == "off\n"
    assert jobbus(shared, "maintenance", "--json").json == {"maintenance": None}


@pytest.mark.parametrize("name", ["T/talk", "t/Talk", r"T\Talk", "Talk", "talk", "T/Tlak", "Takl"])
@pytest.mark.parametrize("command", ["start", "run", "logs", "status", "stop", "inspect", "wait"])
def test_a_job_that_is_nearly_named_is_found_for_the_person(
    shared: Path, jobbus: Cli, command: str, name: str
) -> None:
    ended = jobbus(shared, command, name)
    assert (ended.code, ended.out) == (3, ""), ended.err
    assert 'did you mean "T/Talk"' in ended.err


def completed(place: Path, line: str) -> list[str]:
    """What bash offers at the end of the line."""
    script = (
        "source <(jobbus completion bash); COMP_LINE=$1; COMP_POINT=${#1}\n"
        "mapfile -t COMP_WORDS < <(sed 's/[=:]/\\n&\\n/g; s/ /\\n/g' <<< \"$1\")\n"
        "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _jobbus 2>/dev/null\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    bins = place / "bin"
    bins.mkdir(exist_ok=True)
    (bins / "jobbus").write_text(f'#!/bin/sh\nexec {sys.executable} -m jobbus "$@"\n', "utf-8")
    (bins / "jobbus").chmod(0o755)
    environ = environment(place)
    environ["PATH"] = f"{bins}:{environ['PATH']}"
    shown = subprocess.run(
        ["/bin/bash", "-c", script, "bash", line],
        cwd=place,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    return shown.stdout.split("\n")[:-1]


def test_bash_completes_commands_jobs_ids_options_and_variables(shared: Path, jobbus: Cli) -> None:
    assert "status" in completed(shared, "jobbus sta")
    assert completed(shared, "jobbus start T/Ta") == ["T/Talk"]
    assert completed(shared, "jobbus start T/Choice -V ") == ["Day=Fri", "Day=Mon"]
    assert completed(shared, "jobbus start T/Choice -V Day=M") == ["Mon"]
    assert "--follow" in completed(shared, "jobbus logs --fo")
    stays = jobbus(shared, "start", "T/Stay").out.strip()
    assert stays[:13] in completed(shared, "jobbus stop ")
    assert completed(shared, f"jobbus logs {stays[:10]}") == [stays[:13]]
    assert jobbus(shared, "stop", stays, "--kill", "--wait").code == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_what_the_shell_reads(shared: Path, jobbus: Cli, shell: str) -> None:
    script = jobbus(shared, "completion", shell)
    assert (script.code, "jobbus __complete" in script.out) == (0, True)
    program = shutil.which(shell)
    if program is not None:
        subprocess.run([program, "-n"], input=script.out, text=True, check=True)
