"""The entries of commands: one for each, made at its end. No IO, no clock."""

import msgspec

from bus.audit import COMMAND, REFUSED, AuditEntry, cut, stamp
from bus.clock import rfc3339
from bus.events import CommandAccepted, CommandEnded, Published
from bus.model import CommandRecord
from handlers.audit.entries.states import States
from handlers.decisions.readable_table import ReadableTable


class _Pending(msgspec.Struct, frozen=True):
    """A command that has not ended, and the state of its execution when it came."""

    command: CommandAccepted | CommandRecord
    target: str | None
    before: str | None
    attempted: bool = True
    detail: dict[str, str] = {}


class CommandEntries:
    """Holds the commands that wait for their end, by id, in `_pending`; the fold alone writes
    it."""

    def __init__(self, states: States) -> None:
        self._states = states
        self._pending: dict[str, _Pending] = {}

    def begin(self, table: ReadableTable) -> None:
        for command in table.unfinished_commands():
            self._pending[command.id] = _Pending(command, command.execution_id, None)

    def accept(self, event: CommandAccepted) -> None:
        target = event.execution_id or (event.waits_for[0] if event.waits_for else None)
        before = self._states.of(target) if target is not None else None
        self._pending[event.command_id] = _Pending(event, target, before, event.attempted)

    def replace(self, command_id: str, execution_id: str) -> None:
        """What a restart acts on is the execution that it replaces."""
        pending = self._pending.get(command_id)
        if pending is not None and pending.before is None:
            before = self._states.of(execution_id)
            self._pending[command_id] = msgspec.structs.replace(pending, before=before)

    def describe(self, detail: dict[str, str]) -> None:
        """What came of the command that was accepted last, in the same decision."""
        command_id = next(reversed(self._pending), None)
        if command_id is not None:
            pending = self._pending[command_id]
            self._pending[command_id] = msgspec.structs.replace(pending, detail=detail)

    def drop(self, command_id: str) -> None:
        """The command has ended, and its entry is there already."""
        self._pending.pop(command_id, None)

    def end(self, published: Published, event: CommandEnded) -> AuditEntry | None:
        pending = self._pending.pop(event.command_id, None)
        if pending is None:
            return None  # a torn journal may hold its end twice
        command = pending.command
        execution_id = event.execution_id or pending.target
        refused = not pending.attempted
        return AuditEntry(
            seq=published.seq,
            at=rfc3339(published.at_ms),
            kind=REFUSED if refused else COMMAND,
            actor=cut(command.user_id),
            roles=command.roles,
            via=command.via,
            action=cut(command.kind),
            job=cut(command.job_id) if command.job_id else None,
            execution=execution_id,
            command=event.command_id,
            submitted_at=stamp(command.submitted_ms),
            processed_at=rfc3339(published.at_ms),
            status=event.status.value,
            outcome=event.outcome.value if event.outcome else None,
            error_code=event.error_code,
            before=None if refused else pending.before,
            after=self._states.of(execution_id) if execution_id and not refused else None,
            detail=pending.detail
            or (self._states.ending(execution_id) if execution_id and not refused else {}),
        )
