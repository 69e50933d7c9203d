"""The composition root: the one module that knows all parts and puts them together."""

import asyncio
import os
import resource
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import structlog

from bus.clock import Clock, SystemClock, rfc3339
from bus.commands import ApplyCatalog, SetMaintenance
from bus.config import DirectorySection, ServeSettings, Settings
from bus.dispatch import Inbox, pump
from bus.doctor.unit import look_at_unit
from bus.draining import DRAIN, Orders, orders_by_signal, until_drained
from bus.instance import (
    InstanceFile,
    admin_token,
    instance_id,
    locked_data_directory,
    secret_key,
    write_instance,
)
from bus.keeping import Keeping
from bus.layout import DataLayout
from bus.model import CommandRecord, Execution, ExecutionStatus, Maintenance
from bus.ports import Policy, TableReader
from bus.publisher import Publisher
from bus.startup import settle_in
from handlers.audit.catching_up import CatchUp
from handlers.audit.segments import AuditSegments
from handlers.audit.trail import Audit
from handlers.catalog.watch import CatalogWatch, scan
from handlers.decisions.decision import ForgetFiles
from handlers.decisions.registry import tells_secret
from handlers.decisions.remembered import as_record
from handlers.disposal import Disposal
from handlers.evidence import are_files_doubted, believe_files, protected_before_ms
from handlers.history import JournalHistory
from handlers.journal.recovery import RecoveredTable, recover
from handlers.output.store import OutputStore
from handlers.owner import Owner
from handlers.progress import ProgressCoalescer
from handlers.retention import Retention, TrustedClock, newest_ms
from handlers.room import RoomWatch, scarcest
from handlers.supervision.secrets import SecretValues
from handlers.supervision.supervisor import ProcessSupervisor
from handlers.timekeeper import Timekeeper
from transports.directory.projections import Projections
from transports.directory.queue import DirectoryTransport
from transports.directory.settings import DirectorySettings
from transports.http.app import Gateway, GatewayPorts, GatewaySettings
from transports.http.connections import connections_max
from transports.http.proxy import LOOPBACK, ProxySettings, networks
from transports.http.sessions import SessionLimits
from transports.http.tls import server_context
from transports.http.token_store import TokenStore

WATERMARK_S = 60.0

log = structlog.get_logger("jobbus")


class Node(msgspec.Struct, frozen=True):
    """A running service: where it answers and what it is made of."""

    url: str
    token: str
    layout: DataLayout
    owner: Owner
    publisher: Publisher
    gateway: Gateway
    prepare_drain: Callable[[], None]

    def sign_in_link(self) -> str:
        """Signs one browser in, once, for a short while. The code is in the fragment: no server,
        proxy or log ever sees it."""
        # A browser cannot go to the address that stands for all of them.
        here = self.url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
        return f"{here}/#code={self.gateway.sign_in_code()}"


async def serve(settings: Settings, *, drain: bool = False) -> int:
    """Runs a node until SIGTERM or SIGINT; executions go on without it, or with `drain` are waited
    for. Returns the exit code."""
    with orders_by_signal() as orders:
        return await _serve(settings, orders, drain=drain)


async def _serve(settings: Settings, orders: Orders, *, drain: bool) -> int:
    async with running_node(settings) as node:
        for finding in await asyncio.to_thread(lambda: list(look_at_unit(os.getpid()))):
            log.warning(finding.text)
        sys.stdout.write(f"jobbus ready {node.url}\n")
        sys.stdout.flush()
        sys.stderr.write(f"sign in once with {node.sign_in_link()}\n")
        sys.stderr.flush()
        settle_in()
        await orders.end.wait()
        if drain:
            node.prepare_drain()
            await until_drained(orders, node.owner)
        log.info("stopping; executions go on")
    return 0


@asynccontextmanager
async def running_node(settings: Settings, clock: Clock | None = None) -> AsyncIterator[Node]:
    """A service that accepts commands inside the block and has stopped in order after it.

    Raises:
        DataDirectoryError: the data directory cannot be used.
        StorageFailed: a sync failed; the process must end and restart from disk.
    """
    clock = clock or SystemClock()
    with locked_data_directory(
        settings.serve.data, allow_network_fs=settings.serve.allow_network_fs
    ) as layout:
        parts = await asyncio.to_thread(_Parts, settings, layout, clock)
        async with parts.running() as url:
            yield Node(
                url,
                parts.token,
                layout,
                parts.owner,
                parts.publisher,
                parts.gateway,
                parts.prepare_drain,
            )


class _Parts:
    """All parts of one node, made in the order of the start; nothing runs yet."""

    def __init__(self, settings: Settings, layout: DataLayout, clock: Clock) -> None:
        self.settings = settings
        self.layout = layout
        self.clock = clock
        self.instance = instance_id(layout)
        self.secret = secret_key(layout)
        self.token = admin_token(layout)
        self.tls = _tls(settings.serve)
        self.audit_segments = AuditSegments(layout.audit)
        self.caught_up = CatchUp(self.audit_segments.last_seq)
        self.recovered: RecoveredTable = recover(
            layout.journal, self.instance, clock, self.caught_up
        )
        self._build()

    def _build(self) -> None:
        table, feed = self.recovered.table, self.recovered.feed
        self.not_ready: str | None = "starting"
        self._draining = False
        self._projected = self.recovered.projected
        self._files_doubted = are_files_doubted(self.layout.journal)
        self.started_at = rfc3339(self.clock.now_ms())
        self.inbox = Inbox(self.clock)
        report = ProgressCoalescer(self.inbox.report)
        self.output = OutputStore(self.layout, self._is_live)
        self.secrets = SecretValues(self.settings.secrets)
        self.supervisor = ProcessSupervisor(
            self.layout, self.instance, self.clock, report, self.output, secrets=self.secrets
        )
        self.disposal = Disposal(self.layout)
        self.keeping = self.settings.keep
        self.audit = Audit(
            self.layout.audit,
            self.audit_segments,
            self.caught_up.fold,
            self.caught_up.missing,
            self.clock,
            days=self.keeping.audit_days,
        )
        names = frozenset(self.settings.secrets)
        policy = Policy(roles=self.settings.roles, secrets=names)
        self.owner = Owner(
            journal=self.recovered.journal,
            table=table,
            next_seq=self.recovered.next_seq,
            inbox=self.inbox,
            feed=feed,
            encoder=self.recovered.encoder,
            supervisor=self.supervisor,
            delete_files=self._delete_files,
            clock=self.clock,
            policy=policy,
            is_low=lambda: self.room.is_low,
            before_snapshot=self.audit.settle,
        )
        places = (self.layout.queue, self.layout.journal, self.layout.output, self.layout.status)
        self.room = RoomWatch(
            partial(scarcest, places), self._room_changed, self.owner.hold_ballast
        )
        self.transport = DirectoryTransport(
            self.layout,
            clock=self.clock,
            known=self._handled,
            secret=self.secret,
            settings=_directory_settings(self.settings.directory, self.keeping),
            refused=self.audit.refused_file,
            tells_secret=lambda envelope: tells_secret(table, envelope.command, policy),
            order_floor_ns=table.newest_stop_ns,
        )
        self.projections = Projections(self.layout, table, self.clock, self.transport.settle)
        self.timekeeper = Timekeeper(table, self.clock, self.inbox.report)
        self.retention = Retention(
            table,
            self.keeping,
            self.clock,
            TrustedClock(self.clock, newest_ms(table)),
            self.inbox.report,
            self.transport.waiting_since_ms,
            self.transport.forget_rejects,
        )
        self.owner.listen(self.audit)
        self.owner.listen(self.retention)
        self.owner.listen(self.projections)
        self.owner.listen(self.timekeeper)
        self.catalog = CatalogWatch(self.settings.serve.apps, self.inbox.report, self.clock)
        self.publisher = Publisher(self.transport, self.owner, table, self.audit.refused)
        self.gateway = Gateway(
            GatewayPorts(
                table=table,
                door=self.publisher,
                waiter=self.owner,
                feed=feed,
                history=JournalHistory(self.layout.journal, self.recovered.encoder),
                output=self.output,
                clock=self.clock,
                instance=self.instance,
                secret=self.secret,
                roles=self.settings.roles,
                tokens=TokenStore.load(self.layout, self.token, self.clock),
                system=self._system,
                maintain=self.owner.order,
                ready=lambda: self.not_ready,
                sessions_file=self.layout.sessions,
                audit=self.audit,
            ),
            _gateway_settings(self.settings),
        )
        self.owner.listen(self.gateway.metrics)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Everything runs inside the block, in the order lock, journal, adoption, projections,
        queue, gateway; after it everything has ended in the opposite order."""
        async with asyncio.TaskGroup() as group:
            supervisor = await _started(group, self.supervisor.run, "supervisor")
            await self._settle_the_past()
            tasks = [
                group.create_task(self.catalog.run(), name="catalog"),
                group.create_task(self.timekeeper.run(), name="timekeeper"),
                group.create_task(self.room.run(), name="room"),
                group.create_task(self.disposal.run(), name="disposal"),
            ]
            audit = group.create_task(self.audit.run(), name="audit")
            projections = group.create_task(self.projections.run(), name="projections")
            tasks.append(group.create_task(self._mark_projected(), name="watermark"))
            owner = group.create_task(self.owner.run(), name="owner")
            transport = await _started(group, self.transport.run, "transport")
            tasks += [
                group.create_task(pump(self.transport, self.inbox), name="pump"),
                group.create_task(self._keep_tidy(), name="retention"),
            ]
            url = await self._open()
            try:
                yield url
            finally:
                self.not_ready = "stopping"
                await self.gateway.aclose()
                await self.transport.aclose()
                await _stopped(*tasks, transport)
                await _stopped(owner)
                in_order = await _done_while(projections, self._leave_files_true())
                await _stopped(projections, supervisor, audit)
                await self.audit.aclose()
                if in_order:  # else the next start takes it for a crash, and looks at everything
                    await asyncio.to_thread(self._close)

    async def _settle_the_past(self) -> None:
        """The catalog is in force, live executions are adopted or settled, files are true."""
        for note in self.recovered.notes:
            log.warning("journal", note=note)
        for complaint in await asyncio.to_thread(self.secrets.complaints):
            log.warning("jobs with this secret cannot start", reason=complaint)
        definitions = await asyncio.to_thread(scan, self.settings.serve.apps)
        self.inbox.report(ApplyCatalog(definitions=definitions))
        table = self.recovered.table
        if table.maintenance is not None and table.maintenance.by == DRAIN:
            self.inbox.report(SetMaintenance(on=False, by=DRAIN))
        live = [e for e in table.live_executions() if e.status is not ExecutionStatus.QUEUED]
        await self.supervisor.adopt([(e, table.spec(e.job_id, e.revision)) for e in live])
        while len(self.inbox):
            await self.owner.handle(await self.inbox.take())
        self._repeat_stop_orders(live)
        if not self.recovered.clean:
            await self.projections.rewrite(self.recovered.projected)

    def _repeat_stop_orders(self, live: list[Execution]) -> None:
        """An order may have been recorded and not yet passed on when the last service died."""
        for execution in live:
            now = self.recovered.table.execution(execution.id)
            if now is not None and now.status is ExecutionStatus.STOPPING:
                self.supervisor.stop(now)

    async def _open(self) -> str:
        host, _, port = self.settings.serve.listen.rpartition(":")
        self.not_ready = None
        url = await self.gateway.start(host.strip("[]"), int(port), self.tls)
        await asyncio.to_thread(self._write_instance, url, os.getpid())
        return url

    def _write_instance(self, url: str, pid: int) -> None:
        content = InstanceFile(
            instance=self.instance,
            epoch=self.recovered.epoch,
            url=url,
            pid=pid,
            started_at=self.started_at,
            tls_cert=_absolute(self.settings.serve.tls_cert),
        )
        write_instance(self.layout, content)

    async def _leave_files_true(self) -> None:
        await self.projections.drain()
        await self._sync_projections()

    def _close(self) -> None:
        self.owner.close()
        self._write_instance("", 0)

    async def _keep_tidy(self) -> None:
        """What a crash left over goes, then what is more than kept, for ever."""
        if self._files_doubted:
            self.projections.doubt_past()
        since_ms = await asyncio.to_thread(protected_before_ms, self.layout.journal)
        executions = _Executions(self.recovered.table)
        folders = await asyncio.to_thread(self.disposal.sweep, executions, since_ms)
        files = await self.projections.sweep(since_ms, self.keeping.command_days * 86_400)
        if folders or files:
            log.info("left over and removed", folders=folders, files=files)
        await self.retention.run()

    async def _mark_projected(self) -> None:
        """From time to time it is on record which files need not be looked at after a crash."""
        while True:
            await asyncio.sleep(WATERMARK_S)
            await self._sync_projections()

    async def _sync_projections(self) -> None:
        if self.projections.seen > self._projected or self._files_doubted:
            synced = await self.projections.sync()
            if synced is not None:
                self._projected = synced
                await self.owner.note_projected(synced)
                await asyncio.to_thread(believe_files, self.layout.journal)
                self._files_doubted = False

    def prepare_drain(self) -> None:
        """Who asks is sent elsewhere; files of others wait for the next start."""
        self.not_ready = "draining: waiting for what runs"
        self._draining = True
        self.transport.hold_strangers(True)

    def _room_changed(self, is_low: bool) -> None:
        self.transport.hold_strangers(is_low or self._draining)

    def _delete_files(self, gone: ForgetFiles) -> None:
        self.disposal(gone.execution_ids)
        self.projections.forget(gone.execution_ids, gone.command_ids, gone.spellings)

    def _handled(self, command_id: str) -> CommandRecord | None:
        """The record of a command, or what stands for it once it is forgotten."""
        table = self.recovered.table
        record = table.command(command_id)
        if record is None and (forgotten := table.forgotten(command_id)) is not None:
            return as_record(forgotten)
        return record

    def _is_live(self, execution_id: str) -> bool:
        execution = self.recovered.table.execution(execution_id)
        return execution is not None and not execution.is_final

    def _space(self) -> dict[str, object] | None:
        space = self.room.space
        if space is None:
            return None
        return {
            "bytesFree": space.bytes_free,
            "inodesFree": space.inodes_free,
            "low": space.is_low,
        }

    def _system(self) -> dict[str, object]:
        return {
            "instance": self.instance,
            "epoch": self.recovered.epoch,
            "startedAt": self.started_at,
            "pid": os.getpid(),
            "data": str(self.layout.root),
            "apps": str(self.settings.serve.apps),
            "queue": {
                "waiting": self.transport.waiting,
                "oldestAgeS": round(self.transport.oldest_age_s, 3),
                "inbox": len(self.inbox),
            },
            "notes": list(self.recovered.notes),
            "maintenance": maintenance_view(self.recovered.table.maintenance),
            "space": self._space(),
        }


def _tls(serve: ServeSettings) -> ssl.SSLContext | None:
    if serve.tls_cert is None or serve.tls_key is None:
        return None
    return server_context(serve.tls_cert, serve.tls_key)


def _absolute(path: Path | None) -> str:
    return str(path.absolute()) if path is not None else ""


def _gateway_settings(settings: Settings) -> GatewaySettings:
    serve, limits, proxy = settings.serve, settings.limits, settings.proxy
    return GatewaySettings(
        hosts=serve.hosts,
        origins=serve.origins,
        proxy=ProxySettings(
            trusted=networks(proxy.trusted or LOOPBACK),
            user_header=proxy.user_header,
            roles_header=proxy.roles_header,
            default_roles=proxy.default_roles,
        )
        if serve.behind_proxy
        else None,
        sessions=SessionLimits(
            idle_ms=int(limits.session_idle_s * 1000),
            age_ms=int(limits.session_age_s * 1000),
            most=limits.sessions,
        ),
        connections_max=connections_max(
            resource.getrlimit(resource.RLIMIT_NOFILE)[0], limits.streams
        ),
        streams_max=limits.streams,
        streams_per_principal=limits.streams_per_principal,
        posts_per_s=limits.posts_per_s,
        post_burst=limits.post_burst,
        waits_max=limits.waits,
        waits_per_principal=limits.waits_per_principal,
    )


class _Executions:
    """The ids of a table's executions as they are when asked."""

    def __init__(self, table: TableReader) -> None:
        self._table = table

    def __contains__(self, execution_id: object) -> bool:
        return self._table.execution(str(execution_id)) is not None


def maintenance_view(maintenance: Maintenance | None) -> dict[str, str] | None:
    if maintenance is None:
        return None
    since = rfc3339(maintenance.since_ms)
    return {"reason": maintenance.reason, "by": maintenance.by, "since": since}


def _directory_settings(section: DirectorySection, keeping: Keeping) -> DirectorySettings:
    return DirectorySettings(
        rejects_max=keeping.rejects,
        rejects_bytes_max=keeping.reject_bytes,
        admin=section.admin,
        default_roles=section.default_roles,
        uid_roles=section.uid_roles,
    )


async def _started(
    group: asyncio.TaskGroup, run: Callable[[asyncio.Event], Coroutine[Any, Any, None]], name: str
) -> asyncio.Task[None]:
    """The part runs and has said that it is ready."""
    ready = asyncio.Event()
    task = group.create_task(run(ready), name=name)
    waiting = asyncio.ensure_future(ready.wait())
    done, _ = await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    if waiting not in done:
        waiting.cancel()
        task.result()  # it died before it was ready: raise what killed it
    return task


async def _stopped(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


async def _done_while(needed: asyncio.Task[None], work: Coroutine[Any, Any, None]) -> bool:
    """The work is done; or it cannot be, for the task that it needs has ended."""
    task = asyncio.create_task(work, name="the last files")
    await asyncio.wait((task, needed), return_when=asyncio.FIRST_COMPLETED)
    if needed.done():
        await _stopped(task)
        return False
    task.result()
    return True
