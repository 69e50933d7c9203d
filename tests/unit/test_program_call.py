"""What exactly is executed for an execution."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.job_definition import JobSpec, VariableSpec, VariableType
from bus.model import Execution, ExecutionStatus, SecretRef, Value
from handlers.catalog.program_call import Launch, build_launch

EXECUTION = Execution(
    id="e-1",
    job_id="App/Job",
    command_id="c-1",
    user_id="alice",
    status=ExecutionStatus.STARTING,
    revision="r",
    queued_ms=0,
    attempt=2,
)
SPEC = JobSpec(command=("./run.sh",), directory="/srv/apps/App/jobs/Job")


def launch(
    spec: JobSpec = SPEC,
    values: dict[str, Value] | None = None,
    base: dict[str, str] | None = None,
    execution: Execution = EXECUTION,
) -> Launch:
    return build_launch(
        msgspec.structs.replace(execution, variables=values or {}),
        spec,
        base_env=base or {},
        notify_socket="@jobbus/notify",
        progress_file="/data/JobOutput/e-1/progress",
        result_file="/data/JobOutput/e-1/result.json",
        artifacts_folder="/data/JobOutput/e-1/artifacts",
    )


def with_(**changes: object) -> JobSpec:
    return msgspec.structs.replace(SPEC, **changes)


def test_the_environment_is_exactly_what_the_contract_says() -> None:
    base = {"PATH": "/bin", "HOME": "/h", "LANG": "C", "TZ": "UTC", "USER": "u", "AWS_SECRET": "s"}
    execution = msgspec.structs.replace(EXECUTION, traceparent="00-ab-cd-01")
    spec = with_(env={"GREETING": "hello {{Who}}"})
    assert launch(spec, {"Who": "you", "N": 3}, base, execution).env == {
        "PATH": "/bin",
        "HOME": "/h",
        "LANG": "C",
        "TZ": "UTC",
        "USER": "u",
        "PYTHONUNBUFFERED": "1",
        "GREETING": "hello you",
        "JOBBUS_EXECUTION_ID": "e-1",
        "JOBBUS_JOB_ID": "App/Job",
        "JOBBUS_COMMAND_ID": "c-1",
        "JOBBUS_USER_ID": "alice",
        "JOBBUS_ATTEMPT": "2",
        "JOBBUS_ARTIFACTS": "/data/JobOutput/e-1/artifacts",
        "JOBBUS_RESULT": "/data/JobOutput/e-1/result.json",
        "JOBBUS_PROGRESS": "/data/JobOutput/e-1/progress",
        "NOTIFY_SOCKET": "@jobbus/notify",
        "TRACEPARENT": "00-ab-317386494bf10d9f-01",
        "JOBBUS_VAR_Who": "you",
        "JOBBUS_VAR_N": "3",
    }


def test_a_service_without_an_environment_still_finds_programs() -> None:
    env = launch().env
    assert env["PATH"] == "/usr/local/bin:/usr/bin:/bin"
    assert env["LANG"] == "C.UTF-8"
    assert "HOME" not in env
    assert "TRACEPARENT" not in env


def test_the_definition_may_change_the_base_but_not_what_jobbus_says() -> None:
    spec = with_(env={"PATH": "/opt/bin", "JOBBUS_USER_ID": "root", "JOBBUS_VAR_X": "forged"})
    env = launch(spec, {"X": "true one"}, {"PATH": "/bin"}).env
    assert env["PATH"] == "/opt/bin"
    assert env["JOBBUS_USER_ID"] == "alice"
    assert env["JOBBUS_VAR_X"] == "true one"


def test_values_become_whole_arguments() -> None:
    spec = with_(command=("copy", "{{From}}", "--n={{N}}", "{{Quiet}}", "{{Unset}}"))
    values: dict[str, Value] = {"From": "a b; rm -rf $HOME\n'", "N": 2.0, "Quiet": True}
    assert launch(spec, values).argv == ("copy", "a b; rm -rf $HOME\n'", "--n=2", "true", "")


def test_values_are_not_rendered_twice() -> None:
    spec = with_(command=("echo", "{{A}}{{B}}"))
    assert launch(spec, {"A": "{{B}}", "B": "{{A}}"}).argv == ("echo", "{{B}}{{A}}")


@pytest.mark.parametrize(
    ("cwd", "folder"),
    [
        (".", "/srv/apps/App/jobs/Job"),
        ("work", "/srv/apps/App/jobs/Job/work"),
        ("../shared", "/srv/apps/App/jobs/Job/../shared"),
        ("/var/tmp", "/var/tmp"),
    ],
)
def test_the_folder_is_absolute(cwd: str, folder: str) -> None:
    assert launch(with_(cwd=cwd)).cwd == folder


def test_a_secret_is_in_no_part_of_the_call() -> None:
    spec = with_(variables={"P": VariableSpec(type=VariableType.SECRET)})
    assert "DB_PASSWORD" not in repr(launch(spec, {"P": SecretRef(secret="DB_PASSWORD")}))


def test_a_user_id_that_no_environment_can_hold_is_made_plain() -> None:
    execution = msgspec.structs.replace(EXECUTION, user_id="a\0b\ud800")
    assert launch(execution=execution).env["JOBBUS_USER_ID"] == "ab?"


@given(st.dictionaries(st.sampled_from("ABC"), st.text(st.characters(exclude_characters="\0"))))
def test_the_number_of_arguments_never_depends_on_values(values: dict[str, Value]) -> None:
    spec = with_(command=("run", "{{A}}", "x{{B}}y{{C}}", "{{A}}{{A}}"))
    assert len(launch(spec, values).argv) == 4
