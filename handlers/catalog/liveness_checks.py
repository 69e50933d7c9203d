"""Whether what a definition says of readiness and health makes sense. Pure."""

import re
from collections.abc import Callable, Iterator

from bus.job_definition import JobSpec
from bus.model import Value
from bus.wording import quoted
from handlers.catalog.command_checks import program_call
from handlers.catalog.probe_targets import (
    NoTarget,
    health_target,
    ready_target,
    samples,
    unfit_references,
    url_of_ready,
)
from handlers.catalog.problem import SECONDS_MAX, Problem, expression, shown, within
from handlers.catalog.toml_lines import Path
from handlers.output.line_search import LINE_MAX

_WAYS = '"spawn", "notify", "after_s:N", "tcp:PORT", "http:URL" or "output:REGEX"'


def ready(spec: JobSpec) -> Iterator[Problem]:
    """What is wrong with `ready`."""
    path = ("ready",)
    kind, colon, rest = spec.ready.partition(":")
    match kind:
        case "spawn" | "notify" if not colon:
            return
        case "after_s" if colon:
            if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", rest):
                yield Problem(path, f'ready = "after_s:N" needs seconds, not {quoted(rest)}')
            elif 0 < spec.start_timeout_s <= float(rest):
                yield Problem(
                    path,
                    f'ready = "after_s:{rest}" comes too late: start_timeout_s ends the program '
                    f"after {spec.start_timeout_s:g} s",
                    (("start_timeout_s",),),
                )
        case "tcp" if colon:
            yield from _connected(spec, path, rest, ready_target)
        case "http" | "https" if colon:
            yield from _connected(spec, path, url_of_ready(spec.ready), ready_target)
        case "output" if colon:
            yield from expression(path, rest, LINE_MAX)
        case _:
            yield Problem(path, f"ready must be {_WAYS}, not {quoted(spec.ready)}")


def health(spec: JobSpec) -> Iterator[Problem]:
    """What is wrong with `[health]`."""
    checked = spec.health
    if checked is None:
        return
    if bool(checked.command) is bool(checked.url):
        word = "both" if checked.url else "neither"
        reason = f"health needs a command or a url, and has {word}"
        yield Problem(("health",), reason, (("health", "command"), ("health", "url")))
    elif checked.command:
        yield from program_call(spec, ("health", "command"), checked.command)
    else:
        yield from _connected(spec, ("health", "url"), checked.url, _health_url)
    yield from within(("health", "every_s"), checked.every_s, 0.1, SECONDS_MAX)
    yield from within(("health", "timeout_s"), checked.timeout_s, 0.1, 3600)
    yield from within(("health", "failures"), checked.failures, 1, 1000)
    yield from within(("health", "successes"), checked.successes, 1, 1000)
    yield from within(("health", "start_after_s"), checked.start_after_s, 0, SECONDS_MAX)


def _health_url(spec: JobSpec, values: dict[str, Value]) -> object:
    assert spec.health is not None
    return health_target(spec.health, values)


def _connected(
    spec: JobSpec, path: Path, text: str, target: Callable[[JobSpec, dict[str, Value]], object]
) -> Iterator[Problem]:
    """What is wrong with a text that says what is connected to, with any values it may get."""
    unfit = list(unfit_references(spec, path, text))
    yield from unfit
    if unfit:
        return
    for values in samples(spec, text):
        try:
            target(spec, values)
        except NoTarget as wrong:
            rests_on = tuple(("variables", name) for name in values)
            yield Problem(path, f"{shown(path)} {wrong}", rests_on)
            return
