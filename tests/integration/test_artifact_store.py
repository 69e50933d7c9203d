"""Files that executions left, as readers get them while others touch them."""

import io
import json
import os
import resource
import uuid
import zipfile
from contextlib import aclosing
from pathlib import Path
from typing import IO

import pytest

from bus.errors import ArtifactGone
from bus.layout import DataLayout
from bus.ports import Artifact
from handlers.output.artifact_store import ArtifactStore

PIECE = 1024


class Left:
    """The folder of an execution with a list, as a shim leaves it."""

    def __init__(self, place: Path) -> None:
        self.id = str(uuid.uuid4())
        self.place = DataLayout(place).execution(self.id)
        self.place.artifacts.mkdir(parents=True)
        self.store = ArtifactStore(DataLayout(place))
        self.files: list[Artifact] = []

    def put(self, name: str, content: bytes) -> Artifact:
        (self.place.artifacts / name).write_bytes(content)
        return self.listed(name, name)

    def listed(self, name: str, path: str) -> Artifact:
        """The list names that file under `path` from now on."""
        found = (self.place.artifacts / name).stat()
        artifact = Artifact(path=path, size=found.st_size, mtime_ns=found.st_mtime_ns)
        self.files.append(artifact)
        files = [{"path": a.path, "size": a.size, "mtime_ns": a.mtime_ns} for a in self.files]
        content = {"folder": "artifacts", "files": files}
        self.place.artifact_list.write_text(json.dumps(content))
        return artifact

    async def read(self, artifact: Artifact) -> bytes:
        pieces = self.store.pieces(self.id, artifact, 0, artifact.size, PIECE)
        async with aclosing(pieces):
            return b"".join([piece async for piece in pieces])

    async def archive(self, out: IO[bytes]) -> None:
        async with aclosing(self.store.zipped(self.id, self.files, 256 * PIECE)) as pieces:
            async for piece in pieces:
                out.write(piece)


@pytest.fixture
def left(tmp_path: Path) -> Left:
    return Left(tmp_path)


async def test_a_file_that_is_cut_while_it_is_read_is_no_shorter_file(left: Left) -> None:
    artifact = left.put("a", b"x" * 10 * PIECE)
    pieces = left.store.pieces(left.id, artifact, 0, artifact.size, PIECE)
    async with aclosing(pieces):
        assert await anext(pieces) == b"x" * PIECE
        os.truncate(left.place.artifacts / "a", 2 * PIECE)
        assert await anext(pieces) == b"x" * PIECE
        with pytest.raises(ArtifactGone):
            await anext(pieces)


async def test_a_file_that_grows_while_it_is_read_has_the_length_that_was_promised(
    left: Left,
) -> None:
    artifact = left.put("a", b"x" * 2 * PIECE)
    pieces = left.store.pieces(left.id, artifact, 0, artifact.size, PIECE)
    async with aclosing(pieces):
        first = await anext(pieces)
        with (left.place.artifacts / "a").open("ab") as file:
            file.write(b"more")
        assert first + b"".join([piece async for piece in pieces]) == b"x" * 2 * PIECE
    with pytest.raises(ArtifactGone):
        await left.read(artifact)


async def test_an_archive_with_a_file_that_is_gone_is_broken_off(left: Left) -> None:
    left.put("a", b"first")
    left.put("b", b"second")
    (left.place.artifacts / "b").unlink()
    got = io.BytesIO()
    with pytest.raises(ArtifactGone):
        await left.archive(got)
    assert not zipfile.is_zipfile(got)


@pytest.mark.parametrize(
    "path", ["../exit.json", "%2e%2e/exit.json", "a/../../exit.json", "./a", ""]
)
async def test_a_list_that_somebody_forged_leads_nowhere_else(left: Left, path: str) -> None:
    left.put("a", b"left")
    (left.place.exit).write_bytes(b"{}")
    size = 4 if path == "./a" else 2
    time_ns = left.place.exit.stat().st_mtime_ns
    with pytest.raises(ArtifactGone):
        await left.read(Artifact(path=path, size=size, mtime_ns=time_ns))


async def test_a_second_name_or_a_pipe_is_not_read(left: Left) -> None:
    artifact = left.put("a", b"left")
    os.link(left.place.artifacts / "a", left.place.root / "second")
    with pytest.raises(ArtifactGone):
        await left.read(artifact)
    (left.place.artifacts / "a").unlink()
    os.mkfifo(left.place.artifacts / "a")
    with pytest.raises(ArtifactGone):
        await left.read(artifact)


@pytest.mark.exhaustive
async def test_an_archive_beyond_4_gib_is_whole_and_takes_little_memory(left: Left) -> None:
    with (left.place.artifacts / "large").open("wb") as file:
        file.truncate(5 << 30)
    artifact = left.listed("large", "large")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    archive = left.place.root / "all.zip"
    with archive.open("wb") as out:
        await left.archive(out)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024
    with zipfile.ZipFile(archive) as files:
        assert files.getinfo("large").file_size == artifact.size
        assert files.testzip() is None
