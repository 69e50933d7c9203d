"""Checks whether running programs are well: by a URL, or by a command that their shim runs.

The counting is `health_count`'s; here is when a check is due and who makes it. A service that
begins goes on with what is on record. Nothing waits for a check but the next one.
"""

import asyncio
import secrets
from collections.abc import Callable
from functools import partial

import msgspec

from bus.clock import Clock
from bus.health import HealthSpec, HealthStatus
from bus.tasks import kept_up
from bus.visible_text import visible
from handlers.catalog.probe_targets import HttpTarget
from handlers.supervision.connections import Connections, NoAnswer, NotAsked
from handlers.supervision.health_count import HealthCount, Verdict
from handlers.supervision.record import CheckResult

CHECKS_A_S = 100
"""Of all programs together: with more of them their checks come less often."""

NUMBER_BITS = 48

LATE_S = 5.0
"""So much later than the time of a check its shim should have said what came of it."""


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """A program to be checked. `target` is None where its shim runs a command. `status` is what is
    known of it; it is ready since `ready_ms`."""

    spec: HealthSpec
    target: HttpTarget | None
    status: HealthStatus | None
    ready_ms: int


class Checking:
    """One program that is checked. `answer` is what the check under way waits for, `number` which
    one that is."""

    def __init__(self, checked: Checked, first_number: int) -> None:
        self.checked = checked
        self.count = HealthCount(checked.spec, checked.status)
        self.number = first_number
        self.answer: asyncio.Future[CheckResult] | None = None
        self.task: asyncio.Task[None] | None = None


class HealthChecks:
    """Calls `found(execution_id, verdict)` while `run` runs.

    `ask(execution_id, number)` has the shim of that execution make a check; `answered` is called
    with what came of it. `_checking` has each program: `watch` adds it, `discard` takes it out.
    `_group` is that of `run`, in which the tasks are made; None while it does not run.
    """

    def __init__(
        self,
        clock: Clock,
        connections: Connections,
        ask: Callable[[str, int], None],
        found: Callable[[str, Verdict], None],
    ) -> None:
        self._clock = clock
        self._connections = connections
        self._ask = ask
        self._found = found
        self._checking: dict[str, Checking] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Ends on cancellation."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for execution_id in self._checking:
                    self._begin(execution_id)
                await asyncio.Event().wait()
        finally:
            self._group = None

    def watch(self, execution_id: str, checked: Checked) -> None:
        """The program of this execution is ready, and is checked until `discard`."""
        self.discard(execution_id)
        # By chance, since what an earlier service has asked for is not known: its answers, which
        # are repeated with all that a shim says, are not meant for this one.
        self._checking[execution_id] = Checking(checked, secrets.randbits(NUMBER_BITS))
        self._begin(execution_id)

    def answered(self, execution_id: str, result: CheckResult) -> None:
        """The shim has made a check."""
        checking = self._checking.get(execution_id)
        if checking is not None and checking.number == result.number:
            answer, checking.answer = checking.answer, None
            if answer is not None and not answer.done():
                answer.set_result(result)

    def discard(self, execution_id: str) -> None:
        """Whether it is well is not of interest any more."""
        checking = self._checking.pop(execution_id, None)
        if checking is not None and checking.task is not None:
            checking.task.cancel()

    def _begin(self, execution_id: str) -> None:
        if self._group is not None:
            checking = self._checking[execution_id]
            name = f"health of {execution_id}"
            check = partial(self._check_on, execution_id, checking)
            checking.task = self._group.create_task(kept_up(check, name), name=name)

    async def _check_on(self, execution_id: str, checking: Checking) -> None:
        spec = checking.checked.spec
        await asyncio.sleep(self._first_pause_s(checking.checked))
        while True:
            checking.number += 1
            found = await self._check(execution_id, checking)
            if found is not None:
                is_good, message = found
                verdict = checking.count.take(message, is_good=is_good)
                if verdict is not None:
                    self._found(execution_id, verdict)
            await asyncio.sleep(max(spec.every_s, len(self._checking) / CHECKS_A_S))

    def _first_pause_s(self, checked: Checked) -> float:
        """After `start_after_s`; where a service adopts many programs, one after the other."""
        start_after_s = checked.spec.start_after_s
        passed_s = max(0.0, (self._clock.now_ms() - checked.ready_ms) / 1000)
        return max(0.0, start_after_s - passed_s) + len(self._checking) / CHECKS_A_S

    async def _check(self, execution_id: str, checking: Checking) -> tuple[bool, str] | None:
        """Whether the check was good, and what it said; None if it was not made."""
        spec, target = checking.checked.spec, checking.checked.target
        if target is not None:
            try:
                return True, await self._connections.ask(target, spec.timeout_s)
            except NotAsked:
                return None
            except NoAnswer as no:
                return False, str(no)
        checking.answer = answer = asyncio.get_running_loop().create_future()
        self._ask(execution_id, checking.number)
        try:
            async with asyncio.timeout(spec.timeout_s + LATE_S):
                return judged(await answer, spec.timeout_s)
        except TimeoutError:
            return None  # lost on its way, or the shim is stopped: it says nothing of the program


def judged(result: CheckResult, timeout_s: float) -> tuple[bool, str]:
    """Whether the check was good, and what people are to read of it."""
    said = visible(result.message)
    if result.is_late:
        what = f"the check was not over within {timeout_s:g} s"
    elif result.signal is not None:
        what = f"the check ended by signal {result.signal}"
    elif result.exit_code is None:
        return False, said
    elif result.exit_code == 0:
        return True, said
    else:
        what = f"the check ended with exit code {result.exit_code}"
    return False, f"{what}: {said}" if said else what
