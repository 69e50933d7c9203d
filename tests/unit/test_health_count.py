"""When checks make a program healthy or unhealthy: invariants for any row of checks."""

from hypothesis import given
from hypothesis import strategies as st

from bus.health import HealthSpec, HealthStatus
from handlers.supervision.health_checks import judged
from handlers.supervision.health_count import HealthCount, Verdict
from handlers.supervision.record import CheckResult

HEALTHY, UNHEALTHY = HealthStatus.HEALTHY, HealthStatus.UNHEALTHY


@given(
    checks=st.lists(st.booleans(), max_size=40),
    failures=st.integers(1, 4),
    successes=st.integers(1, 4),
    known=st.sampled_from([None, HEALTHY, UNHEALTHY]),
)
def test_verdicts_follow_rows_of_checks_and_none_comes_twice(
    checks: list[bool], failures: int, successes: int, known: HealthStatus | None
) -> None:
    count = HealthCount(HealthSpec(failures=failures, successes=successes), known)
    standing = known
    for n, is_good in enumerate(checks, 1):
        verdict = count.take(str(n), is_good=is_good)
        needed = successes if is_good else failures
        status = HEALTHY if is_good else UNHEALTHY
        is_row = checks[:n][-needed:] == [is_good] * needed
        assert (verdict is not None) == (is_row and status is not standing)
        if verdict is not None:
            assert verdict == Verdict(status, str(n))
            standing = status


def test_what_a_check_came_to_is_said_in_words() -> None:
    assert judged(CheckResult(number=1, exit_code=0, message="ok"), 5) == (True, "ok")
    assert judged(CheckResult(number=1, exit_code=3, message="down"), 5) == (
        False,
        "the check ended with exit code 3: down",
    )
    assert judged(CheckResult(number=1, is_late=True), 2.5) == (
        False,
        "the check was not over within 2.5 s",
    )
    assert judged(CheckResult(number=1, signal=11), 5) == (False, "the check ended by signal 11")
    assert judged(CheckResult(number=1, message="the program './x' was not found"), 5) == (
        False,
        "the program './x' was not found",
    )
