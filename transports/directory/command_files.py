"""A file of the queue, read and judged: an envelope, an outline, or the reason why neither."""

import codecs
import os

import msgspec

from bus.commands import is_urgent_kind
from bus.envelope import Envelope
from bus.errors import Refused
from bus.model import CommandRecord
from transports.directory import command_format, disk, foreign, foreign_commands
from transports.directory.command_format import SUFFIX, NotACommand, id_in_name
from transports.directory.settings import DirectorySettings

OWNER_MAX = 64
"""Characters of a user's name that say whose turn it is."""
_MARKED = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_PADDING = b" \t\r\n\0"


class Sighting(msgspec.Struct, frozen=True):
    """What decides about the place of a command in the queue.

    One of `accepted_ns` (ours) and `submitted_ms` (foreign) is set. `owner` has a turn with it:
    the account that wrote it or, if that is the service's own, whom it names. `size` is its bytes.
    """

    id: str
    name: str
    accepted_ns: int
    submitted_ms: int
    urgent: bool
    owner: str
    size: int = 0


class FileReader:
    """Reads queue files. All methods block.

    The sealed files of other accounts are foreign files like any other: a seal says that our code
    wrote the bytes, the owner of the file says that no other account put them there.
    """

    def __init__(self, secret: bytes, settings: DirectorySettings) -> None:
        self._secret = secret
        self._settings = settings
        self._uid = os.geteuid()

    def go_by(self, settings: DirectorySettings) -> None:
        """From now on these count."""
        self._settings = settings

    def envelope(self, name: str, inside: int) -> Envelope:
        """The whole command.

        Raises:
            FileNotFoundError, Unfit, InMotion: see `disk.read_file`.
            NotACommand: the bytes are none, or one under another name.
            Refused: a command that cannot be carried out; only its writer gets to know.
        """
        text, found = self._text(name, inside)
        sealed = self._sealed(text, found.mark)
        if sealed is not None:
            _check_name(name, command_format.command_id_of(sealed.command_id))
            return _believed(sealed)
        file = foreign_commands.decode(text)
        _check_name(name, command_format.command_id_of(file.command_id))
        return foreign.envelope_of(file, self._writer(found.mark), self._settings, self._secret)

    def rejected(self, name: str, inside: int, why: Refused, now_ms: int) -> CommandRecord:
        """The record of a command that `envelope` refused.

        Raises: as `envelope`, but for `Refused`.
        """
        text, found = self._text(name, inside)
        file = foreign_commands.decode(text)
        return foreign.rejected(file, self._writer(found.mark), self._settings, why, now_ms)

    def sighting(self, name: str, inside: int) -> Sighting:
        """As much as the order needs; whether the command makes sense is judged later.

        Raises: as `envelope`, but for `Refused`.
        """
        text, found = self._text(name, inside)
        outline = command_format.outline(text)
        command_id = command_format.command_id_of(outline.command_id)
        _check_name(name, command_id)
        accepted_ns = self._accepted_ns(text, outline.accepted_at, found.mark)
        mtime_ms = disk.time_of(found.mark)
        return Sighting(
            command_id,
            name,
            accepted_ns,
            0 if accepted_ns else foreign.submitted_ms(outline.submitted_at, mtime_ms),
            is_urgent_kind(outline.command),
            self._owner(outline.user_id, found.mark),
            len(text),
        )

    def _owner(self, written: object, mark: disk.Mark) -> str:
        if mark.uid != self._uid:
            return f"uid:{mark.uid}"
        return written[:OWNER_MAX] if isinstance(written, str) else ""

    def repaired_name(self, name: str, inside: int) -> str | None:
        """Under which name a file from Rejects belongs into the queue; None if it is no command."""
        try:
            text, _ = self._text(name, inside)
            written = command_format.outline(text).command_id
            command_format.command_id_of(written)
        except (OSError, disk.Unfit, disk.InMotion, NotACommand):
            return None
        return f"{written}{SUFFIX}"

    def _text(self, name: str, inside: int) -> tuple[bytes, disk.FoundFile]:
        _check_suffix(name)
        found = disk.read_file(name, inside, self._settings.file_size_max)
        try:
            return plain_json(found.data), found
        except ValueError as error:
            raise NotACommand(
                f"its first bytes promise {promised(found.data)}, and not all of it is that; "
                f"{command_format.WRITE_UTF8}"
            ) from error

    def _sealed(self, text: bytes, mark: disk.Mark) -> command_format.SealedFile | None:
        if mark.uid != self._uid:
            return None
        try:
            return command_format.open_seal(text, self._secret)
        except (ValueError, RecursionError) as error:
            raise NotACommand(f"sealed by another version: {error}") from error

    def _accepted_ns(self, text: bytes, written: object, mark: disk.Mark) -> int:
        if not isinstance(written, int) or mark.uid != self._uid:
            return 0
        # Only the place in the queue hangs on it, and the file is of the service's own account:
        # the seal is checked when the command is read for good.
        return written if command_format.looks_sealed(text) else 0

    def _writer(self, mark: disk.Mark) -> foreign.Writer:
        return foreign.Writer(mark.uid, mark.uid == self._uid, disk.time_of(mark))


def _believed(sealed: command_format.SealedFile) -> Envelope:
    try:
        return command_format.unsealed(sealed)
    except ValueError as error:
        raise NotACommand(f"sealed by another version: {error}") from error


def _check_suffix(name: str) -> None:
    if not name.endswith(SUFFIX):
        raise NotACommand(f"a command file is called {{CommandID}}{SUFFIX}")


def _check_name(name: str, command_id: str) -> None:
    if id_in_name(name) != command_id:
        raise NotACommand(f"the file must be called as its CommandID: {command_id}{SUFFIX}")


def plain_json(raw: bytes) -> bytes:
    """The text without byte order mark and padding, as UTF-8.

    Raises:
        ValueError: a byte order mark promises an encoding that the rest does not keep.
    """
    if raw[:1] == b"{" and raw[-1:] in (b"}", b"\n"):
        return raw
    for mark, name in _MARKED:
        if raw.startswith(mark):
            text = raw[len(mark) :]
            if name == "utf-8":
                return text.strip(_PADDING)
            return text.decode(name).encode().strip(_PADDING)
    return raw.strip(_PADDING)


def promised(raw: bytes) -> str:
    """The name of the encoding whose byte order mark stands first."""
    return next((name[:6].upper() for mark, name in _MARKED if raw.startswith(mark)), "UTF-8")
