"""Whether what a definition says about running by itself makes sense: retry, schedule, … Pure."""

from collections.abc import Iterator

from bus.errors import Refused
from bus.job_definition import JobSpec
from bus.model import FINAL_EXECUTION, ExecutionStatus
from handlers.catalog.problem import SECONDS_MAX, Problem, within
from handlers.catalog.toml_lines import Path
from handlers.catalog.variable_checks import variables
from handlers.catalog.variables import resolve_variables


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


def schedules(spec: JobSpec) -> Iterator[Problem]:
    """What is wrong with `[[schedule]]`; the cron text itself is left to the scheduler."""
    variables_are_sound = not any(variables(spec))
    for index, schedule in enumerate(spec.schedule):
        path: Path = ("schedule", index)
        if not schedule.cron.strip():
            yield Problem((*path, "cron"), 'cron is empty; e.g. "0 3 * * *" is daily at three')
        if not schedule.zone.strip():
            yield Problem((*path, "zone"), 'zone is empty; e.g. "UTC" or "Europe/Berlin"')
        yield from within((*path, "jitter_s"), schedule.jitter_s, 0, SECONDS_MAX)
        for key, words in (("dst_gap", ("run", "skip")), ("dst_fold", ("once", "twice"))):
            if getattr(schedule, key) not in words:
                yield Problem((*path, key), f'{key} must be "{words[0]}" or "{words[1]}"')
        if not variables_are_sound:
            continue
        try:
            resolve_variables(spec, schedule.variables)
        except Refused as exc:
            yield Problem((*path, "variables"), exc.message, (("variables",),))
