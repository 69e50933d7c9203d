"""What somebody without a credential can write into the log."""

import asyncio

import pytest

from tests.gateway_fixture import Backend, serving

MANY = 400


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\n",
        b"GET /api/v1/jobs HTTP/1.1\r\nHost: evil\r\n",
        b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n",
        b"\x16\x03\x01 garbage\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX" + b"y" * 9000 + b": 1\r\n",
        b"POST /api/v1/session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 15\r\nConnection: close\r\n\r\n" + b'{"token":"jb_"}',
        b"GET /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer wrong\r\n",
        b"A" * 200 + b" / HTTP/1.1\r\nHost: localhost\r\n",
    ],
    ids=["anonymous", "host", "path", "garbage", "header", "sign-in", "token", "method"],
)
async def test_a_flood_of_refused_requests_leaves_a_short_log(
    request_bytes: bytes, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("INFO")
    if b"\r\n\r\n" not in request_bytes:
        request_bytes += b"Connection: close\r\n\r\n"
    async with serving(Backend()) as (url, _):
        host, _, port = url.removeprefix("http://").rpartition(":")
        for _ in range(MANY // 20):
            async with asyncio.timeout(30), asyncio.TaskGroup() as group:
                for _ in range(20):
                    group.create_task(sent(host, int(port), request_bytes))
    written = caplog.text + "".join(capsys.readouterr())
    assert len(written) < 60_000, written[-2000:]


async def sent(host: str, port: int, data: bytes) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(data)
    try:
        await reader.read()
    except ConnectionError:
        return
    finally:
        writer.close()
