"""Results of files that were refused before they were decided. Blocking.

A request by id finds the reason there. No record stands behind such a result, so what they take is
bounded here: when there are too many, the oldest of the account that has the most goes.
"""

import os
import threading
from collections.abc import Callable, Sequence

import msgspec
import structlog

from bus.errors import ErrorCode
from bus.layout import DataLayout
from bus.model import CommandRecord, CommandStatus
from transports.directory import disk
from transports.directory.command_format import SUFFIX, id_in_name
from transports.directory.disk import Mark
from transports.directory.results import encode_result, result_name

log = structlog.get_logger("jobbus.directory")

_ACCOUNT = "uid:"
_SIZE_MAX = 1 << 20


class _Found(msgspec.Struct, rename={"status": "Status", "user_id": "UserID"}):
    """As much of a result as says whose it is."""

    status: str = ""
    user_id: str = ""


_decoder = msgspec.json.Decoder(_Found)


def unreadable(name: str, mark: Mark, reason: str, now_ms: int) -> CommandRecord | None:
    """What a request by the id in the name finds, of a file that is no command; None without an
    id."""
    command_id = id_in_name(name)
    if command_id is None:
        return None
    spelled = name.removesuffix(SUFFIX)
    return CommandRecord(
        id=command_id,
        id_text=spelled if spelled != command_id else None,
        kind="",
        user_id=f"{_ACCOUNT}{mark.uid}",
        via="directory",
        submitted_ms=disk.time_of(mark),
        body_hash="",
        status=CommandStatus.REJECTED,
        error_code=ErrorCode.MALFORMED,
        error=reason,
        processed_ms=now_ms,
    )


class RefusalResults:
    """`known`: whether the table knows a command of this id; its results are never touched.

    `_kept` has the names of the results by the account that caused them, oldest first. It is read
    from the directory when the first result is written. Threads take turns by `_turn`.
    """

    def __init__(self, layout: DataLayout, most: int, known: Callable[[str], bool]) -> None:
        self._layout = layout
        self._most = most
        self._known = known
        self._kept: dict[str, dict[str, None]] | None = None
        self._turn = threading.Lock()

    def write(self, records: Sequence[CommandRecord]) -> None:
        """Each has its result file."""
        self._write(records, over_others=True)

    def write_unless_there(self, records: Sequence[CommandRecord]) -> None:
        """The same for those of whose id no result is known, but a result of the same account."""
        self._write(records, over_others=False)

    def _write(self, records: Sequence[CommandRecord], *, over_others: bool) -> None:
        disk.make_directory(self._layout.results)
        with self._turn, disk.open_directory(self._layout.results) as results_fd:
            kept = self._kept if self._kept is not None else self._load(results_fd)
            for record in records:
                name, writer = result_name(record), _writer(record.user_id)
                own = kept.setdefault(writer, {})
                if not (over_others or name in own) and _exists(name, results_fd):
                    continue
                disk.replace_file(name, results_fd, encode_result(record))
                for names in kept.values():
                    names.pop(name, None)
                own[name] = None
            self._make_room(kept, results_fd)

    def _load(self, results_fd: int) -> dict[str, dict[str, None]]:
        found: list[tuple[int, str, str]] = []
        for name in os.listdir(results_fd):
            command_id = id_in_name(name)
            if command_id is None or self._known(command_id):
                continue
            try:
                file = disk.read_file(name, results_fd, _SIZE_MAX)
                result = _decoder.decode(file.data)
            except (FileNotFoundError, disk.Unfit, disk.InMotion, ValueError) as error:
                log.debug("%s is no result: %s", name, error)
                continue
            if result.status == CommandStatus.REJECTED:
                found.append((file.mark.mtime_ns, name, _writer(result.user_id)))
        self._kept = {}
        for _, name, writer in sorted(found):
            self._kept.setdefault(writer, {})[name] = None
        return self._kept

    def _make_room(self, kept: dict[str, dict[str, None]], results_fd: int) -> None:
        while sum(map(len, kept.values())) > self._most:
            names = max(kept.values(), key=len)
            oldest = next(iter(names))
            del names[oldest]
            command_id = id_in_name(oldest)
            # A command that came under the id since then has its own result there.
            if command_id is not None and not self._known(command_id):
                disk.remove(oldest, results_fd)


def _writer(user_id: str) -> str:
    """The account that a result counts for: all users of the service's own account share it."""
    return user_id if user_id.startswith(_ACCOUNT) else ""


def _exists(name: str, inside: int) -> bool:
    try:
        disk.mark_of(name, inside)
    except FileNotFoundError:
        return False
    return True
