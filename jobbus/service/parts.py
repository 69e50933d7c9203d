"""What a node is made of, and the threads between its parts. Nothing runs yet.

With `jobbus/service/life.py` the only place that knows all parts.
"""

import math
import os
from collections.abc import Iterable
from itertools import chain

from bus.clock import Clock, rfc3339
from bus.commands import PassTime
from bus.dispatch import Inbox
from bus.layout import DataLayout
from bus.model import CommandRecord, Execution, Maintenance
from bus.ports import Policy, TableReader
from bus.publisher import Publisher
from bus.reserve import Reserve
from bus.threads import DISK
from handlers.ambiguity import has_trace
from handlers.audit.resume_point import CatchUp
from handlers.audit.segments import AuditSegments
from handlers.audit.trail import Audit
from handlers.catalog.watch import CatalogWatch
from handlers.decisions.decision import DeleteFiles
from handlers.decisions.refusals import reveals_secret
from handlers.decisions.remembered import as_record
from handlers.disk_space import SpaceWatch, scarcest
from handlers.disposal import Disposal
from handlers.history import JournalHistory
from handlers.journal.identity import is_copied
from handlers.journal.recovery import RecoveredTable, recover
from handlers.output.store import OutputStore
from handlers.owner import Owner
from handlers.progress_coalescer import ProgressCoalescer
from handlers.retention import Retention, TrustedClock, last_ms
from handlers.supervision.request import ProgramDefaults
from handlers.supervision.secrets import SecretValues
from handlers.supervision.supervisor import ProcessSupervisor
from handlers.timekeeper import Timekeeper
from jobbus.service.hold import Hold
from jobbus.service.instance import own_identity, secret_key
from jobbus.service.job_log import JobLog
from jobbus.service.role_words import notes_on_words
from jobbus.service.settings import Settings
from jobbus.service.transport_settings import directory_settings, gateway_settings, tls_of
from transports.directory.projections import Projections
from transports.directory.recovery import records_in_files
from transports.directory.transport import DirectoryTransport
from transports.http.access.admin_token import admin_token
from transports.http.access.token_store import TokenStore
from transports.http.app import Gateway
from transports.http.ports import GatewayPorts


class Parts:
    """All parts of one node, made in the order in which they need one another.

    Each `_make_…` builds what stands together; what is made later is reached by a method here.
    """

    def __init__(self, settings: Settings, hold: Hold, clock: Clock) -> None:
        self.settings = settings
        self.hold = hold
        self.layout = hold.layout
        self.clock = clock
        self.not_ready: str | None = "starting"
        self.started_at = rfc3339(clock.now_ms())
        self._draining = False
        self.policy = policy_of(settings)
        self._make_past()
        self._make_running()
        self._make_deciding()
        self._make_directory()
        self._make_tidying()
        self._make_gateway()
        for listener in (
            self.audit,
            self.retention,
            self.projections,
            self.timekeeper,
            self.gateway.metrics,
            self.job_log,
        ):
            self.owner.listen(listener)

    def _make_past(self) -> None:
        """Who this instance is, and what its journal and its audit tell."""
        self.reserve = Reserve(self.layout)
        self.reserve.hold()  # before anything is written that a full disk must not refuse
        self.identity = own_identity(self.layout, is_copied=is_copied(self.layout.journal))
        self.instance = self.identity.instance
        self.secret = secret_key(self.layout)
        self.token = admin_token(self.layout)
        self.tls = tls_of(self.settings.serve)
        segments = AuditSegments(self.layout.audit)
        caught_up = CatchUp(segments.resume_point)
        self.recovered: RecoveredTable = recover(
            self.layout.journal,
            self.instance,
            self.clock,
            caught_up,
            _Traces(self.layout),
            is_copy=bool(self.identity.copy_of),
        )
        self.table = self.recovered.table
        self.trusted = TrustedClock(self.clock, last_ms(self.table))
        self.audit = Audit(
            self.layout.audit,
            segments,
            caught_up.fold,
            caught_up.missing,
            self.clock,
            days=self.settings.keep.audit_days,
            is_trusted=self.trusted.is_trusted,
        )

    def _make_running(self) -> None:
        """The programs and what they print."""
        self.inbox = Inbox(self.clock)
        self.output = OutputStore(self.layout, self._is_live, self._output_end)
        self.secrets = SecretValues(self.settings.secrets)
        report = ProgressCoalescer(self.inbox.report)
        self.supervisor = ProcessSupervisor(
            self.layout,
            self.instance,
            self.clock,
            report,
            self.output,
            secrets=self.secrets,
            is_copy=bool(self.identity.copy_of),
            look_s_max=self._look_s_max,
            in_hand=lambda command_ids: self.transport.in_hand(command_ids),
        )
        self.supervisor.go_by(programs_of(self.settings))

    def _make_deciding(self) -> None:
        """The owner, and what reports to it of itself."""
        self.owner = Owner(
            journal=self.recovered.journal,
            table=self.table,
            next_seq=self.recovered.next_seq,
            inbox=self.inbox,
            feed=self.recovered.feed,
            encoder=self.recovered.encoder,
            supervisor=self.supervisor,
            delete_files=self._delete_files,
            clock=self.clock,
            policy=self.policy,
            is_low=lambda: self.room.is_low,
            undecided=lambda command_id: self.publisher.undecided(command_id),
            before_snapshot=self.audit.settle,
            in_hand=lambda command_ids: self.transport.in_hand(command_ids),
            before_append=self.hold.end_if_lost,
        )
        self.catalog = CatalogWatch(
            self.settings.serve.apps,
            self.inbox.report,
            self.settings.directory.look_ms / 1000,
        )
        self.timekeeper = Timekeeper(
            self.table, self.clock, self.inbox.report, lambda: self.room.is_low
        )

    def _make_directory(self) -> None:
        """The durable road in, and the files that tell what came of it."""
        self.transport = DirectoryTransport(
            self.layout,
            clock=self.clock,
            known=self._handled,
            secret=self.secret,
            settings=directory_settings(self.settings.directory, self.settings.keep),
            refused=self.audit.refused_file,
            holds_secret=lambda envelope: reveals_secret(self.table, envelope.command, self.policy),
            order_floor_ns=self.table.newest_stop_ns,
            before_answer=self.hold.end_if_lost,
            poisoned=lambda envelope: self.inbox.put([envelope]),
            changes_others=self.owner.checks.changes_others,
        )
        transport = self.transport
        self.projections = Projections(
            self.layout, self.table, self.clock, transport.settle, transport.settle_own
        )

    def _make_tidying(self) -> None:
        """What watches the room on the disk, and what makes some."""
        layout = self.layout
        places = (layout.queue, layout.journal, layout.output, layout.status)
        ballast = self.recovered.journal.ballast
        self.room = SpaceWatch(
            lambda: (scarcest(places), ballast.is_held and self.reserve.is_held),
            self._room_changed,
            self._hold_reserve,
        )
        self.disposal = Disposal(layout)
        self.job_log = JobLog(self.table, self.clock)
        self.retention = Retention(
            self.table,
            self.settings.keep,
            self.clock,
            self.trusted,
            self.inbox.report,
            self.transport.waiting_since_ms,
            self.transport.forget_rejects,
        )

    def _make_gateway(self) -> None:
        self.tokens = TokenStore.load(self.layout, self.token, self.clock)
        self.publisher = Publisher(
            self.transport, self.owner.checks, self.table, self.audit.refused
        )
        self.gateway = Gateway(
            GatewayPorts(
                table=self.table,
                publisher=self.publisher,
                waiter=self.owner,
                feed=self.recovered.feed,
                history=JournalHistory(self.layout.journal, self.recovered.encoder),
                output=self.output,
                clock=self.clock,
                instance=self.instance,
                secret=self.secret,
                roles=self.settings.roles,
                tokens=self.tokens,
                system=self._system,
                maintain=self.owner.order,
                ready=lambda: self.not_ready or self.supervisor.trouble,
                sessions_file=self.layout.sessions,
                audit=self.audit,
            ),
            gateway_settings(self.settings),
        )

    def take(self, settings: Settings) -> None:
        """These settings are in force, in one step: the parts keep what they hold and change what
        they go by. What only a start can change is as before, see `config_changes`."""
        self.settings = settings
        self.policy = policy_of(settings)
        self.owner.checks.go_by(self.policy)
        self.secrets.go_by(settings.secrets)
        self.supervisor.go_by(programs_of(settings))
        self.transport.go_by(directory_settings(settings.directory, settings.keep))
        self.catalog.polling.often_s = settings.directory.look_ms / 1000
        self.retention.go_by(settings.keep)
        self.audit.keep_days(settings.keep.audit_days)
        self.gateway.go_by(gateway_settings(settings), settings.roles)

    def notes_on_roles(self) -> tuple[str, ...]:
        """What is said of words for roles in the settings and definitions that are in force."""
        jobs = {job.id: self.table.roles(job.id) for job in self.table.jobs()}
        tokens = (word for record in self.tokens.records() for word in record.roles)
        commands = (word for record in self.table.commands() for word in record.roles)
        return tuple(notes_on_words(self.settings, jobs, chain(tokens, commands)))

    def prepare_drain(self) -> None:
        """Who asks is sent elsewhere; files of others wait for the next start."""
        self.not_ready = "draining: waiting for what runs"
        self._draining = True
        self.transport.hold_foreign(True)

    async def _hold_reserve(self) -> None:
        await self.owner.hold_ballast()
        await DISK.run(self.reserve.hold)

    def _room_changed(self, is_low: bool) -> None:
        self.transport.hold_foreign(is_low or self._draining)
        if not is_low:
            self.inbox.report(PassTime())  # what is queued may start now

    def _delete_files(self, gone: DeleteFiles) -> None:
        self.disposal(gone.execution_ids)
        self.projections.forget(gone.execution_ids, gone.command_ids, gone.spellings)

    def _handled(self, command_id: str) -> CommandRecord | None:
        """The record of a command, or what stands for it once it is forgotten."""
        record = self.table.command(command_id)
        if record is None and (forgotten := self.table.forgotten(command_id)) is not None:
            return as_record(forgotten)
        return record

    def _is_live(self, execution_id: str) -> bool:
        execution = self.table.execution(execution_id)
        return execution is not None and not execution.is_final

    def _output_end(self, execution_id: str) -> int | None:
        execution = self.table.execution(execution_id)
        return execution.output_end if execution is not None and execution.is_final else None

    def _space(self) -> dict[str, object] | None:
        space = self.room.space
        if space is None:
            return None
        return {
            "bytesFree": space.bytes_free,
            "inodesFree": space.inodes_free,
            "low": space.is_low,
        }

    def _look_s_max(self) -> float:
        """How long a shim may go without a look at what its program wrote."""
        is_quiet = self.transport.looks_often_because is not None
        return self.settings.directory.look_ms / 1000 if is_quiet else math.inf

    def _unannounced(self) -> list[str]:
        """The folders that are looked at all the time, and why."""
        places = (self.transport.looks_often_because, self.catalog.polling.why)
        return [why for why in places if why is not None]

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
            "unannounced": self._unannounced(),
            "notes": list(self.recovered.notes),
            "maintenance": _maintenance_view(self.table.maintenance),
            "space": self._space(),
        }


def policy_of(settings: Settings) -> Policy:
    """The settings that decisions depend on."""
    return Policy(
        roles=settings.roles,
        keeping=settings.keep,
        mapped_roles=frozenset(settings.directory.mapped_roles()),
        secrets=settings.secrets,
    )


def programs_of(settings: Settings) -> ProgramDefaults:
    """What programs get whose definitions say nothing of it."""
    jobs = settings.jobs
    return ProgramDefaults(umask=int(jobs.umask, 8), open_files=jobs.open_files)


def _maintenance_view(maintenance: Maintenance | None) -> dict[str, str] | None:
    if maintenance is None:
        return None
    since = rfc3339(maintenance.since_ms)
    return {"reason": maintenance.reason, "by": maintenance.by, "since": since}


class _Traces:
    """Implements `replay_salvage.Traces`: the data directory beside its journal."""

    def __init__(self, layout: DataLayout) -> None:
        self._layout = layout

    def of(self, execution: Execution, command: CommandRecord | None) -> bool:
        return has_trace(self._layout, execution, command)

    def records(self, table: TableReader) -> Iterable[CommandRecord | Execution]:
        return records_in_files(self._layout, table)
