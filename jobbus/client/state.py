"""What a follower of the changes holds: the newest record of each thing. No IO.

The contract's rule: a change counts only if its version is higher than what is held; a reset
drops everything; what a whole snapshot does not name is gone.
"""

from collections.abc import Mapping
from types import MappingProxyType

from jobbus.client.frames import Change, Frame, Hello, Reset, Snapshot, SnapshotEnd
from jobbus.client.records import (
    Command,
    DeletedExecution,
    Execution,
    Group,
    Record,
    RemovedGroup,
    RemovedJob,
)


class StateMap:
    """Give it every frame of `Client.events`; `records` is then the state up to that frame.

    Keys are the subjects of changes: `executions/<id>`, `jobs/<App/Job>`, `commands/<id>`.
    """

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}
        self._versions: dict[
            str, int
        ] = {}  # also of what is gone: a late change must not revive it
        self._in_snapshot: set[str] = set()

    @property
    def records(self) -> Mapping[str, Record]:
        """What is there now; a live view."""
        return MappingProxyType(self._records)

    def take(self, frame: Frame) -> tuple[str, ...]:
        """The keys of what the frame changed."""
        match frame:
            case Hello():
                self._in_snapshot = set()  # a snapshot that was cut off comes again from its start
                return ()
            case Reset():
                return self._forget()
            case Snapshot(records=records):
                self._in_snapshot.update(map(key_of, records))
                return tuple(key_of(record) for record in records if self._apply(record))
            case SnapshotEnd():
                return self._drop_others()
            case Change(record=record) if record is not None:
                return (key_of(record),) if self._apply(record) else ()
            case _:
                return ()

    def _forget(self) -> tuple[str, ...]:
        gone = tuple(self._records)
        self._records.clear()
        self._versions = {}
        self._in_snapshot = set()
        return gone

    def _apply(self, record: Record) -> bool:
        key = key_of(record)
        if record.version <= self._versions.get(key, -1):
            return False
        self._versions[key] = record.version
        if isinstance(record, RemovedJob | DeletedExecution | RemovedGroup):
            return self._records.pop(key, None) is not None
        self._records[key] = record
        return True

    def _drop_others(self) -> tuple[str, ...]:
        others = tuple(key for key in self._records if key not in self._in_snapshot)
        for key in others:
            del self._records[key]
        self._versions = {key: self._versions[key] for key in self._records}
        self._in_snapshot = set()
        return others


def key_of(record: Record) -> str:
    """The subject that changes of this record carry."""
    match record:
        case Execution() | DeletedExecution():
            return f"executions/{record.execution_id}"
        case Command():
            return f"commands/{record.command_id}"
        case Group() | RemovedGroup():
            return f"groups/{record.name}"
        case _:
            return f"jobs/{record.job_id}"
