"""A supervisor on a real folder with real programs, and the reports that come of it."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import msgspec

from bus.clock import SystemClock
from bus.commands import Report, ReportEnded, ReportLost, ReportSpawnFailed
from bus.job_definition import JobSpec
from bus.layout import DataLayout
from bus.model import Execution, ExecutionStatus, ExitRecord, Reason, StopRequest
from handlers.shim.process_tree import all_marks, all_processes
from handlers.supervision.secrets import SecretValues
from handlers.supervision.supervisor import ProcessSupervisor, SupervisorSettings

WAIT_S = 30.0

ENDS = (ReportEnded, ReportLost, ReportSpawnFailed)

R = TypeVar("R")

QUICK = SupervisorSettings(look_s=0.5, shim_look_s=0.5)
WITHOUT_GROUPS = SupervisorSettings(look_s=0.5, shim_look_s=0.5, cgroups=False)


def sh(script: str, **changes: object) -> JobSpec:
    """A job that runs `script` in a shell."""
    spec = JobSpec(command=("sh", "-c", script), directory="/", stop_grace_s=5.0)
    return msgspec.structs.replace(spec, **changes)


def starting(execution_id: str | None = None) -> Execution:
    """An execution that has just taken its slot."""
    return Execution(
        id=execution_id or str(uuid4()),
        job_id="Test/Job",
        command_id=str(uuid4()),
        user_id="alice",
        status=ExecutionStatus.STARTING,
        revision="r1",
        queued_ms=SystemClock().now_ms(),
    )


def seen(execution_id: str, status: ExecutionStatus = ExecutionStatus.RUNNING) -> Execution:
    """An execution that an earlier service reported as running."""
    return msgspec.structs.replace(starting(execution_id), status=status, start_ms=1, pid=1)


def ordered_to_stop(execution: Execution, *, grace_s: float = 5.0, kill: bool = False) -> Execution:
    """The execution with a stop by a person on it."""
    order = StopRequest(
        reason=Reason.USER, by="alice", at_ms=SystemClock().now_ms(), grace_s=grace_s, kill=kill
    )
    return msgspec.structs.replace(execution, status=ExecutionStatus.STOPPING, stop=order)


class Bench:
    """Collects reports and growth; `until` waits for one."""

    def __init__(
        self, root: Path, instance: str, settings: SupervisorSettings, secrets: SecretValues | None
    ) -> None:
        self.layout = DataLayout(root)
        self.layout.output.mkdir(parents=True, exist_ok=True)
        self.reports: list[Report] = []
        self.grew: list[str] = []
        self._news = asyncio.Event()
        self.supervisor = ProcessSupervisor(
            self.layout,
            instance,
            SystemClock(),
            self._take,
            self,
            settings=settings,
            secrets=secrets,
        )

    def grown(self, execution_id: str) -> None:
        self.grew.append(execution_id)
        self._news.set()

    def _take(self, report: Report) -> None:
        self.reports.append(report)
        self._news.set()

    def of(self, kind: type[R], execution: Execution) -> list[R]:
        """The reports of that kind about the execution."""
        return [
            report
            for report in self.reports
            if isinstance(report, kind) and getattr(report, "execution_id", "") == execution.id
        ]

    async def until(self, kind: type[R], execution: Execution) -> R:
        """The first report of that kind about the execution, as soon as it is there.

        Raises:
            AssertionError: the execution ended in another way.
        """

        def settled() -> bool:
            return bool(self.of(kind, execution)) or any(self.of(end, execution) for end in ENDS)

        await self.wait_for(settled)
        found = self.of(kind, execution)
        assert found, f"instead of {kind.__name__} came {self.reports}"
        return found[0]

    async def exit_of(self, execution: Execution) -> ExitRecord:
        return (await self.until(ReportEnded, execution)).exit

    def output(self, execution: Execution) -> str:
        return self.layout.execution(execution.id).output.read_text()

    def kill_leftovers(self) -> None:
        """A failed test leaves nothing behind that could disturb the next."""
        mine = {path.name for path in self.layout.output.iterdir()}
        for pid, marks in all_marks(all_processes()).items():
            if marks.executions & mine:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Waits until `condition` holds; asked after each piece of news and now and then."""
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self._news.clear()
                try:
                    async with asyncio.timeout(0.05):
                        await self._news.wait()
                except TimeoutError:
                    continue


@asynccontextmanager
async def bench(
    root: Path,
    instance: str = "",
    settings: SupervisorSettings = QUICK,
    secrets: SecretValues | None = None,
) -> AsyncIterator[Bench]:
    """A running supervisor inside the block; its jobs go on after it."""
    made = Bench(root, instance or uuid4().hex[:12], settings, secrets)
    ready = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(made.supervisor.run(ready), name="supervisor")
        waiting = group.create_task(ready.wait(), name="ready")
        await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
        try:
            yield made
        except BaseException:
            made.kill_leftovers()
            raise
        finally:
            waiting.cancel()
            task.cancel()
