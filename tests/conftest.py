"""What holds for every test, and what is reported at the end of a run.

No test leaves an asyncio task behind. What sweeps tried is reported once, from all workers.
"""

import asyncio
import inspect
import logging
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, MutableMapping
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.tally import Tally

# How fast examples come is a fact about a busy machine, not about what is tested.
QUICK = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", QUICK)
settings.register_profile("thorough", QUICK, max_examples=2000)
settings.load_profile("quick")

# Who runs the tests in the background of a script has them ignore Ctrl-C, and with them all
# programs that they start and interrupt.
for number in (signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler)

TRIED = "tried"

GRACE_S = 2.0
"""For tasks that were asked to end and have not had their turn yet: aiohttp's server has such."""


@pytest.fixture
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Set up first and torn down last, when the fixtures of the test have ended what they began."""
    yield
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=GRACE_S)
    assert not left, "\n".join(f"left running: {task!r}" for task in left)


@pytest.fixture(autouse=True)
def logs_go_to_pytest() -> None:
    """`caplog` sees what is logged, until a test configures the logs as a service does."""
    structlog.configure(
        processors=[structlog.stdlib.PositionalArgumentsFormatter(), _for_logging],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _for_logging(
    _logger: object, _method: str, entry: MutableMapping[str, Any]
) -> tuple[tuple[str], dict[str, Any]]:
    text, trace = entry.pop("event"), entry.pop("exc_info", None)
    return (f"{text} {dict(entry)}" if entry else str(text),), {"exc_info": trace}


@pytest.fixture
def defects_expected() -> None:
    """The test makes a part of the service break."""


@pytest.fixture(autouse=True)
def no_defects(request: pytest.FixtureRequest) -> Iterator[None]:
    """Parts that break are begun again, so that all jobs are not left alone: here that fails."""
    found: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("jobbus.tasks")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)
    assert not found or "defects_expected" in request.fixturenames, "\n".join(found)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function):
            item.fixturenames.insert(0, "no_leaked_tasks")


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """What a sweep counts into; what is in it is reported even if the test fails."""
    found = Tally()
    yield found
    # The report of the teardown takes it along, from a worker of xdist too.
    request.node.user_properties.append((TRIED, found.lines()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [each for found in terminalreporter.stats.values() for each in found]
    tried_by_kind = _tried_of(each for each in reports if getattr(each, "when", "") == "teardown")
    if not tried_by_kind:
        return
    terminalreporter.section("tried")
    for kind, parts in sorted(tried_by_kind.items()):
        tried, wrong = map(sum, zip(*parts.values(), strict=True))
        terminalreporter.line(f"{kind}: {tried}, violations: {wrong}", bold=True, red=wrong > 0)
        for of, (count, broken) in sorted(parts.items()):
            terminalreporter.line(f"  {count:>8} {of}" + (f", violations: {broken}" * (broken > 0)))


def _tried_of(reports: Iterable[Any]) -> dict[str, dict[str, tuple[int, int]]]:
    """By kind and part: how many were tried, and with how many something was wrong."""
    tried_by_kind: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    for report in reports:
        lines = [line for name, found in report.user_properties if name == TRIED for line in found]
        for kind, of, tried, wrong in lines:
            before = tried_by_kind[kind].get(of, (0, 0))
            tried_by_kind[kind][of] = (before[0] + tried, before[1] + wrong)
    return tried_by_kind
