"""Whether what a definition says about running by itself makes sense: retry, restart, … Pure."""

from collections.abc import Iterator

from bus.job_definition import JobSpec
from bus.model import FINAL_EXECUTION, ExecutionStatus
from handlers.catalog.problem import SECONDS_MAX, Problem, within
from handlers.catalog.toml_lines import Path


def policies(spec: JobSpec) -> Iterator[Problem]:
    """What is wrong with `[retry]`, `[restart]`, `[keep]`."""
    retry, restart = spec.retry, spec.restart
    yield from within(("retry", "attempts"), retry.attempts, 1, 1000)
    yield from within(("retry", "delay_s"), retry.delay_s, 0, SECONDS_MAX)
    yield from within(("retry", "backoff"), retry.backoff, 1, 100)
    yield from within(("retry", "delay_s_max"), retry.delay_s_max, 0, SECONDS_MAX)
    yield from within(("retry", "jitter"), retry.jitter, 0, 1)
    yield from final_states(("retry", "on"), retry.on)
    yield from within(("restart", "limit"), restart.limit, 1, 1_000_000)
    yield from within(("restart", "limit_window_s"), restart.limit_window_s, 1, SECONDS_MAX)
    yield from within(("keep", "executions"), spec.keep.executions, 0, 1_000_000)
    yield from within(("keep", "days"), spec.keep.days, 0, 36_500)


def final_states(path: Path, statuses: tuple[ExecutionStatus, ...]) -> Iterator[Problem]:
    """What of these is no state in which an execution ends."""
    for index, status in enumerate(statuses):
        if status not in FINAL_EXECUTION:
            yield Problem((*path, index), f"{status} is no final state")
