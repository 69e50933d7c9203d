"""What a service does from time to time beside its work: it tidies up after a crash, lets the past
go, notes which files are true, and holds descriptors back.
"""

import asyncio

import structlog

from bus.descriptors import DESCRIPTORS
from bus.ports import TableReader
from bus.threads import DISK
from handlers.ambiguity import believe_files, protected_before_ms
from jobbus.service.wiring import Parts

WATERMARK_S = 60.0
DESCRIPTORS_S = 10.0
TRUSTED_AGAIN_S = 600.0
"""When a clock that was not believed is looked at again."""

log = structlog.get_logger("jobbus")


class Upkeep:
    """`_projected` is the number up to which the journal says that files are true, and
    `_files_doubted` whether the last service left that open; only `_sync_projections` writes them.
    """

    def __init__(self, parts: Parts, *, files_doubted: bool) -> None:
        self._parts = parts
        self._projected = parts.recovered.projected
        self._files_doubted = files_doubted

    async def keep_tidy(self) -> None:
        """What a crash left over goes, then what is more than kept, for ever."""
        if self._files_doubted:
            self._parts.projections.doubt_past()
        since_ms = await DISK.run(protected_before_ms, self._parts.layout.journal)
        executions = _Executions(self._parts.table)
        folders = await DISK.run(self._parts.disposal.sweep, executions, since_ms)
        if folders:
            log.info("left over and removed", folders=folders)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sweep_files(since_ms), name="sweep of files")
            group.create_task(self._parts.retention.run(), name="retention looks")

    async def mark_projected(self) -> None:
        """From time to time it is on record which files need not be looked at after a crash."""
        while True:
            await asyncio.sleep(WATERMARK_S)
            await self._sync_projections()

    async def leave_files_true(self) -> bool:
        """Whether they are; on a full disk that is left to the next start."""
        if not await self._parts.projections.drain():
            return False
        await self._sync_projections()
        return True

    async def _sweep_files(self, since_ms: int) -> None:
        """Once, when the clock is believed: results of refused files go by their age alone."""
        while not self._parts.trusted.is_trusted():  # noqa: ASYNC110 - a clock wakes no task
            await asyncio.sleep(TRUSTED_AGAIN_S)
        days = self._parts.settings.keep.command_days
        files = await self._parts.projections.sweep(since_ms, days * 86_400)
        if files:
            log.info("left over and removed", files=files)

    async def _sync_projections(self) -> None:
        if self._parts.projections.seen > self._projected or self._files_doubted:
            synced = await self._parts.projections.sync()
            if synced is not None:
                self._projected = synced
                await self._parts.owner.note_projected(synced)
                await DISK.run(believe_files, self._parts.layout.journal)
                self._files_doubted = False


async def hold_descriptors() -> None:
    """What was lent is held back again, as soon as the system gives it."""
    while True:
        await asyncio.sleep(DESCRIPTORS_S)
        DESCRIPTORS.hold()


class _Executions:
    """The ids of a table's executions as they are when asked."""

    def __init__(self, table: TableReader) -> None:
        self._table = table

    def __contains__(self, execution_id: object) -> bool:
        return self._table.execution(str(execution_id)) is not None
