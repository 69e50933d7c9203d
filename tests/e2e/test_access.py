"""Getting in, with the CLI against a real service: tokens, TLS, and addresses that are refused."""

import asyncio
import io
import json
import os
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import aiohttp
import pytest

from jobbus.cli.main import run
from tests.service import Service


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path)
    yield made
    made.clear_away()


def jobbus(service: Service, *arguments: str, code: int = 0, token: str = "") -> tuple[str, str]:
    """stdout and stderr of the CLI, which ended with `code`."""
    out, err = io.StringIO(), io.StringIO()
    environment = {"JOBBUS_DATA": str(service.data), "JOBBUS_TOKEN": token}
    with patch.dict(os.environ, environment), redirect_stdout(out), redirect_stderr(err):
        found = run(arguments)
    assert found == code, err.getvalue()
    return out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for a name that no client asks for, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=jobs.example.org"),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    key.chmod(0o600)
    return cert, key


async def test_a_revoked_token_ends_its_stream_and_opens_nothing(service: Service) -> None:
    await asyncio.to_thread(service.start)
    made = json.loads(
        await _cli(service, "token", "create", "--user", "ci", "--role", "viewer", "--json")
    )
    headers = {"Authorization": f"Bearer {made['token']}", "Accept": "application/x-ndjson"}
    async with aiohttp.ClientSession(service.url, headers=headers) as session:
        stream = await session.get("/api/v1/events?start=now")
        assert json.loads(await stream.content.readline())["op"] == "hello"
        await _cli(service, "token", "revoke", made["id"])
        async with asyncio.timeout(20):
            last = [json.loads(line) async for line in stream.content][-1]
        refused = await session.get("/api/v1/jobs")
    assert (last["op"], last["data"]["reason"]) == ("end", "revoked")
    assert refused.status == 401


def test_tokens_made_with_and_without_a_service_are_the_same_ones(service: Service) -> None:
    service.start()
    with_service, _ = jobbus(service, "token", "create", "--user", "a", "--role", "viewer")
    service.kill9()
    without, said = jobbus(
        service, "token", "create", "--user", "b", "--role", "viewer", "--expires", "never"
    )
    listed, _ = jobbus(service, "token", "list", "--json")
    service.start()
    users = {token["userId"]: token["expiresAt"] for token in json.loads(listed)["items"]}
    assert set(users) == {"a", "b"}
    assert users["b"] is None
    assert without.strip() not in said
    for token in (with_service, without):
        url = ("--url", service.url)
        assert jobbus(service, "jobs", "--json", *url, token=token.strip())
    again, _ = jobbus(service, "token", "list")
    assert "hash" not in again
    assert not service.complaints()


def test_the_account_s_token_is_replaced_in_use_and_at_rest(service: Service) -> None:
    service.start()
    first = service.token
    jobbus(service, "token", "rotate-admin")
    second = (service.data / "admin.token").read_text().strip()
    jobbus(service, "jobs", "--url", service.url, token=first, code=4)
    jobbus(service, "jobs")
    service.end()
    jobbus(service, "token", "rotate-admin")
    service.start()
    jobbus(service, "jobs", "--url", service.url, token=second, code=4)
    jobbus(service, "jobs")
    assert len({first, second, service.token}) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("create", "--user", "system:x", "--role", "viewer"), 2, "system:"),
        (("create", "--user", "a", "--role", "two words"), 2, "two words"),
        (("create", "--user", "a", "--role", "viewer", "--expires", "soon"), 2, "90d"),
        (("create", "--user", "a"), 2, "role"),
        (("revoke", "../../etc/passwd"), 2, "token list"),
        (("revoke", "0123456789ab"), 3, "0123456789ab"),
        (("revoke", "admin"), 6, "rotate-admin"),
        (("link",), 5, "jobbus serve"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    service: Service, arguments: tuple[str, ...], code: int, words: str
) -> None:
    service.data.mkdir(parents=True, mode=0o700)
    _, said = jobbus(service, "token", *arguments, code=code)
    assert words in said
    assert "Traceback" not in said


async def test_tls_is_spoken_and_the_cli_knows_the_certificate_by_itself(
    service: Service, certificate: tuple[Path, Path]
) -> None:
    cert, key = certificate
    arguments = ("--listen", "127.0.0.1:0", "--tls-cert", str(cert), "--tls-key", str(key))
    process = await asyncio.to_thread(service.spawn, *arguments)
    try:
        url = (await asyncio.to_thread(service._ready_line, process)).split()[-1]
        assert url.startswith("https://127.0.0.1:")
        listed = await _cli(service, "token", "list", "--json")
        token = (service.data / "admin.token").read_text().strip()
        trusting = ssl.create_default_context(cafile=str(cert))
        trusting.check_hostname = False
        async with aiohttp.ClientSession(url) as session:
            page = {"Origin": url, "Sec-Fetch-Site": "same-origin"}
            signed = await session.post(
                "/api/v1/session", json={"token": token}, headers=page, ssl=trusting
            )
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await session.get("/livez")
        plain = url.replace("https", "http")
        async with aiohttp.ClientSession(plain) as session:
            with pytest.raises(aiohttp.ClientError):
                await session.get("/livez")
    finally:
        process.kill()
        process.communicate()
    assert json.loads(listed) == {"items": []}
    assert signed.status == 204
    assert "secure" in signed.headers["Set-Cookie"].lower()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--listen", "0.0.0.0:0"), "--tls-cert"),
        (("--listen", "[::]:0"), "--behind-proxy"),
        (("--tls-cert", "CERT"), "tls_key"),
        (("--tls-cert", "CERT", "--tls-key", "CERT"), "no certificate and its key"),
        (("--tls-cert", "CERT", "--tls-key", "/nowhere"), "/nowhere"),
        (("--tls-cert", "CERT", "--tls-key", "OPEN"), "chmod"),
    ],
)
def test_what_would_be_open_or_broken_is_refused_at_the_start(
    service: Service, certificate: tuple[Path, Path], arguments: tuple[str, ...], words: str
) -> None:
    cert, key = certificate
    open_key = service.root / "open.pem"
    open_key.write_bytes(key.read_bytes())
    open_key.chmod(0o644)
    private = service.root / "cert.pem"
    private.write_bytes(cert.read_bytes())
    private.chmod(0o600)
    places = {"CERT": str(private), "OPEN": str(open_key)}
    process = service.spawn(*(places.get(word, word) for word in arguments))
    out, _ = process.communicate(timeout=60)
    log = service.log.read_text()
    assert process.returncode == 2
    assert words in log
    assert "Traceback" not in log
    assert not out


def test_credential_files_that_others_may_read_stop_the_start(service: Service) -> None:
    service.start()
    jobbus(service, "token", "create", "--user", "a", "--role", "viewer")
    service.end()
    tokens = service.data / "tokens.json"
    assert tokens.stat().st_mode & 0o777 == 0o600
    tokens.chmod(0o644)
    process = service.spawn("--listen", "127.0.0.1:0")
    process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"chmod 600 {tokens}" in service.log.read_text()


async def _cli(service: Service, *arguments: str) -> str:
    return (await asyncio.to_thread(jobbus, service, *arguments))[0]
