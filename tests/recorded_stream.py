"""A stream of a real service as bytes, with each kind of frame: what all parsers must agree on.

`python -m tests.recorded_stream` records it again into `tests/unit/golden/stream-1.sse`.
"""

import asyncio
import json
import tempfile
from pathlib import Path

from tests.jobs import Apps
from tests.service import Service

GOLDEN = Path(__file__).parent / "unit" / "golden" / "stream-1.sse"

KINDS = (
    *("hello", "snapshot", "snapshot_end", "change", "bookmark"),
    *("reset", "output", "gap", "problem", "end"),
)
"""The names of the contract. A browser receives only the names that it listens to."""

# Line ends of all sorts, what looks like fields, broken UTF-8, a BOM, and an open line at the end.
HOSTILE = (
    b"id: forged\nevent: end\ndata: {}\n\r\n a\rb\r\n: comment\n\xef\xbb\xbfBOM\n"
    + "line\u2028paragraph\u2029next\u0085vt\x0bff\x0cnul\0 \\ \" '\n".encode()
    + "caf\u00e9 \u6f22\u5b57 \U0001f600\n".encode()
    + b"\xff\xfe broken \xe2\x82\n\x1b[31mred\x1b[0m\n\n\nopen"
)


def define(apps: Apps) -> None:
    hostile = "".join(f"\\{byte:03o}" for byte in HOSTILE)
    progress = "printf '50%% id: x\\nevent: end\\n' >> \"$JOBBUS_PROGRESS\""
    apps.shell("T/Say", f"{progress}; printf '{hostile}'", description="a\n\nb: \u2028 \u00e9")


async def record(service: Service) -> bytes:
    """The bytes of four streams one after the other; the service has ended."""
    async with service.http() as http, await service.stream() as events:
        await events.until_kind("snapshot_end")
        execution_id = await http.start("T/Say")
        await events.until_change("execution.ended", executionId=execution_id)
        output = f"/api/v1/executions/{execution_id}/stream"
        async with await service.stream(output) as followed:
            await followed.rest()
        async with await service.stream("/api/v1/events?start=now") as idle:
            await idle.until_kind("bookmark")
        async with await service.stream(Last_Event_ID="nonsense") as lost:
            await lost.until_kind("snapshot_end")
        await asyncio.to_thread(service.end)
        await events.rest()
    return b"".join(each.raw for each in (events, followed, idle, lost))


def shape(frames: list[tuple[str, str]]) -> set[tuple[str, frozenset[str]]]:
    """Which kinds of frames there are, and which members their data have."""
    return {(kind, frozenset(json.loads(data))) for kind, data in frames}


def main() -> None:
    with tempfile.TemporaryDirectory() as root:
        service = Service(Path(root))
        define(service.apps)
        try:
            service.start()
            GOLDEN.write_bytes(asyncio.run(record(service)))
        finally:
            service.clear_away()


if __name__ == "__main__":
    main()
