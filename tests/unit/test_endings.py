"""How executions ended: one sentence, one exit code, for every state, reason, code and signal."""

from itertools import product

import pytest

from bus.endings import duration, ending, exit_code_of
from bus.model import FINAL_EXECUTION, Execution, ExecutionStatus, Reason, StopRequest

S, R = ExecutionStatus, Reason


def ended(status: ExecutionStatus, reason: Reason | None, **more: object) -> Execution:
    common = {"id": "e", "job_id": "A/B", "command_id": "c", "user_id": "u", "revision": "r"}
    fields = {"queued_ms": 0, "start_ms": 1000, "end_ms": 9000, **common, **more}
    return Execution(status=status, reason=reason, **fields)  # type: ignore[arg-type]


def stop(reason: Reason) -> StopRequest:
    return StopRequest(reason=reason, by="ops", at_ms=1_801_020, grace_s=1)


@pytest.mark.parametrize(
    ("execution", "sentence"),
    [
        (ended(S.SUCCEEDED, R.EXIT_CODE, exit_code=0), "succeeded"),
        (ended(S.SUCCEEDED, R.EXIT_CODE, exit_code=3), "succeeded: exit code 3"),
        (ended(S.FAILED, R.EXIT_CODE, exit_code=3), "failed: exit code 3"),
        (ended(S.FAILED, R.SIGNAL, signal=11), "failed: signal 11 (segmentation fault)"),
        (ended(S.FAILED, R.OOM, signal=9), "failed: out of memory"),
        (
            ended(S.FAILED, R.SPAWN_ERROR, error="the program 'x' was not found", exit_code=0),
            "failed: could not start: the program 'x' was not found",
        ),
        (
            ended(S.FAILED, R.NOT_READY, exit_code=0),
            "failed: it was not ready when it ended: exit code 0",
        ),
        (
            ended(S.FAILED, R.STOP_INCOMPLETE, exit_code=0, survivors=(12, 34), error="stuck"),
            "failed: not all of it could be stopped, left are 12, 34; stuck",
        ),
        (
            ended(S.FAILED, R.WATCHDOG, signal=9),
            "failed: it gave no sign of life in time (watchdog)",
        ),
        (
            ended(S.TIMED_OUT, R.RUN_TIMEOUT, exit_code=0, stop=stop(R.RUN_TIMEOUT)),
            "timed out after 30 min",
        ),
        (ended(S.TIMED_OUT, R.START_TIMEOUT, signal=9), "timed out after 8 s before it was ready"),
        (ended(S.STOPPED, R.USER, exit_code=0, stop=stop(R.USER)), "stopped by ops"),
        (
            ended(S.STOPPED, R.REPLACED, stop=stop(R.REPLACED)),
            "stopped by ops: another execution took its place",
        ),
        (
            ended(S.CANCELLED, R.SUPERSEDED),
            "cancelled while it waited: a later stop, start or restart overtook it",
        ),
        (
            ended(S.CANCELLED, R.EXPIRED),
            "cancelled while it waited: it expired before it could start",
        ),
        (ended(S.SKIPPED, R.DISABLED), "skipped: the job was disabled or removed"),
        (
            ended(S.LOST, R.HOST_RESTART),
            "lost: how it ended is unknown since the machine restarted",
        ),
        (ended(S.RUNNING, None), ""),
    ],
)
def test_ending_is_said_in_a_sentence(execution: Execution, sentence: str) -> None:
    assert ending(execution) == sentence


@pytest.mark.parametrize("status", sorted(FINAL_EXECUTION))
def test_only_what_succeeded_ends_with_0_and_each_end_has_its_words(
    status: ExecutionStatus,
) -> None:
    words = status.value.lower().replace("timedout", "timed out")
    for reason, code, number in product([*Reason, None], [None, 0, 3], [None, 9]):
        execution = ended(status, reason, exit_code=code, signal=number, error="because")
        said = ending(execution)
        assert said.startswith(words)
        assert "None" not in said
        is_named = status in (S.FAILED, S.TIMED_OUT, S.STOPPED, S.SKIPPED)
        assert ("because" in said) == is_named
        ends_with = exit_code_of(status, code, number)
        if status is S.SUCCEEDED:
            assert ends_with == (code or 0)
        elif status is S.TIMED_OUT:
            assert ends_with == 124
        else:
            assert ends_with == (code or (137 if number else 1))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0 s"),
        (0.04, "0 s"),
        (3.14, "3.1 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (90, "1 min 30 s"),
        (1800.02, "30 min"),
        (3900, "1 h 5 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_duration_is_said_as_people_say_it(seconds: float, words: str) -> None:
    assert duration(seconds) == words
