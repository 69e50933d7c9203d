"""Programs in Node with packages from npm: installed once into a cache, at fixed versions."""

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.counterparts import missing, needs

# The newest that run on the Node of Debian 12 and later (18).
PACKAGES = ("eventsource@3.0.7", "eventsource-parser@3.1.1", "event-source-polyfill@1.0.31")
INSTALL_S = 300.0
PATIENCE_S = 30.0

_PROGRAMS = Path(__file__).parent / "node"
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jobbus-tests"

ParsedEvent = tuple[str, str, str]
"""What a reader makes of an event: its name, the last id so far, its data."""


def packages() -> Path:
    """The folder that holds the packages; it appears whole."""
    npm, done = needs("npm"), _CACHE / "+".join(PACKAGES).replace("/", "-")
    if not done.exists():
        _CACHE.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=_CACHE))
        try:
            _install(npm, draft)
            draft.rename(done)
        except OSError:
            assert done.exists()  # another run of the tests was faster
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return done / "node_modules"


class NodeProgram:
    """One of the programs in `tests/node` while it runs. It speaks in lines of JSON."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def next(self) -> ParsedEvent:
        """What it says next.

        Raises:
            EOFError: it has ended.
        """
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = await self._process.stdout.readline()
        if not line:
            raise EOFError
        kind, id, data = json.loads(line)
        return kind, id, data

    async def until(self, kind: str, part: str = "") -> list[ParsedEvent]:
        """All up to the first of that kind with `part` in its data."""
        received = [await self.next()]
        while received[-1][0] != kind or part not in received[-1][2]:
            received.append(await self.next())
        return received

    async def rest(self) -> list[ParsedEvent]:
        received: list[ParsedEvent] = []
        while True:
            try:
                received.append(await self.next())
            except EOFError:
                return received

    async def feed(self, data: bytes) -> list[ParsedEvent]:
        """All that it says when its input is `data` and no more."""
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.close()
        return await self.rest()


@asynccontextmanager
async def node(program: str, *arguments: str) -> AsyncIterator[NodeProgram]:
    """The program runs; after the block it is gone."""
    executable, modules = needs("node"), await asyncio.to_thread(packages)
    process = await asyncio.create_subprocess_exec(
        *(executable, str(_PROGRAMS / program), *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={"NODE_PATH": str(modules), "PATH": os.environ.get("PATH", os.defpath)},
        limit=16 * 1024 * 1024,
    )
    try:
        yield NodeProgram(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def _install(npm: str, folder: Path) -> None:
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--save-exact"]
    try:
        done = subprocess.run(
            [*command, *PACKAGES],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=INSTALL_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        missing("npm does not get the packages of the tests in time")
    if done.returncode:
        missing(f"npm cannot get the packages of the tests: {done.stderr.strip()[-500:]}")
