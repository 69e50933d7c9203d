"""A directory transport at work in a real folder, and writers as the origin's are."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bus.clock import SystemClock
from bus.envelope import Envelope
from bus.layout import DataLayout
from bus.model import CommandRecord, CommandStatus
from transports.directory.settings import DirectorySettings
from transports.directory.transport import DirectoryTransport

SECRET = b"s" * 32
QUICK = DirectorySettings(settle_s=0.1, stray_s=0.3, scan_interval_s=0.05)
"""Settings under which five seconds pass in a tenth of one."""


@asynccontextmanager
async def running(
    root: Path,
    *,
    known: Callable[[str], CommandRecord | None] = lambda _: None,
    settings: DirectorySettings = QUICK,
    refused: Callable[[CommandRecord], None] | None = None,
) -> AsyncIterator[DirectoryTransport]:
    """A transport that has looked once; closed after the block."""
    transport = DirectoryTransport(
        DataLayout(root),
        clock=SystemClock(),
        known=known,
        secret=SECRET,
        settings=settings,
        refused=refused,
    )
    ready = asyncio.Event()
    async with asyncio.timeout(50), asyncio.TaskGroup() as group:
        group.create_task(transport.run(ready), name="transport")
        await ready.wait()
        try:
            yield transport
        finally:
            await transport.aclose()


def origins_fields(**changes: Any) -> dict[str, Any]:
    """What the origin's Submit-JobCommand puts into a file, with a random GUID."""
    return {
        "CommandID": str(uuid.uuid4()),
        "Command": "start",
        "JobID": "WebHostMetrics/CollectMetrics",
        "UserID": "alice",
        "SessionID": "s-1",
        "Variables": {"Interval": 30},
        "Roles": ["operator"],
        "SubmittedAt": "2026-01-26T10:00:00.0000000-08:00",
        "Status": "Pending",
        **changes,
    }


def drop(layout: DataLayout, fields: dict[str, Any], data: bytes | None = None) -> Path:
    """The file lies in the queue under its final name, written straight there."""
    layout.queue.mkdir(parents=True, exist_ok=True)
    path = layout.queue / f"{fields['CommandID']}.json"
    path.write_bytes(json.dumps(fields).encode() if data is None else data)
    return path


async def received(transport: DirectoryTransport, count: int) -> list[Envelope]:
    """The next `count` commands."""
    taken: list[Envelope] = []
    while len(taken) < count:
        taken.extend(await transport.receive(count - len(taken)))
    return taken


async def until(condition: Callable[[], object]) -> None:
    """Waits for something that has no event of its own; the test's timeout bounds it."""
    while not condition():
        await asyncio.sleep(0.01)


def record_of(envelope: Envelope, status: CommandStatus) -> CommandRecord:
    """What the table would hold of a command."""
    return CommandRecord(
        id=envelope.id,
        id_text=envelope.id_text,
        kind="start",
        user_id=envelope.principal.user_id,
        roles=envelope.principal.roles,
        submitted_ms=envelope.submitted_ms,
        submitted_text=envelope.submitted_text,
        body_hash=envelope.body_hash,
        status=status,
    )


def names(folder: Path) -> list[str]:
    """What lies in a folder, hidden names left out."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def reasons(layout: DataLayout) -> dict[str, str]:
    """Original name to reason of everything that was rejected."""
    found = {}
    for name in names(layout.rejects):
        if name.endswith(".reason.json"):
            file = json.loads((layout.rejects / name).read_bytes())
            found[file["OriginalName"]] = file["Reason"]
    return found
