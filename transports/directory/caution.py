"""Telling which command kills the service: after an unclean stop they are handed out one by one.

The one that is about to be handed out is noted before. A command that was noted in two starts that
died is poison: it is set aside, so that the third start lives. No note is written in normal times.
"""

import logging
import os

import msgspec

from bus.layout import DataLayout
from transports.directory import disk

log = logging.getLogger(__name__)

CAREFUL_COMMANDS = 2048
"""More than can have been under way (inbox and batch) when the service died."""
DEATHS_MAX = 2
_NAME = ".handling"


class Note(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the file says: nothing while the service runs normally, else the command in hand.

    `deaths` counts the earlier starts that died with this command in hand.
    """

    id: str = ""
    name: str = ""
    deaths: int = 0


_decoder = msgspec.json.Decoder(Note)
_encoder = msgspec.json.Encoder()


class Caution:
    """The note beside the queue. All methods block.

    The file exists exactly while a service runs or after one died. It is not synced: a process that
    dies leaves it in the page cache, and after a power cut no command is to blame.
    """

    def __init__(self, layout: DataLayout) -> None:
        self._layout = layout
        self._suspect = Note()
        self.left = 0

    def begin(self) -> Note:
        """Marks the start; gives the note of a start that died, empty after an orderly end."""
        with disk.open_directory(self._layout.queue) as queue_fd:
            before = self._read(queue_fd)
            if before is None:
                self._write(Note(), queue_fd)
                return Note()
        self.left = CAREFUL_COMMANDS
        self._suspect = msgspec.structs.replace(before, deaths=before.deaths + bool(before.id))
        return self._suspect

    def note(self, command_id: str, name: str) -> None:
        """This command is handed out next."""
        deaths = self._suspect.deaths if command_id == self._suspect.id else 0
        with disk.open_directory(self._layout.queue) as queue_fd:
            self._write(Note(id=command_id, name=name, deaths=deaths), queue_fd)

    def relax(self) -> None:
        """Enough was handled without harm: nothing more is noted."""
        self.left = 0
        with disk.open_directory(self._layout.queue) as queue_fd:
            self._write(Note(), queue_fd)

    def end(self) -> None:
        """Marks the orderly end."""
        try:
            with disk.open_directory(self._layout.queue) as queue_fd:
                disk.remove(_NAME, queue_fd)
        except OSError as error:  # then the next start is careful
            log.warning("the orderly end cannot be marked: %s", error)

    def _read(self, queue_fd: int) -> Note | None:
        try:
            data = disk.read_file(_NAME, queue_fd, 4096).data
            return _decoder.decode(data)
        except FileNotFoundError:
            return None
        except (disk.Unfit, disk.InMotion, ValueError) as error:
            log.debug("the note of the last start cannot be read: %s", error)
            return Note()

    def _write(self, note: Note, queue_fd: int) -> None:
        try:
            disk.replace_file(_NAME, queue_fd, _encoder.encode(note))
        except OSError as error:  # a full disk must not keep commands back
            log.debug("no note before a command: %s", os.strerror(error.errno or 0))
