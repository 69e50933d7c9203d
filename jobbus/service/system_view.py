"""What `GET /system` says about the service, and whether it is ready. No IO."""

import os

from bus.clock import rfc3339
from bus.dispatch import Inbox
from bus.layout import DataLayout
from bus.model import Maintenance
from bus.polling import FolderPolling
from bus.schedules import ClockDoubt
from handlers.decisions.table import JobTable
from handlers.disk_space import SpaceWatch
from handlers.journal.recovery import RecoveredTable
from handlers.schedule.service_zone import ZoneData
from handlers.supervision.supervisor import ProcessSupervisor
from jobbus.service.settings import Settings
from transports.directory.transport import DirectoryTransport


class Readiness:
    """`reason` is why the service takes no commands, None once it does; `Life` and the drain write
    it."""

    def __init__(self, supervisor: ProcessSupervisor) -> None:
        self.reason: str | None = "starting"
        self._supervisor = supervisor

    def why_not(self) -> str | None:
        """Why commands cannot be carried out now; None if they can."""
        return self.reason or self._supervisor.trouble


class SystemView:
    """Puts the answer together from those who know its parts; keeps nothing else."""

    def __init__(
        self,
        settings: Settings,
        layout: DataLayout,
        instance: str,
        started_at: str,
        recovered: RecoveredTable,
        transport: DirectoryTransport,
        inbox: Inbox,
        table: JobTable,
        space: SpaceWatch,
        polled: tuple[FolderPolling, ...],
        zones: ZoneData,
    ) -> None:
        self._apps = settings.serve.apps
        self._layout = layout
        self._instance = instance
        self._started_at = started_at
        self._recovered = recovered
        self._transport = transport
        self._inbox = inbox
        self._table = table
        self._space = space
        self._polled = polled
        self._zones = zones

    def __call__(self) -> dict[str, object]:
        return {
            "instance": self._instance,
            "epoch": self._recovered.epoch,
            "startedAt": self._started_at,
            "pid": os.getpid(),
            "data": str(self._layout.root),
            "apps": str(self._apps),
            "queue": {
                "waiting": self._transport.waiting,
                "oldestAgeS": round(self._transport.oldest_age_s, 3),
                "inbox": len(self._inbox),
            },
            # The folders that are looked at all the time, and why.
            "unannounced": [folder.why for folder in self._polled if folder.why is not None],
            "notes": list(self._recovered.notes),
            "maintenance": _maintenance(self._table.maintenance),
            "clock": _clock(self._table.doubt),
            "tzdata": self._zones.version,
            "tzdataFrom": self._zones.source,
            "space": self._space_left(),
        }

    def _space_left(self) -> dict[str, object] | None:
        space = self._space.space
        if space is None:
            return None
        return {
            "bytesFree": space.bytes_free,
            "inodesFree": space.inodes_free,
            "low": space.is_low,
        }


def _clock(doubt: ClockDoubt | None) -> dict[str, object]:
    """Whether the wall clock is believed; while it is not, nothing is started by schedule."""
    if doubt is None:
        return {"believed": True}
    last = rfc3339(doubt.believed_ms) if doubt.believed_ms is not None else None
    return {"believed": False, "shown": rfc3339(doubt.shown_ms), "lastBelieved": last}


def _maintenance(maintenance: Maintenance | None) -> dict[str, str] | None:
    if maintenance is None:
        return None
    since = rfc3339(maintenance.since_ms)
    return {"reason": maintenance.reason, "by": maintenance.by, "since": since}
