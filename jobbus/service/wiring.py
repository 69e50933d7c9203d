"""What a node is made of, and who knows whom. Only wiring: nothing here reads, writes or runs.

With `jobbus/service/life.py` the only place that knows all parts.
"""

from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from bus.clock import Clock, rfc3339
from bus.dispatch import Inbox
from bus.free_space import Space
from bus.model import CommandRecord
from bus.ports import Policy
from bus.publisher import Publisher
from bus.reserve import Ballast, Reserve
from bus.threads import DISK
from handlers.audit.trail import Audit
from handlers.catalog.watch import CatalogWatch
from handlers.decisions.decision import DeleteFiles
from handlers.decisions.remembered import as_record
from handlers.decisions.table import JobTable
from handlers.disk_space import SpaceWatch, scarcest
from handlers.disposal import Disposal
from handlers.history import JournalHistory
from handlers.output.artifact_store import ArtifactStore
from handlers.output.store import OutputStore
from handlers.owner import Owner
from handlers.progress_coalescer import ProgressCoalescer
from handlers.retention_loop import Retention, TrustedClock, last_ms
from handlers.schedule.clock_trust import ClockTrust
from handlers.schedule.scheduler import Scheduler
from handlers.schedule.service_zone import service_zone, zone_data
from handlers.shim.process_tree import boot_id
from handlers.supervision.request import ProgramDefaults
from handlers.supervision.secrets import SecretValues
from handlers.supervision.supervisor import ProcessSupervisor
from handlers.timekeeper import Timekeeper
from jobbus.service.directory_hold import Hold
from jobbus.service.draining import ForeignFiles
from jobbus.service.job_log import JobLog
from jobbus.service.last_service import Identity, Past
from jobbus.service.role_words import notes_on_words
from jobbus.service.settings import Settings
from jobbus.service.system_view import Readiness, SystemView
from jobbus.service.transport_settings import directory_settings, gateway_settings
from transports.directory.poison import HANDLING, InHandNote
from transports.directory.projections import Projections
from transports.directory.transport import DirectoryTransport, queue_polling
from transports.http.app import Gateway
from transports.http.ports import GatewayPorts


class Parts:
    """All parts of one node, each made after those that it is given.

    `settings` are those in force; `jobbus.service.reloading` alone replaces them. Where two parts
    know each other, `_connect` introduces the later one.
    """

    def __init__(
        self, settings: Settings, hold: Hold, identity: Identity, past: Past, clock: Clock
    ) -> None:
        self.settings = settings
        self.hold = hold
        self.layout = hold.layout
        self.identity = identity
        self.recovered = past.recovered
        self.table = past.recovered.table
        self.clock = clock
        self.started_at = rfc3339(clock.now_ms())
        self.trusted = TrustedClock(clock, last_ms(self.table))
        self.inbox = Inbox(clock)
        self.queries = TableQueries(self.table)
        self.in_hand = InHandNote(self.layout, HANDLING, self.queries.is_handled)
        self.directory_settings = directory_settings(settings.directory, settings.keep)
        self.queue_polling = queue_polling(self.layout, self.directory_settings)
        self.audit = Audit(
            self.layout.audit,
            past.audit,
            past.caught_up.fold,
            past.caught_up.missing,
            clock,
            days=settings.keep.audit_days,
            is_trusted=self.trusted.is_trusted,
        )
        self._make_space()
        self._make_programs()
        self._make_owner()
        self._make_directory()
        self._make_gateway()
        self._connect()

    def _make_space(self) -> None:
        """What watches the room on the disk."""
        layout = self.layout
        places = (layout.queue, layout.journal, layout.output, layout.status)
        ballast = self.recovered.journal.ballast
        self.space = SpaceWatch(partial(_space_left, places, ballast, self.identity.reserve))

    def _make_programs(self) -> None:
        """The programs, what they print, and where they are defined."""
        self.output = OutputStore(self.layout, self.queries.is_live, self.queries.output_end)
        self.secrets = SecretValues(self.settings.secrets)
        self.supervisor = ProcessSupervisor(
            self.layout,
            self.identity.instance,
            self.clock,
            ProgressCoalescer(self.inbox.report),
            self.output,
            secrets=self.secrets,
            is_copy=self.identity.is_copy,
            look_s_max=self.queue_polling.unannounced_s_max,
            in_hand=partial(self.in_hand.take, holder="adoption"),
        )
        self.supervisor.go_by(programs_of(self.settings))
        look_s = self.settings.directory.look_ms / 1000
        self.catalog = CatalogWatch(
            self.settings.serve.apps, self.inbox.report, look_s, service_zone()
        )
        self.catalog.go_by(self.settings.group, self.settings.calendars)
        self.job_log = JobLog(self.table, self.clock)

    def _make_owner(self) -> None:
        """Who decides, and what reports to them that time has passed."""
        self.owner = Owner(
            journal=self.recovered.journal,
            table=self.table,
            next_seq=self.recovered.next_seq,
            inbox=self.inbox,
            feed=self.recovered.feed,
            encoder=self.recovered.encoder,
            supervisor=self.supervisor,
            clock=self.clock,
            policy=policy_of(self.settings),
            is_low=self.space.is_scarce,
            before_snapshot=self.audit.settle,
            in_hand=self.in_hand.take,
            before_append=self.hold.end_if_lost,
        )
        self.timekeeper = Timekeeper(
            self.table, self.clock, self.inbox.report, self.space.is_scarce
        )
        doubt = self.table.doubt
        seen_ms = self.recovered.last_ms or last_ms(self.table)
        clock_trust = ClockTrust(
            seen_ms if doubt is None else doubt.believed_ms, self.clock.steady_s()
        )
        self.owner.checks.bar_of = self.catalog.bar
        self.scheduler = Scheduler(
            self.table,
            self.clock,
            clock_trust,
            self.inbox.report,
            boot_id(),
            self.catalog.calendars,
        )

    def _make_directory(self) -> None:
        """The durable way in, the files that say what became of commands, and what goes in time."""
        self.transport = DirectoryTransport(
            self.layout,
            clock=self.clock,
            known=self.queries.handled,
            secret=self.identity.secret,
            settings=self.directory_settings,
            refused=self.audit.refused_file,
            holds_secret=self.owner.checks.reveals_secret,
            order_floor_ns=self.table.newest_stop_ns,
            before_answer=self.hold.end_if_lost,
            poisoned=self.inbox.add,
            changes_others=self.owner.checks.changes_others,
            handling=self.in_hand,
            polling=self.queue_polling,
        )
        transport = self.transport
        self.foreign_files = ForeignFiles(transport, self.inbox)
        self.projections = Projections(
            self.layout, self.table, self.clock, transport.settle, transport.settle_own
        )
        self.disposal = Disposal(self.layout)
        self.retention = Retention(
            self.table,
            self.settings.keep,
            self.clock,
            self.trusted,
            self.inbox.report,
            transport.waiting_since_ms,
            transport.forget_rejects,
        )

    def _make_gateway(self) -> None:
        """The way in and out over HTTP."""
        self.tokens = self.identity.tokens
        self.publisher = Publisher(
            self.transport, self.owner.checks, self.table, self.audit.refused
        )
        self.readiness = Readiness(self.supervisor)
        self.gateway = Gateway(
            GatewayPorts(
                apps=self.catalog.apps,
                schemas=_schema,
                table=self.table,
                publisher=self.publisher,
                waiter=self.owner,
                feed=self.recovered.feed,
                history=JournalHistory(self.layout.journal, self.recovered.encoder),
                output=self.output,
                artifacts=ArtifactStore(self.layout),
                clock=self.clock,
                instance=self.identity.instance,
                secret=self.identity.secret,
                roles=self.settings.roles,
                tokens=self.tokens,
                system=self._system_view(),
                maintain=self.owner.order,
                believe_clock=partial(_believe_clock, self.scheduler, self.trusted, self.owner),
                ready=self.readiness.why_not,
                sessions=self.identity.sessions,
                audit=self.audit,
                schedules=self.scheduler,
            ),
            gateway_settings(self.settings),
        )

    def _system_view(self) -> SystemView:
        return SystemView(
            self.settings,
            self.layout,
            self.identity.instance,
            self.started_at,
            self.recovered,
            self.transport,
            self.inbox,
            self.table,
            self.space,
            (self.queue_polling, self.catalog.polling),
            zone_data(),
        )

    def _connect(self) -> None:
        """Those that were made early get to know those that were made late."""
        self.owner.connect(partial(_delete_files, self.disposal, self.projections))
        self.owner.checks.connect(self.publisher.undecided)
        self.space.connect(
            changed=self.foreign_files.space_changed,
            hold_ballast=partial(_hold_back, self.owner, self.identity.reserve),
        )
        for listener in (
            self.audit,
            self.retention,
            self.projections,
            self.timekeeper,
            self.scheduler,
            self.gateway.metrics,
            self.job_log,
        ):
            self.owner.listen(listener)


class TableQueries:
    """Questions of the parts to the published table, each with one answer."""

    def __init__(self, table: JobTable) -> None:
        self._table = table

    def handled(self, command_id: str) -> CommandRecord | None:
        """The record of a command, or what stands for it once it is forgotten."""
        record = self._table.command(command_id)
        if record is None and (forgotten := self._table.forgotten(command_id)) is not None:
            return as_record(forgotten)
        return record

    def is_handled(self, command_id: str) -> bool:
        return self.handled(command_id) is not None

    def is_live(self, execution_id: str) -> bool:
        execution = self._table.execution(execution_id)
        return execution is not None and not execution.is_final

    def output_end(self, execution_id: str) -> int | None:
        """Where the output of an ended execution ends; None while it may grow."""
        execution = self._table.execution(execution_id)
        return execution.output_end if execution is not None and execution.is_final else None


def policy_of(settings: Settings) -> Policy:
    """The settings that decisions depend on."""
    return Policy(
        roles=settings.roles,
        keeping=settings.keep,
        mapped_roles=frozenset(settings.directory.mapped_roles()),
        secrets=settings.secrets,
        boot=boot_id(),
    )


def programs_of(settings: Settings) -> ProgramDefaults:
    """What programs get whose definitions say nothing of it."""
    jobs = settings.jobs
    return ProgramDefaults(umask=int(jobs.umask, 8), open_files=jobs.open_files)


def notes_on_roles(parts: Parts) -> tuple[str, ...]:
    """What is said of words for roles in the settings and definitions that are in force."""
    jobs = {job.id: parts.table.roles(job.id) for job in parts.table.jobs()}
    tokens = (word for record in parts.tokens.records() for word in record.roles)
    commands = (word for record in parts.table.commands() for word in record.roles)
    return tuple(notes_on_words(parts.settings, jobs, chain(tokens, commands)))


def _space_left(places: Sequence[Path], ballast: Ballast, reserve: Reserve) -> tuple[Space, bool]:
    """What is left where it is least, and whether what is held back is there. Blocking."""
    return scarcest(places), ballast.is_held and reserve.is_held


async def _believe_clock(
    scheduler: Scheduler, trusted: TrustedClock, owner: Owner, by: str
) -> None:
    """Schedules go on by the clock as it is, and ages are measured by it."""
    trusted.believe()
    await owner.order(scheduler.believe(by))


async def _hold_back(owner: Owner, reserve: Reserve) -> None:
    """What a full disk took from the reserves is held back again."""
    await owner.hold_ballast()
    await DISK.run(reserve.hold)


def _delete_files(disposal: Disposal, projections: Projections, gone: DeleteFiles) -> None:
    disposal(gone.execution_ids)
    projections.forget(gone.execution_ids, gone.command_ids, gone.spellings)


def _schema(file: str) -> bytes | None:
    from jobbus.service.schemas import encoded_schema  # here: few ask, and a start must be quick

    return encoded_schema(file)
