"""What executions have left in files, for readers: as their shims listed it, and nothing else.

No link is followed on the way to a file, and it is read only while it is what was listed.
"""

import os
import stat
import unicodedata
import zipfile
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote_to_bytes

import msgspec
from aiofiles.threadpool import wrap

from bus.envelope import canonical_uuid
from bus.errors import ArtifactGone
from bus.files import NotRegular, read_regular
from bus.layout import DataLayout
from bus.ports import Artifact
from bus.scarcity import NO_MEANS
from bus.threads import READS
from bus.visible_text import visible

LIST_BYTES_MAX = 64 * 1024 * 1024
"""Of the longest list there can be, with every name as long as it may be."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_CUT = "the file was cut while it was read"
_YEAR_MIN = 1980
"""The first that a zip can name."""
_UNSAFE = {ord(sign): "_" for sign in '\\:*?"<>|'} | dict.fromkeys(range(32), "_")
"""Signs by which a name means another place, or nothing, where the zip is unpacked."""


class _List(msgspec.Struct, frozen=True, kw_only=True):
    """`artifacts.json`: the names below `folder`, a path in the folder of the execution."""

    folder: str
    files: tuple[Artifact, ...]


_decoder = msgspec.json.Decoder(_List)


class ArtifactStore:
    """Implements `bus.ports.ArtifactReader`."""

    def __init__(self, layout: DataLayout) -> None:
        self._layout = layout

    async def listed(self, execution_id: str) -> tuple[Artifact, ...]:
        return (await READS.run(self._list, execution_id)).files

    async def pieces(
        self, execution_id: str, artifact: Artifact, start: int, end: int, size: int
    ) -> AsyncGenerator[bytes, None]:
        folder = (await READS.run(self._list, execution_id)).folder
        descriptor = await READS.run(self._opened, execution_id, folder, artifact)
        file = wrap(os.fdopen(descriptor, "rb", buffering=0), executor=READS.executor())
        try:
            await file.seek(start)
            while start < end:
                if not (data := await file.read(min(size, end - start))):
                    raise ArtifactGone(_CUT)
                start += len(data)
                yield data
        finally:
            await file.close()

    async def zipped(
        self, execution_id: str, artifacts: Sequence[Artifact], size: int
    ) -> AsyncGenerator[bytes, None]:
        with closing(self._zip(execution_id, artifacts, size)) as pieces:
            while (piece := await READS.run(next, pieces, None)) is not None:
                yield piece

    def _list(self, execution_id: str) -> _List:
        place = self._layout.execution(canonical_uuid(execution_id))
        try:
            return _decoder.decode(read_regular(place.artifact_list, LIST_BYTES_MAX))
        except (NotRegular, msgspec.DecodeError, UnicodeDecodeError):
            return _List(folder="", files=())
        except OSError as error:
            if error.errno in NO_MEANS:
                raise
            return _List(folder="", files=())

    def _opened(self, execution_id: str, folder: str, artifact: Artifact) -> int:
        """A descriptor of the file.

        Raises:
            ArtifactGone: it is not there as it was listed.
        """
        root = self._layout.execution(canonical_uuid(execution_id)).root
        try:
            return _opened(root, folder, artifact)
        except OSError as error:
            if error.errno in NO_MEANS:
                raise
            raise ArtifactGone(
                "the file is not as the program left it any more, or cannot be read"
            ) from error

    def _zip(
        self, execution_id: str, artifacts: Sequence[Artifact], size: int
    ) -> Generator[bytes, None, None]:
        """The archive in pieces, of which only one is in memory.

        Raises:
            ArtifactGone: a file changed; what was made so far is no whole archive.
        """
        sink, folder = _Sink(), self._list(execution_id).folder
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:  # type: ignore[call-overload] # it only writes
            for name, artifact in _names(artifacts):
                with (
                    self._reading(execution_id, folder, artifact) as descriptor,
                    archive.open(_entry(name, artifact), "w") as entry,
                ):
                    at = 0
                    while at < artifact.size:
                        data = _read(descriptor, min(size, artifact.size - at), at)
                        entry.write(data)
                        at += len(data)
                        yield from sink.taken(size)
        yield from sink.taken(1)

    @contextmanager
    def _reading(self, execution_id: str, folder: str, artifact: Artifact) -> Iterator[int]:
        descriptor = self._opened(execution_id, folder, artifact)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


class _Sink:
    """What an archive is written to: it cannot be sought, and gives out what has gathered."""

    def __init__(self) -> None:
        self._gathered = bytearray()

    def write(self, data: bytes) -> int:
        self._gathered += data
        return len(data)

    def flush(self) -> None:
        """All is there."""

    def taken(self, size_min: int) -> Iterator[bytes]:
        """What has gathered, if it is as much as that."""
        if len(self._gathered) >= size_min:
            data, self._gathered = bytes(self._gathered), bytearray()
            yield data


def _opened(root: Path, folder: str, artifact: Artifact) -> int:
    """Raises OSError if it is not there as it was listed."""
    *above, name = unquote_to_bytes(artifact.path).split(b"/")
    if {b"", b".", b".."} & {name, *above}:
        raise FileNotFoundError(artifact.path)  # no shim lists such a name
    handle = os.open(root, _FOLDER)
    for part in (*os.fsencode(folder).split(b"/"), *above):
        try:
            inner = os.open(part, _FOLDER, dir_fd=handle)
        finally:
            os.close(handle)
        handle = inner
    try:
        descriptor = os.open(name, _FILE, dir_fd=handle)
    finally:
        os.close(handle)
    found = os.fstat(descriptor)
    is_same = (found.st_size, found.st_mtime_ns) == (artifact.size, artifact.mtime_ns)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or not is_same:
        os.close(descriptor)
        raise FileNotFoundError(artifact.path)
    return descriptor


def _read(descriptor: int, size: int, at: int) -> bytes:
    """Some bytes, at least one.

    Raises:
        ArtifactGone: the file is shorter than it was.
    """
    data = os.pread(descriptor, size, at)
    if not data:
        raise ArtifactGone(_CUT)
    return data


def _names(artifacts: Sequence[Artifact]) -> Iterator[tuple[str, Artifact]]:
    """Each file with a name in the archive that leads nowhere else, and that no other has."""
    used: set[str] = set()
    for artifact in artifacts:
        text = unquote_to_bytes(artifact.path).decode("utf-8", "replace").translate(_UNSAFE)
        text = visible(text)
        stem, dot, ending = text.rpartition(".")
        name, number = text, 1
        while _unpacked(name) in used:
            number += 1
            name = f"{stem}-{number}.{ending}" if dot and stem else f"{text}-{number}"
        used.add(_unpacked(name))
        yield name, artifact


def _unpacked(name: str) -> str:
    """Equal for names that some file systems take for the same."""
    return unicodedata.normalize("NFC", name).casefold()


def _entry(name: str, artifact: Artifact) -> zipfile.ZipInfo:
    at = datetime.fromtimestamp(artifact.mtime_ns / 1e9, UTC)
    year = min(max(at.year, _YEAR_MIN), _YEAR_MIN + 127)
    entry = zipfile.ZipInfo(name, (year, *at.timetuple()[1:6]))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.file_size = artifact.size  # by which it knows whether it needs zip64
    entry.external_attr = 0o644 << 16
    return entry
