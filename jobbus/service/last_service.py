"""Who this instance is, and what the last service left: all that is read, repaired or written
before anything is wired. Blocking IO.
"""

import ssl
from collections.abc import Iterable

import msgspec

from bus.clock import Clock
from bus.layout import DataLayout
from bus.model import CommandRecord, Execution
from bus.ports import TableReader
from bus.reserve import Reserve
from handlers.ambiguity import are_files_doubted, has_trace
from handlers.audit.resume_point import CatchUp
from handlers.audit.segments import AuditSegments
from handlers.journal.identity import is_copied
from handlers.journal.recovery import RecoveredTable, recover
from jobbus.service.instance import InstanceFile, own_identity, secret_key
from jobbus.service.settings import Settings
from jobbus.service.transport_settings import tls_of
from transports.directory.recovery import records_in_files
from transports.http.access.admin_token import admin_token
from transports.http.access.session_store import SavedSessions
from transports.http.access.token_store import TokenStore


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What makes this instance itself: its name on record, its secrets, its certificate."""

    file: InstanceFile
    reserve: Reserve
    secret: bytes
    admin_token: str
    tokens: TokenStore
    sessions: SavedSessions
    tls: ssl.SSLContext | None

    @property
    def instance(self) -> str:
        return self.file.instance

    @property
    def is_copy(self) -> bool:
        return bool(self.file.copy_of)


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """The table as the journal has it, and the audit up to it. `files_doubted`: the last service
    could not say whether its results and status files are true."""

    recovered: RecoveredTable
    files_doubted: bool
    audit: AuditSegments
    caught_up: CatchUp


def identify(settings: Settings, layout: DataLayout, clock: Clock) -> Identity:
    """The instance, its secrets and its tokens are on record.

    Raises:
        DataDirectoryError, ConfigError: a file of them is damaged.
    """
    reserve = Reserve(layout)
    reserve.hold()  # before anything is written that a full disk must not refuse
    own = own_identity(layout, is_copied=is_copied(layout.journal))
    token = admin_token(layout)
    return Identity(
        file=own,
        reserve=reserve,
        secret=secret_key(layout),
        admin_token=token,
        tokens=TokenStore.load(layout, token, clock),
        sessions=SavedSessions.read(layout.sessions),
        tls=tls_of(settings.serve),
    )


def recover_past(layout: DataLayout, identity: Identity, clock: Clock) -> Past:
    """The journal is replayed, what stands behind damage is on record again, and the audit knows
    what it missed.

    Raises:
        NoSpace, StorageFailed: what was replayed could not be recorded.
    """
    audit = AuditSegments.open(layout.audit)
    caught_up = CatchUp(audit.resume_point)
    recovered = recover(
        layout.journal,
        identity.instance,
        clock,
        caught_up,
        _Traces(layout),
        is_copy=identity.is_copy,
    )
    doubted = are_files_doubted(layout.journal)
    return Past(recovered=recovered, files_doubted=doubted, audit=audit, caught_up=caught_up)


class _Traces:
    """Implements `replay_salvage.Traces`: the data directory beside its journal."""

    def __init__(self, layout: DataLayout) -> None:
        self._layout = layout

    def of(self, execution: Execution, command: CommandRecord | None) -> bool:
        return has_trace(self._layout, execution, command)

    def records(self, table: TableReader) -> Iterable[CommandRecord | Execution]:
        return records_in_files(self._layout, table)
