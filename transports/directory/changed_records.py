"""Which records changed since their status and result files were written. Pure.

No IO and no clock: the table and the time are handed in.
"""

from collections.abc import Callable, Container, Iterable, Sequence
from itertools import islice

import msgspec

from bus.model import CommandRecord, Execution
from bus.ports import TableReader

INTERVAL_S = 1.0
"""The status file of a live execution is written at most so often."""
BATCH_MAX = 256
PAST_MAX = 64
"""Records of the past that are compared beside each batch of changes."""


class Batch(msgspec.Struct, frozen=True):
    """What is written in one go, and the commands that are settled then.

    `past_…` are compared: written only if their files differ, and they settle nothing.
    """

    executions: tuple[Execution, ...] = ()
    commands: tuple[CommandRecord, ...] = ()
    past_executions: tuple[Execution, ...] = ()
    past_commands: tuple[CommandRecord, ...] = ()
    status_gone: tuple[str, ...] = ()
    results_gone: tuple[str, ...] = ()

    @property
    def ids(self) -> list[str]:
        """Of the records that are written."""
        return (
            [each.id for each in self.executions] + [each.id for each in self.commands] + self.past
        )

    @property
    def past(self) -> list[str]:
        """Of those that are only compared."""
        return [each.id for each in self.past_executions] + [each.id for each in self.past_commands]

    def only(self, ids: Container[str]) -> "Batch":
        """The records with these ids, and nothing else."""
        return self._selected(lambda each: each.id in ids)

    def without(self, ids: Container[str]) -> "Batch":
        """All but the records with these ids."""
        return self._selected(lambda each: each.id not in ids)

    def _selected(self, is_wanted: Callable[[Execution | CommandRecord], bool]) -> "Batch":
        return Batch(
            tuple(each for each in self.executions if is_wanted(each)),
            tuple(each for each in self.commands if is_wanted(each)),
            tuple(each for each in self.past_executions if is_wanted(each)),
            tuple(each for each in self.past_commands if is_wanted(each)),
        )


class ChangedRecords:
    """Ids of records whose files are behind the table, never the records: however far the disk lags
    behind, it is at most one id for each record of the table.

    `_at_once` has executions whose status file is written with the next batch; `_later` live ones
    whose file was written less than `INTERVAL_S` ago, with when the next one is due, the first
    noted first. `_commands` has ended commands without their result file. `_past` has records whose
    files are only compared with the table. `_status_gone` and `_results_gone` are names of files to
    be removed. `_written_s` is when the status file of each live execution was written last.

    `note_execution`, `note_command`, `note_past`, `forget` and `note_again` add ids, `take` removes
    them, and only `take`, `written` and `forget` write `_written_s`. Lives in the event loop.
    """

    def __init__(self, table: TableReader) -> None:
        self._table = table
        self._at_once: dict[str, None] = {}
        self._later: dict[str, float] = {}
        self._commands: dict[str, None] = {}
        self._past: dict[str, None] = {}
        self._status_gone: dict[str, None] = {}
        self._results_gone: dict[str, None] = {}
        self._written_s: dict[str, float] = {}

    @property
    def due_s(self) -> float | None:
        """When the next status file of a live execution is due; None if there is none to come."""
        return next(iter(self._later.values()), None)

    def to_be_written(self) -> set[str]:
        """The ids of all that has to be written or compared, but for live executions that wait for
        their interval."""
        return {*self._at_once, *self._commands, *self._past}

    def note_execution(self, execution_id: str) -> None:
        """The execution changed: its first and its last file are written at once."""
        execution = self._table.execution(execution_id)
        written_s = self._written_s.get(execution_id)
        if execution is None or execution.is_final or written_s is None:
            self._later.pop(execution_id, None)
            self._at_once[execution_id] = None
        elif execution_id not in self._at_once:
            self._later.setdefault(execution_id, written_s + INTERVAL_S)

    def note_command(self, command_id: str) -> None:
        """The command has ended."""
        self._commands[command_id] = None
        command = self._table.command(command_id)
        execution_id = command.execution_id if command is not None else None
        if execution_id is not None and self._later.pop(execution_id, None) is not None:
            # A reader of the result reads the status next: it must not be older than the result.
            self._at_once[execution_id] = None

    def note_past(self, ids: Iterable[str]) -> None:
        """The files of these are compared with the table."""
        self._past.update(dict.fromkeys(ids))

    def forget(
        self, execution_ids: Sequence[str], command_ids: Sequence[str], spellings: Sequence[str]
    ) -> None:
        """The files of these are to be removed; `spellings` are what results are called."""
        for execution_id in execution_ids:
            self._at_once.pop(execution_id, None)
            self._later.pop(execution_id, None)
            self._written_s.pop(execution_id, None)
            self._past.pop(execution_id, None)
            self._status_gone[f"{execution_id}.json"] = None
        for command_id in command_ids:
            self._commands.pop(command_id, None)
            self._past.pop(command_id, None)
        self._results_gone.update((f"{spelling}.json", None) for spelling in spellings)

    def note_again(self, batch: Batch) -> None:
        """What was taken with the batch was not written."""
        self._at_once.update(dict.fromkeys(each.id for each in batch.executions))
        self._commands.update(dict.fromkeys(each.id for each in batch.commands))
        self._past.update(dict.fromkeys(batch.past))
        self._status_gone.update(dict.fromkeys(batch.status_gone))
        self._results_gone.update(dict.fromkeys(batch.results_gone))

    def written(self, batch: Batch) -> None:
        """The files of the batch are there: of what has ended no time is kept."""
        for execution in batch.executions:
            if execution.is_final:
                self._written_s.pop(execution.id, None)

    def take(self, now_s: float, *, hurry: bool) -> Batch | None:
        """What is due now: status files first, results when no status file is. With `hurry`, files
        of live executions do not wait for their interval."""
        self._move_due(now_s, hurry=hurry)
        ids = _take(self._at_once, BATCH_MAX)
        executions = [each for each in map(self._table.execution, ids) if each is not None]
        self._written_s.update((each.id, now_s) for each in executions)
        commands: list[CommandRecord | None] = []
        if len(ids) < BATCH_MAX:
            commands = [self._table.command(each) for each in _take(self._commands, BATCH_MAX)]
        status_gone = tuple(_take(self._status_gone, BATCH_MAX))
        results_gone = tuple(_take(self._results_gone, BATCH_MAX))
        past = _take(self._past, PAST_MAX)
        if not (ids or commands or status_gone or results_gone or past):
            return None
        return Batch(
            tuple(executions),
            tuple(each for each in commands if each is not None and each.is_final),
            tuple(each for each in map(self._table.execution, past) if each is not None),
            tuple(each for each in map(self._table.command, past) if each is not None),
            status_gone,
            results_gone,
        )

    def _move_due(self, now_s: float, *, hurry: bool) -> None:
        # Every interval is the same, so the first noted is the first due.
        for execution_id, due_s in list(islice(self._later.items(), BATCH_MAX)):
            if due_s > now_s and not hurry:
                break
            del self._later[execution_id]
            self._at_once[execution_id] = None


def _take(ids: dict[str, None], limit: int) -> list[str]:
    taken = list(islice(ids, limit))
    for each in taken:
        del ids[each]
    return taken
