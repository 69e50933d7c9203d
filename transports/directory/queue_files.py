"""Single files of the queue directory: read whole, unlinked, moved to Rejects. Blocking."""

import os
from collections.abc import Sequence

import msgspec
import structlog

from bus.clock import Clock
from bus.envelope import Envelope
from bus.errors import ErrorCode, Refused
from bus.layout import DataLayout
from bus.model import CommandRecord
from bus.recurring import Recurring
from bus.reserve_spares import give_back
from bus.scarcity import reason_of
from transports.directory import disk
from transports.directory.command_files import FileReader
from transports.directory.command_format import SUFFIX, NotACommand
from transports.directory.disk import InMotion, Unfit
from transports.directory.poison import InHandNote
from transports.directory.refusals import unreadable
from transports.directory.reject_reasons import POISON
from transports.directory.rejects import Rejects
from transports.directory.scan_plan import GivenUp, ScanPlan
from transports.directory.settings import DirectorySettings

log = structlog.get_logger("jobbus.directory")


class QueueFiles:
    """Acts on files of the queue by their names; any thread of the transport calls it.

    `_plan` belongs to the scans: a file that turns out to be no command is noted there, and what
    lies in Rejects is forgotten. `_has_swept`: `.tmp` was swept since the last scan began.
    """

    def __init__(
        self,
        layout: DataLayout,
        settings: DirectorySettings,
        clock: Clock,
        reader: FileReader,
        plan: ScanPlan,
        rejects: Rejects,
        in_hand: InHandNote,
    ) -> None:
        self._layout = layout
        self._settings = settings
        self._clock = clock
        self._reader = reader
        self._plan = plan
        self._rejects = rejects
        self._in_hand = in_hand
        self._has_swept = False
        self._troubles = Recurring(log)

    def begin_scan(self) -> None:
        """From now on `.tmp` may be swept once more."""
        self._has_swept = False

    def envelopes(self, names: list[str]) -> "list[Envelope | CommandRecord | None]":
        """For each name the command, or the record of its refusal, or None if it is none (now)."""
        with disk.open_directory(self._layout.queue) as queue_fd:
            found = []
            for name in names:
                with self._in_hand.holding((name,), "fill"):
                    found.append(self._envelope(name, queue_fd))
            return found

    def durable_envelope(self, name: str) -> "Envelope | CommandRecord | None":
        """As `envelopes` for one name; the file and its name survive a power cut."""
        with (
            disk.open_directory(self._layout.queue) as queue_fd,
            self._in_hand.holding((name,), f"compare {name}"),
        ):
            found = self._envelope(name, queue_fd)
            if found is None and self._has_lost_its_twin(name, queue_fd):
                found = self._envelope(name, queue_fd)
            if found is not None:
                disk.sync_file(name, queue_fd)
        return found

    def unlink(self, names: list[str]) -> None:
        """The files of ended commands are gone. Not synced: if one comes back, its id is known.

        What was made of a spare is one again: on a disk that stays full, stops would use them up.
        """
        with disk.open_directory(self._layout.queue) as queue_fd:
            for name in names:
                try:
                    is_spare = give_back(name, queue_fd)
                except FileNotFoundError:
                    continue
                if not is_spare:
                    disk.remove(name, queue_fd)

    def poison(self, command_id: str, why: str) -> "tuple[CommandRecord, Envelope | None] | None":
        """The file of the command is in Rejects; gives the answer for its writer, and the command
        if it can be read. None if there is no such file."""
        refused = Refused(ErrorCode.POISON, why)
        with disk.open_directory(self._layout.queue) as queue_fd:
            name = _name_of(command_id, queue_fd)
            if name is None:
                return None
            with self._in_hand.holding((name,), "poison"):
                try:
                    record = self._reader.rejected(name, queue_fd, refused, self._clock.now_ms())
                except (FileNotFoundError, InMotion, NotACommand, Unfit):
                    return None
                found = self._envelope(name, queue_fd)
            self._rejects.take(name, queue_fd, f"{POISON}{why}")
        return record, found if isinstance(found, Envelope) else None

    def poison_unread(self, name: str, why: str) -> CommandRecord | None:
        """The same for a file that may not even be read: its name and its owner are all that is
        known. None if it is gone, or called after no command."""
        with disk.open_directory(self._layout.queue) as queue_fd:
            try:
                mark = disk.mark_of(name, queue_fd)
            except FileNotFoundError:
                return None
            self._rejects.take(name, queue_fd, f"{POISON}{why}")
        record = unreadable(name, mark, why, self._clock.now_ms())
        return record and msgspec.structs.replace(record, error_code=ErrorCode.POISON)

    def reject(self, name: str, reason: str) -> None:
        """The file goes to Rejects at once."""
        with disk.open_directory(self._layout.queue) as queue_fd:
            self._rejects.take(name, queue_fd, reason)

    def set_aside(self, files: Sequence[GivenUp]) -> None:
        """They are in Rejects, unless they changed since they were examined."""
        with disk.open_directory(self._layout.queue) as queue_fd:
            for file in files:
                try:
                    if disk.mark_of(file.name, queue_fd) != file.mark:
                        continue
                    self._rejects.take(file.name, queue_fd, file.reason)
                except FileNotFoundError:
                    pass
                except OSError as error:  # no room, or no way in: others do not wait for that
                    why = reason_of(error)
                    self._troubles.say(f"{file.name} cannot go to Rejects: {why}", why)
                    self._plan.postpone(file.name, self._clock.monotonic_s())
                    continue
                self._plan.forget(file.name)

    def sweep(self) -> None:
        """Abandoned files in `.tmp` are gone; ours that were linked have one name."""
        disk.make_directory(self._layout.queue_tmp)
        oldest_s = self._clock.now_ms() / 1000 - self._settings.tmp_age_s
        with disk.open_directory(self._layout.queue_tmp) as tmp_fd:
            for name in os.listdir(tmp_fd):
                try:
                    mark = disk.mark_of(name, tmp_fd)
                    # Two names: its writer was killed between link and unlink. Without this its
                    # queue file would pass for a hard link of another program for ever.
                    if mark.links == 2 or mark.mtime_ns / 1e9 < oldest_s:
                        disk.remove(name, tmp_fd)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    log.debug("left in .tmp: %s", error)

    def freed_of_its_twin(self, name: str, queue_fd: int) -> bool:
        """Whether the second name was one in `.tmp`, left by a publisher that was killed."""
        if not self._has_swept:  # one sweep is enough for all that have a second name
            self._has_swept = True
            self.sweep()
        return disk.mark_of(name, queue_fd).links == 1

    def _has_lost_its_twin(self, name: str, queue_fd: int) -> bool:
        """The same at once: with a publisher that asks again and again it never stands still."""
        try:
            links = disk.mark_of(name, queue_fd).links
            return links > 1 and self.freed_of_its_twin(name, queue_fd)
        except FileNotFoundError:
            return False

    def _envelope(self, name: str, queue_fd: int) -> "Envelope | CommandRecord | None":
        try:
            mark = disk.mark_of(name, queue_fd)
        except FileNotFoundError:
            return None
        try:
            return self._reader.envelope(name, queue_fd)
        except Refused as why:
            return self._refusal(name, queue_fd, why)
        except (FileNotFoundError, InMotion) as gone:
            log.debug("%s is no command any more: %s", name, gone)
        except (NotACommand, Unfit) as why:
            # Its outline was that of a command and the rest is not, e.g. a name in Latin-1. Without
            # this note the next scan would find a command again, and so on without end.
            self._plan.note(name, mark, str(why), self._clock.monotonic_s())
        except OSError:
            raise
        except Exception as defect:  # ours, and logged: no file of others ends the service
            log.exception("%s could not be judged", name)
            reason = f"jobbus broke on it: {type(defect).__name__}; please report that"
            self._plan.note(name, mark, reason, self._clock.monotonic_s())
        return None

    def _refusal(self, name: str, queue_fd: int, why: Refused) -> CommandRecord | None:
        try:
            return self._reader.rejected(name, queue_fd, why, self._clock.now_ms())
        except (FileNotFoundError, InMotion, NotACommand, Unfit) as gone:
            log.debug("%s changed while it was refused: %s", name, gone)
            return None


def _name_of(command_id: str, queue_fd: int) -> str | None:
    """What the command's file is called, in whatever case."""
    own = f"{command_id}{SUFFIX}"
    return next((name for name in os.listdir(queue_fd) if name.lower() == own), None)
