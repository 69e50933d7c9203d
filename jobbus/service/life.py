"""The life of a node: in which order its parts begin, what they do at the start, how they end.

With `jobbus/service/parts.py` the only place that knows all parts.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import structlog

from bus.commands import ApplyCatalog, PassTime, SetMaintenance
from bus.descriptors import DESCRIPTORS
from bus.dispatch import pump
from bus.model import Execution, ExecutionStatus
from bus.ports import TableReader
from bus.scarcity import NO_ROOM
from bus.tasks import done_while, kept_up, started, stopped
from bus.threads import DISK
from handlers.ambiguity import are_files_doubted, believe_files, protected_before_ms
from jobbus.service.config_checks import check_address
from jobbus.service.draining import DRAIN
from jobbus.service.instance import InstanceFile, write_instance
from jobbus.service.parts import Parts

WATERMARK_S = 60.0
DESCRIPTORS_S = 10.0
TRUSTED_AGAIN_S = 600.0
"""When a clock that was not believed is looked at again."""

log = structlog.get_logger("jobbus")


@asynccontextmanager
async def running(parts: Parts, listeners: Sequence[socket.socket] = ()) -> AsyncIterator[str]:
    """Everything runs inside the block, which gets the URL; after it everything has ended.

    It begins in the order adoption, projections, queue, gateway, and ends in the opposite one.

    Nothing but a storage failure ends it: the parts are kept up. The owner is not, since what it
    dies of leaves its table half changed, and only the journal knows what counts.
    """
    life = _Life(parts)
    async with asyncio.TaskGroup() as group:
        supervisor = await started(group, parts.supervisor.run, "supervisor")
        await life.settle_the_past()

        def kept(run: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[None]:
            return group.create_task(kept_up(run, name), name=name)

        tasks = [
            kept(parts.catalog.run, "catalog"),
            kept(parts.timekeeper.run, "timekeeper"),
            kept(parts.room.run, "room"),
            kept(parts.hold.watch, "hold"),
            kept(parts.disposal.run, "disposal"),
            kept(parts.job_log.run, "job log"),
        ]
        audit = kept(parts.audit.run, "audit")
        projections = kept(parts.projections.run, "projections")
        tasks.append(kept(life.mark_projected, "watermark"))
        owner = group.create_task(parts.owner.run(), name="owner")
        transport = await started(group, parts.transport.run, "transport")
        tasks += [
            kept(partial(pump, parts.transport, parts.inbox), "pump"),
            kept(life.keep_tidy, "retention"),
            kept(hold_descriptors, "held descriptors"),
        ]
        url = await life.open(listeners)
        try:
            yield url
        finally:
            parts.not_ready = "stopping"
            await parts.gateway.aclose()
            await parts.transport.aclose()
            await stopped(*tasks, transport)
            await stopped(owner)
            in_order = await done_while(projections, life.leave_files_true())
            await stopped(projections, supervisor, audit)
            await parts.audit.aclose()
            if in_order:  # else the next start takes it for a crash, and looks at everything
                await DISK.run(life.close)


class _Life:
    """What is done with the parts at the start, now and then, and at the end."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._projected = parts.recovered.projected
        self._files_doubted = are_files_doubted(parts.layout.journal)

    async def settle_the_past(self) -> None:
        """The catalog is in force, live executions are adopted or settled, files are true."""
        await self._parts.room.look()  # before anything is accepted
        for note in self._parts.recovered.notes:
            log.warning("journal", note=note)
        for complaint in await DISK.run(self._parts.secrets.complaints):
            log.warning("jobs with this secret cannot start", reason=complaint)
        definitions = await DISK.run(self._parts.catalog.first)
        self._parts.inbox.report(ApplyCatalog(definitions=definitions))
        table = self._parts.table
        if table.maintenance is not None and table.maintenance.by == DRAIN:
            self._parts.inbox.report(SetMaintenance(on=False, by=DRAIN))
        live = [e for e in table.live_executions() if e.status is not ExecutionStatus.QUEUED]
        poison = await DISK.run(self._parts.transport.look_back)
        specs = [(e, table.spec(e.job_id, e.revision)) for e in live]
        await self._parts.supervisor.adopt(specs, poison)
        self._parts.inbox.report(PassTime())  # a delay may have passed, a slot may be free by now
        while len(self._parts.inbox):
            await self._parts.owner.handle(await self._parts.inbox.take())
        self._repeat_stop_orders(live)
        self._parts.job_log.begun(live, definitions)
        for sentence in self._parts.notes_on_roles():
            log.warning("a role without effect", reason=sentence)
        if not self._parts.recovered.clean:
            await self._parts.projections.rewrite(self._parts.recovered.projected)

    def _repeat_stop_orders(self, live: list[Execution]) -> None:
        """An order may have been recorded and not yet passed on when the last service died."""
        for execution in live:
            now = self._parts.table.execution(execution.id)
            if now is not None and now.status is ExecutionStatus.STOPPING:
                self._parts.supervisor.stop(now)

    async def open(self, listeners: Sequence[socket.socket]) -> str:
        serve = self._parts.settings.serve
        for listener in listeners:
            check_address(str(listener.getsockname()[0]), serve)
        host, _, port = serve.listen.rpartition(":")
        self._parts.not_ready = None
        try:
            url = await self._parts.gateway.start(
                host.strip("[]"), int(port), self._parts.tls, listeners
            )
        except OSError as error:
            number = error.errno or 0  # of a name that is not found it is negative
            why = os.strerror(number) if number > 0 else error.strerror or str(error)
            sentence = f"cannot listen on {host}:{port}: {why}; --listen names another address"
            raise OSError(sentence) from error
        await DISK.run(self._write_instance, url, os.getpid())
        return url

    def _write_instance(self, url: str, pid: int) -> None:
        cert = self._parts.settings.serve.tls_cert
        content = InstanceFile(
            instance=self._parts.instance,
            epoch=self._parts.recovered.epoch,
            url=url,
            pid=pid,
            started_at=self._parts.started_at,
            tls_cert=str(cert.absolute()) if cert is not None else "",
            place=self._parts.identity.place,
        )
        try:
            write_instance(self._parts.layout, content)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            # No reason to leave the jobs alone: it answers, and --url finds it.
            log.warning("instance.json says nothing of this start: the disk is full")

    async def leave_files_true(self) -> bool:
        """Whether they are; on a full disk that is left to the next start."""
        if not await self._parts.projections.drain():
            return False
        await self._sync_projections()
        return True

    def close(self) -> None:
        self._parts.owner.close()
        self._write_instance("", 0)

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

    async def _sweep_files(self, since_ms: int) -> None:
        """Once, when the clock is believed: results of refused files go by their age alone."""
        while not self._parts.trusted.is_trusted():  # noqa: ASYNC110 - a clock wakes nobody
            await asyncio.sleep(TRUSTED_AGAIN_S)
        days = self._parts.settings.keep.command_days
        files = await self._parts.projections.sweep(since_ms, days * 86_400)
        if files:
            log.info("left over and removed", files=files)

    async def mark_projected(self) -> None:
        """From time to time it is on record which files need not be looked at after a crash."""
        while True:
            await asyncio.sleep(WATERMARK_S)
            await self._sync_projections()

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
