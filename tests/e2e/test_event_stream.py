"""`GET /events` as `curl -N` shows it: the bytes of the contract and no others."""

import asyncio
import json
import re
from collections.abc import Iterator

import pytest

from tests.counterparts import needs
from tests.jobs import Apps
from tests.service import PATIENCE_S, Service, running_service

BLOCK = rb"(?:id: [a-z0-9-]{1,40}\n)?event: [a-z_]+\ndata: \{[^\r\n]*\}\n\n"
BODY = re.compile(rb"retry: (\d+)\n(?::[^\r\n]*\n)?((?:%s)+)" % BLOCK)
ONE = re.compile(rb"(?:id: ([a-z0-9-]{1,40})\n)?event: ([a-z_]+)\ndata: ([^\n]*)\n\n")
RESUMABLE = {"change", "snapshot_end", "bookmark"}


def define(apps: Apps) -> None:
    apps.shell("T/Hello", 'printf "50%% a\\\\r\\\\nb\\n" >> "$JOBBUS_PROGRESS"; printf "a\\r\\nb"')


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("bytes"), define) as running:
        yield running


async def curl_until(
    service: Service, marker: bytes, *arguments: str, path: str = "/api/v1/events"
) -> tuple[bytes, bytes]:
    """Head and body as curl prints them up to the event with `marker`; meanwhile a job runs."""
    process = await asyncio.create_subprocess_exec(
        *(needs("curl"), "-sNi", "-H", f"Authorization: Bearer {service.token}", *arguments),
        service.url + path,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    raw = b""
    started = False
    try:
        async with asyncio.timeout(PATIENCE_S), service.http() as http:
            while marker not in raw or not raw.endswith(b"\n\n"):
                piece = await process.stdout.read(65_536)
                assert piece, raw
                raw += piece
                if not started and b"event: " in raw:
                    await http.start("T/Hello")
                    started = True
    finally:
        process.kill()
        await process.wait()
    head, _, body = raw.partition(b"\r\n\r\n")
    return head, body


async def test_events_are_exactly_the_bytes_of_the_contract(service: Service) -> None:
    head, body = await curl_until(service, b'"execution.ended"')
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert status == "HTTP/1.1 200 OK"
    assert headers["content-type"] == "text/event-stream"
    assert headers["cache-control"] == "no-store, no-transform"
    assert headers["x-accel-buffering"] == "no"
    assert "content-length" not in headers
    assert "content-encoding" not in headers
    assert b"\r" not in body
    assert b"\0" not in body
    whole = BODY.fullmatch(body)
    assert whole is not None, body
    assert 500 <= int(whole[1]) <= 3000
    events = [
        (match[1].decode() if match[1] else None, match[2].decode(), json.loads(match[3]))
        for match in ONE.finditer(whole[2])
    ]
    kinds = [kind for _, kind, _ in events]
    assert kinds[:3] == ["hello", "snapshot", "snapshot_end"]
    assert set(kinds[3:]) == {"change"}
    assert all((id is not None) == (kind in RESUMABLE) for id, kind, _ in events)
    epochs = {id.rpartition("-")[0] for id, _, _ in events if id}
    assert epochs == {events[0][2]["epoch"]}
    numbers = [int(id.rpartition("-")[2]) for id, _, _ in events if id]
    assert numbers == sorted(set(numbers))
    for id, kind, data in events:
        if kind == "change":
            assert data["specversion"] == "1.0"
            assert data["id"] == id
            assert {"source", "type", "subject", "time", "data", "version"} <= data.keys()


async def test_start_now_sends_a_bookmark_at_once(service: Service) -> None:
    _, body = await curl_until(service, b'"execution.ended"', path="/api/v1/events?start=now")
    whole = BODY.fullmatch(body)
    assert whole is not None, body
    kinds = [match[2] for match in ONE.finditer(whole[2])]
    assert kinds[:3] == [b"hello", b"bookmark", b"change"]


async def test_resuming_after_an_id_sends_only_what_came_after_it(service: Service) -> None:
    _, before = await curl_until(service, b'"execution.ended"')
    ids = [match[1] for match in ONE.finditer(before) if match[1]]
    cursor = ids[-3].decode()
    _, body = await curl_until(service, b'"execution.ended"', "-H", f"Last-Event-ID: {cursor}")
    received = list(ONE.finditer(body))
    assert json.loads(received[0][3])["resumed"] is True
    assert [match[1] for match in received[1:3]] == ids[-2:]
    assert {match[2] for match in received[1:]} == {b"change"}


@pytest.mark.parametrize(
    ("cursor", "reason"),
    [
        ("nonsense", "cursor_invalid"),
        ("0000000000-1", "epoch_changed"),
        ("{epoch}-999999999", "cursor_ahead"),
    ],
)
async def test_position_that_cannot_be_resumed_is_one_reset_and_a_snapshot(
    service: Service, cursor: str, reason: str
) -> None:
    async with await service.stream() as stream:
        epoch = (await stream.next()).data["epoch"]
    async with await service.stream(Last_Event_ID=cursor.format(epoch=epoch)) as stream:
        received = await stream.until_kind("snapshot_end")
    assert [each.kind for each in received[:2]] == ["hello", "reset"]
    assert received[1].data["reason"] == reason
    assert stream.status == 200
    assert all(each.kind == "snapshot" for each in received[2:-1])
