"""The life of a node's parts: what runs from when to when. `start` says in which order.

With `jobbus/service/wiring.py` the only place that knows all parts.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import structlog

from bus.dispatch import pump
from bus.scarcity import NO_ROOM
from bus.tasks import done_while, kept_up, started, stopped
from bus.threads import DISK
from jobbus.service.instance import InstanceFile, write_instance
from jobbus.service.settings_checks import check_address
from jobbus.service.upkeep import Upkeep, hold_descriptors
from jobbus.service.wiring import Parts

log = structlog.get_logger("jobbus")


class Life:
    """Runs the parts in `group`. Nothing but a storage failure ends it: the parts are kept up. The
    owner is not, since what it dies of leaves its table half changed, and only the journal knows
    what counts.

    Each task is in a field as long as its end is waited for by itself: `_supervisor`, `_owner`,
    `_transport`, `_projections`, `_audit`. `_others` are those that end first and together. The
    methods that begin something write them.
    """

    def __init__(self, parts: Parts, group: asyncio.TaskGroup, *, files_doubted: bool) -> None:
        self._parts = parts
        self._group = group
        self._upkeep = Upkeep(parts, files_doubted=files_doubted)
        self._others: list[asyncio.Task[None]] = []

    async def begin_programs(self) -> None:
        """Programs can be started, and asked for."""
        self._supervisor = await started(self._group, self._parts.supervisor.run, "supervisor")

    def begin_projections(self) -> None:
        """What is decided from now on is decided by the owner's task; files and audit follow."""
        parts = self._parts
        self._others += [
            self._kept(parts.catalog.run, "catalog"),
            self._kept(parts.timekeeper.run, "timekeeper"),
            self._kept(parts.scheduler.run, "schedules"),
            self._kept(parts.space.run, "room"),
            self._kept(parts.hold.watch, "hold"),
            self._kept(parts.disposal.run, "disposal"),
            self._kept(parts.job_log.run, "job log"),
        ]
        self._audit = self._kept(parts.audit.run, "audit")
        self._projections = self._kept(parts.projections.run, "projections")
        self._others.append(self._kept(self._upkeep.mark_projected, "watermark"))
        self._owner = self._group.create_task(parts.owner.run(), name="owner")

    async def begin_queue(self) -> None:
        """Commands are taken from files, and can be published."""
        parts = self._parts
        self._transport = await started(self._group, parts.transport.run, "transport")
        self._others += [
            self._kept(partial(pump, parts.transport, parts.inbox), "pump"),
            self._kept(self._upkeep.keep_tidy, "retention"),
            self._kept(hold_descriptors, "held descriptors"),
        ]

    async def open_gateway(self, listeners: Sequence[socket.socket]) -> str:
        """The gateway answers, on `listeners` if there are some; its URL, which is on record."""
        parts, serve = self._parts, self._parts.settings.serve
        for listener in listeners:
            check_address(str(listener.getsockname()[0]), serve)
        host, _, port = serve.listen.rpartition(":")
        parts.readiness.reason = None
        try:
            url = await parts.gateway.start(
                host.strip("[]"), int(port), parts.identity.tls, listeners
            )
        except OSError as error:
            why = why_not_listening(error)
            sentence = f"cannot listen on {host}:{port}: {why}; --listen names another address"
            raise OSError(sentence) from error
        await DISK.run(self._write_instance, url, os.getpid())
        return url

    async def end(self) -> None:
        """Everything has ended, in the opposite order, and the files are true."""
        parts = self._parts
        parts.readiness.reason = "stopping"
        await parts.gateway.aclose()
        await parts.transport.aclose()
        await stopped(*self._others, self._transport)
        await stopped(self._owner)
        in_order = await done_while(self._projections, self._upkeep.leave_files_true())
        await stopped(self._projections, self._supervisor, self._audit)
        await parts.audit.aclose()
        if in_order:  # else the next start takes it for a crash, and looks at everything
            await DISK.run(self._close)

    def _kept(self, run: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[None]:
        return self._group.create_task(kept_up(run, name), name=name)

    def _close(self) -> None:
        self._parts.owner.close()
        self._write_instance("", 0)

    def _write_instance(self, url: str, pid: int) -> None:
        parts = self._parts
        cert = parts.settings.serve.tls_cert
        content = InstanceFile(
            instance=parts.identity.instance,
            epoch=parts.recovered.epoch,
            url=url,
            pid=pid,
            started_at=parts.started_at,
            tls_cert=str(cert.absolute()) if cert is not None else "",
            place=parts.identity.file.place,
        )
        try:
            write_instance(parts.layout, content)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            # No reason to leave the jobs alone: it answers, and --url finds it.
            log.warning("instance.json says nothing of this start: the disk is full")


def why_not_listening(error: OSError) -> str:
    """Why an address cannot be listened on, in words for who chose it."""
    if isinstance(error, socket.gaierror):
        return "no address of that name is known"
    match error.errno:
        case errno.EADDRINUSE:
            return "another program listens there"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address"
        case errno.EACCES | errno.EPERM:
            return "this account may not use that port, or that address"
        case number:
            return os.strerror(number or 0)
