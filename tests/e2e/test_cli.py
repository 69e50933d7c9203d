"""The command line against a real service: its words, its exit codes, its two output forms."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import (
    ENDINGS,
    JOBS,
    PATIENCE_S,
    ROOT,
    Cli,
    environment,
    in_this_process,
    made,
    out_of,
    process,
    service,
    spawned,
)

UNKNOWN = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A place with a running service, for all tests that leave it as it was."""
    place = made(tmp_path_factory.mktemp("shared"))
    with service(place):
        yield place


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return made(tmp_path)


@pytest.fixture
def jobbus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return in_this_process(monkeypatch, capsys)


def test_start_prints_what_every_other_command_takes(shared: Path, jobbus: Cli) -> None:
    started = jobbus(shared, "start", "T/Talk", "-V", "Code=0")
    assert (started.code, started.err) == (0, "")
    execution_id = started.out.strip()
    assert len(execution_id) == 36
    shown = jobbus(shared, "command", execution_id, "--wait", "--json")
    assert shown.code == 0
    assert (shown.json["status"], shown.json["outcome"]) == ("Completed", "done")
    assert shown.json["executionId"] == execution_id
    command_id = shown.json["commandId"]
    listed = jobbus(shared, "commands", "--json").json["items"]
    assert command_id in [one["commandId"] for one in listed]
    assert jobbus(shared, "wait", execution_id).code == 0
    for word in (execution_id, command_id, execution_id[:18], command_id[:18], "T/Talk"):
        assert "line 3" in jobbus(shared, "logs", word).out, word
        if word != "T/Talk":
            assert jobbus(shared, "status", word, "--json").json["executionId"] == execution_id
        inspected = jobbus(shared, "inspect", word).json
        assert execution_id in (
            inspected.get("execution", {}).get("executionId"),
            *(each["executionId"] for each in inspected.get("executions", ())),
        )
    assert jobbus(shared, "command", "T/Talk", "--json").json["commandId"] == command_id
    again = jobbus(shared, "retry", command_id[:18]).out.strip()
    assert jobbus(shared, "wait", again).code == 0


def test_run_shows_output_and_says_how_it_ended(shared: Path, jobbus: Cli) -> None:
    good = jobbus(shared, "run", "T/Talk")
    assert (good.code, sorted(good.out.splitlines())) == (0, ["bad", "line 1", "line 2", "line 3"])
    assert ": succeeded" in good.err
    assert jobbus(shared, "run", "T/Talk", "-V", "Code=7").code == 1
    assert jobbus(shared, "run", "T/Talk", "-V", "Code:=7", "--exit-code").code == 7


@pytest.mark.parametrize(
    ("job", "code", "words"),
    [
        ("Slow", 124, "timed out after "),
        ("Gone", 1, "failed: could not start: the program './nowhere' was not found in "),
        ("Fault", 128 + signal.SIGSEGV, "failed: signal 11 (segmentation fault)"),
        ("Picky", 1, "failed: exit code 0"),
    ],
)
def test_how_it_ended_is_said_in_the_same_words_everywhere(
    shared: Path, jobbus: Cli, job: str, code: int, words: str
) -> None:
    ran = jobbus(shared, "run", f"T/{job}", "--exit-code")
    assert ran.code == code
    assert f"T/{job}: {words}" in ran.err
    [execution] = jobbus(shared, "ps", "-a", "--job", f"T/{job}", "--json").json["items"]
    assert execution["ending"].startswith(words)
    for shown in (
        jobbus(shared, "ps", "-a", "--job", f"T/{job}"),
        jobbus(shared, "status", f"T/{job}"),
        jobbus(shared, "status", execution["executionId"]),
    ):
        assert words[:50] in shown.out
    closely = jobbus(shared, "status", execution["executionId"]).out
    assert ("of processor time" in closely) is (execution["usage"] is not None) is (job != "Gone")
    file = shared / "data" / "JobStatus" / f"{execution['executionId']}.json"
    assert json.loads(file.read_bytes())["Ending"] == execution["ending"]


def test_execution_is_listed_followed_restarted_and_stopped(shared: Path, jobbus: Cli) -> None:
    started = jobbus(shared, "start", "T/Stay", "--wait", "--json")
    execution = started.json["executionId"]
    assert "T/Stay" in jobbus(shared, "ps").out
    assert jobbus(shared, "start", "T/Stay").code == 6
    with process(shared, "logs", "-f", "T/Stay") as follower:
        assert out_of(follower).readline() == b"here\n"
        stopped = jobbus(shared, "stop", execution, "--wait", "--timeout", "20")
        assert (stopped.code, stopped.out.strip()) == (0, execution)
        assert follower.communicate() == (b"", b"")
        assert follower.returncode == 0
    assert execution not in jobbus(shared, "ps").out
    kept = jobbus(shared, "ps", "-a", "--job", "T/Stay", "--json").json["items"][0]
    assert (kept["executionId"], kept["status"]) == (execution, "Stopped")
    assert jobbus(shared, "logs", execution).out == "here\n"
    first = jobbus(shared, "start", "T/Stay", "--wait", "--json").json["executionId"]
    again = jobbus(shared, "restart", "T/Stay", "--kill", "--wait", "--json")
    assert again.json["executionId"] not in (None, first, execution)
    assert jobbus(shared, "stop", "T/Stay", "--kill", "--wait").code == 0


def test_waiting_start_is_cancelled_and_an_ended_one_retried_and_deleted(
    shared: Path, jobbus: Cli
) -> None:
    first = jobbus(shared, "start", "T/Late", "--wait", "--json").json["executionId"]
    assert jobbus(shared, "retry", first).code == 6
    jobbus(shared, "stop", first)
    waits = jobbus(shared, "start", "T/Late", "-V", "Code=1").out.strip()
    cancelled = jobbus(shared, "cancel", waits, "--wait", "--json")
    assert (cancelled.code, cancelled.json["outcome"]) == (0, "done")
    assert jobbus(shared, "command", waits, "--json").json["status"] == "Cancelled"
    assert jobbus(shared, "cancel", waits).code == 6
    assert jobbus(shared, "stop", first, "--kill", "--wait").code == 0
    retried = jobbus(shared, "retry", first, "--wait", "--json").json["executionId"]
    kept = jobbus(shared, "status", retried, "--json").json
    assert (kept["attempt"], kept["previous"]) == (2, first)
    assert jobbus(shared, "delete", retried).code == 6
    assert jobbus(shared, "stop", retried, "--kill", "--wait").code == 0
    assert jobbus(shared, "delete", first, "--wait").code == 0
    assert jobbus(shared, "status", first).code == 3


def test_jobs_and_status_show_what_there_is(shared: Path, jobbus: Cli) -> None:
    jobs = jobbus(shared, "jobs", "--json").json["items"]
    assert [job["jobId"] for job in jobs] == sorted(f"T/{name}" for name in (*JOBS, *ENDINGS))
    status = jobbus(shared, "status", "T/Talk", "--json").json
    assert status["job"]["variables"]["Code"]["type"] == "integer"
    assert "Code" in jobbus(shared, "status", "T/Talk").out
    for one in status["executions"][:1]:
        assert "T/Talk" in jobbus(shared, "status", one["executionId"]).out


def test_wrong_or_missing_token_is_not_permitted(shared: Path, jobbus: Cli) -> None:
    url = json.loads((shared / "data" / "instance.json").read_bytes())["url"]
    assert jobbus(shared, "ps", "--url", url, token="jb_x_wrongwrong").code == 4
    missing = jobbus(shared, "ps", "--url", url)
    assert (missing.code, "--token-file" in missing.err) == (4, True)
    file = shared / "data" / "admin.token"
    assert jobbus(shared, "ps", "--url", url, "--token-file", str(file)).code == 0


def test_wait_that_takes_too_long_is_124(shared: Path, jobbus: Cli) -> None:
    with process(shared, "run", "T/Deaf") as follower:
        assert out_of(follower).readline() == b"armed\n"
        late = jobbus(shared, "stop", "T/Deaf", "--wait", "--timeout", "0.5")
        assert (late.code, late.out) == (124, "")
        assert "within 0.5 s" in late.err
        assert jobbus(shared, "stop", "T/Deaf", "--kill", "--wait").code == 0
        follower.communicate()
        assert follower.returncode == 1


def test_events_are_ndjson_and_interrupt_is_130(shared: Path, jobbus: Cli) -> None:
    with process(shared, "events", "--json", "--snapshot", "--job", "T/Talk") as watcher:
        lines: list[dict[str, Any]] = [{"op": ""}]
        while lines[-1]["op"] != "snapshot_end":
            lines.append(json.loads(out_of(watcher).readline()))
        assert jobbus(shared, "start", "T/Talk").code == 0
        while lines[-1].get("data", {}).get("type") != "execution.ended":
            lines.append(json.loads(out_of(watcher).readline()))
        watcher.send_signal(signal.SIGINT)
        assert watcher.communicate() == (b"", b"")
        assert watcher.returncode == 130
    snapshot = next(line for line in lines if line["op"] == "snapshot")
    assert "jobs/T/Talk" in [item["subject"] for item in snapshot["data"]["items"]]
    changes = [line for line in lines if line["op"] == "change"]
    types = [change["data"]["type"] for change in changes]
    assert (types[0], types[-1]) == ("command.accepted", "execution.ended")
    assert len({change["id"] for change in changes}) == len(changes)


def test_closed_pipe_ends_in_silence(shared: Path, jobbus: Cli) -> None:
    with process(shared, "run", "T/Talk") as child:
        assert out_of(child).readline() == b"line 1\n"
        out_of(child).close()
        assert child.stderr is not None
        err = child.stderr.read()
        assert child.wait(PATIENCE_S) == 0
    assert b"Traceback" not in err
    assert b"Exception" not in err
    assert jobbus(shared, "logs", "-f", "T/Talk").code == 0


@pytest.mark.parametrize("arguments", [("jobs",), ("jobs", "--json"), ("--help",)])
def test_output_that_finds_no_room_is_named_and_the_call_ends_with_1(
    shared: Path, arguments: tuple[str, ...]
) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-m", "jobbus", *arguments],
            cwd=shared,
            env=environment(shared),
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (ended.returncode, ended.stderr.decode()) == (
        1,
        "jobbus: no room is left for what was to be written; the output goes to /dev/full\n",
    )


def test_list_of_jobs_says_where_a_definition_is_faulty(place: Path, jobbus: Cli) -> None:
    folder = place / "apps" / "T" / "jobs" / "Two Words"
    folder.mkdir()
    (folder / "job.toml").write_text('command = ["true"]\n', encoding="utf-8")
    (place / "apps" / "T" / "jobs" / "Deaf" / "job.toml").write_text("comand = 1\n", "utf-8")
    with service(place):
        lines = jobbus(place, "jobs").out.splitlines()
    [deaf] = [line for line in lines if line.startswith("T/Deaf ")]
    assert 'apps/T/jobs/Deaf/job.toml:1: unknown key "comand"; did you mean "command"?' in deaf
    [words] = [line for line in lines if line.startswith("T/Two Words ")]
    assert "apps/T/jobs/Two Words" in words


def test_first_job_of_the_readme_runs_as_it_is_written_there(place: Path, jobbus: Cli) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## Your first job")[2].partition("\n## ")[0]
    files = re.findall(r"```\w+\n# (apps/\S+)\n(.*?)```", section, re.DOTALL)
    assert [Path(name).name for name, _ in files] == ["job.toml", "render.py"]
    for name, content in files:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(content, encoding="utf-8")
    with service(place):
        ran = jobbus(place, "run", "Reports/Nightly", "--var", "Day=2026-11-24")
        assert (ran.code, ran.out.splitlines()[-1]) == (0, "page 100 of 2026-11-24"), ran.err
        assert "100 % rendering" in jobbus(place, "status", "Reports/Nightly").out
        assert jobbus(place, "logs", "Reports/Nightly").out == ran.out


def test_without_a_service_commands_wait_in_the_directory(place: Path, jobbus: Cli) -> None:
    with service(place):
        pass
    started = jobbus(place, "start", "T/Talk", "-V", "Code=3")
    assert (started.code, "no service runs" in started.err) == (0, True)
    assert "Code:=…" in started.err
    typed = jobbus(place, "start", "T/Talk", "-V", "Code:=3", "--json").json["commandId"]
    assert jobbus(place, "ps").code == 5
    with service(place):
        textual = started.out.strip()
        assert jobbus(place, "command", textual, "--wait", "--timeout", "20").code == 2
        assert jobbus(place, "command", typed, "--wait", "--timeout", "20").code == 0
        assert jobbus(place, "logs", "-f", "T/Talk").out.count("line") == 3


def test_without_a_service_there_the_exit_code_is_5(
    place: Path, jobbus: Cli, unused_tcp_port: int
) -> None:
    nowhere = jobbus(place, "start", "T/Talk")
    assert (nowhere.code, "jobbus serve" in nowhere.err) == (5, True)
    refused = jobbus(place, "ps", "--url", f"http://127.0.0.1:{unused_tcp_port}", token="x")
    assert refused.code == 5


def test_address_that_is_taken_is_answered_with_a_sentence(place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with spawned(place, "serve", "--listen", address, stderr=subprocess.PIPE) as second:
            _, answered = second.communicate(timeout=PATIENCE_S)
    taken = f"jobbus: cannot listen on {address}: another program listens there; --listen names"
    assert taken in answered.decode()
    assert second.returncode == 1


def test_recorded_address_gets_no_token_unless_the_lock_is_held(place: Path, jobbus: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        (place / "data").mkdir(mode=0o700)
        (place / "data" / "admin.token").write_text("jb_admin_secret")
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        recorded = {"instance": "a" * 12, "url": url, "pid": 1}
        (place / "data" / "instance.json").write_text(json.dumps(recorded))
        assert jobbus(place, "ps").code == 5
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_directory_that_others_may_write_is_not_trusted(place: Path, jobbus: Cli) -> None:
    (place / "data").mkdir()
    (place / "data").chmod(0o777)
    refused = jobbus(place, "ps")
    assert (refused.code, "written by others" in refused.err) == (1, True)


def test_serve_says_what_is_wrong_before_it_starts(shared: Path, jobbus: Cli) -> None:
    open_door = jobbus(shared, "serve", "--listen", "0.0.0.0:0")
    assert (open_door.code, "--behind-proxy" in open_door.err) == (2, True)
    (shared / "typo.toml").write_text("[serve]\nlisten_on = 'x'\n")
    typo = jobbus(shared, "serve", "--config", "typo.toml")
    assert (typo.code, "'listen'" in typo.err) == (2, True)
    with process(shared, "serve", "--listen", "127.0.0.1:0") as second:
        out, err = second.communicate()
    assert (second.returncode, out, b"in use by" in err) == (1, b"", True)


def test_help_lists_commands_without_loading_them(place: Path) -> None:
    check = (
        "import sys; from jobbus.cli.main import run; code = run(['--help']); "
        "heavy = ('aiohttp', 'jobbus.service.app', 'structlog'); "
        "print(code, [name for name in heavy if name in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", check], env=environment(place), capture_output=True, check=True
    ).stdout.decode()
    assert out.splitlines()[-1] == "0 []"
    assert "  commands: " in out


def test_a_service_is_loaded_without_what_it_does_not_use(place: Path) -> None:
    check = (
        "import gc, os, sys; before = dict(os.environ)\n"
        "from jobbus.service.lean_imports import lean_imports, settle_in\n"
        "with lean_imports(): import jobbus.service.app\n"
        "settle_in()\n"
        "unused = ('rich', 'pygments')\n"
        "print([m for m in unused if m in sys.modules], before == dict(os.environ))\n"
        "import rich.console; print(gc.isenabled(), gc.get_freeze_count() > 10_000)"
    )
    out = subprocess.run(
        [sys.executable, "-c", check], env=environment(place), capture_output=True, check=True
    ).stdout.decode()
    assert out.splitlines() == ["[] True", "True True"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("doctor",),
        ("doctor", "--repair"),
        ("doctor", "--new-epoch"),
        ("ps",),
        ("start", "T/Talk"),
        ("token", "create", "--user", "u", "--role", "viewer"),
        ("token", "list"),
    ],
)
def test_a_directory_of_something_else_is_said_to_be_none_and_left_alone(
    tmp_path: Path, jobbus: Cli, arguments: tuple[str, ...]
) -> None:
    other = tmp_path / "other"
    other.mkdir(mode=0o755)
    (other / "passwd").touch()
    answered = jobbus(tmp_path, *arguments, "--data", str(other))
    assert answered.code != 0
    assert "is no data directory of jobbus" in answered.err
    assert [each.name for each in other.iterdir()] == ["passwd"]


def test_a_role_that_gives_no_right_is_named_with_the_one_that_was_meant(
    shared: Path, place: Path, jobbus: Cli
) -> None:
    made = jobbus(shared, "token", "create", "--user", "u", "--role", "viewr", "--role", "admin")
    assert made.code == 0
    assert 'gives the role "viewr" a right; did you mean "viewer"?' in made.err
    assert made.err.count("gives the role") == 1
    with service(place):
        pass
    offline = jobbus(place, "token", "create", "--user", "u", "--role", "operatr", "--role", "own")
    assert 'did you mean "operator"?' in offline.err
    assert '"own"' not in offline.err
