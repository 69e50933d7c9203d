"""SIGHUP puts in force what jobbus.toml, tokens and certificates are now, and ends nothing."""

import asyncio
import json
import os
import pty
import select
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import Apps
from tests.preforked_service import is_readable
from tests.service import PATIENCE_S, ROOT, Service, eventually, kill

HIDDEN = {"view": ["boss"], "start": ["boss"]}
SAYS = 'printf "%s\\n" "$JOBBUS_VAR_Key"'


def define(apps: Apps) -> None:
    apps.shell("L/Plain", "exit 0")
    apps.shell("L/Secret", SAYS, variables={"Key": {"type": "secret", "required": True}})


class Configured:
    """A service with a jobbus.toml, and what it has said about reading it."""

    def __init__(self, root: Path) -> None:
        self.service = Service(root)
        self.file = root / "jobbus.toml"
        define(self.service.apps)

    def write(self, text: str) -> None:
        self.file.write_text(text, encoding="utf-8")

    def start(self, *flags: str) -> None:
        self.service.start("--config", str(self.file), *flags)

    async def reload(self, text: str | None = None, *, works: bool = True) -> dict[str, Any]:
        """What the log says when the settings were read."""
        if text is not None:
            self.write(text)
        wanted = "the settings were read again" if works else "the settings stay as they were"
        before = len(self.said(wanted))
        kill(self.service.pid, signal.SIGHUP)
        found = await eventually(lambda: self.said(wanted)[before:], wanted)
        return found[0]

    def said(self, event: str) -> list[dict[str, Any]]:
        lines = self.service.log.read_text(encoding="utf-8").splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        return [entry for entry in entries if entry["event"] == event]


@pytest.fixture
def configured(tmp_path: Path) -> Iterator[Configured]:
    made = Configured(tmp_path)
    try:
        yield made
        assert not made.service.complaints()
    finally:
        made.service.clear_away()


async def test_settings_are_in_force_after_a_hang_up_and_nothing_was_interrupted(
    configured: Configured,
) -> None:
    configured.write("[limits]\nposts_per_s = 1000\n")
    configured.start()
    service = configured.service
    async with service.http() as http, await service.stream() as stream:
        await stream.until_kind("snapshot_end")
        answer = await configured.reload("[limits]\npost_burst = 1\nposts_per_s = 1\n")
        assert answer["changed"] == ["[limits] posts_per_s", "[limits] post_burst"]
        answers = [
            (await http.call("POST", "/commands", {"command": "start", "jobId": "L/None"})).status
            for _ in range(3)
        ]
        assert 429 in answers
        configured.write("")
        await configured.reload()
        answers = [
            (await http.call("POST", "/commands", {"command": "start", "jobId": "L/None"})).status
            for _ in range(3)
        ]
        assert answers == [404, 404, 404]
        await http.start("L/Plain")  # and the stream is the same one
        await stream.until_change("execution.ended", jobId="L/Plain")


async def test_broken_file_leaves_the_old_settings_in_force_and_says_where(
    configured: Configured,
) -> None:
    configured.write('[roles]\nview = ["guest"]\n')
    configured.start()
    service = configured.service
    async with service.http() as http:
        made = await http.call("POST", "/tokens", {"userId": "gina", "roles": ["guest"]})
        for text, word in (
            ("[roles\n", "no valid TOML"),
            (
                "\n[roles]\nview = [guest]\n",
                "line 3: no valid TOML, column 9: text stands in quotes",
            ),
            ("[limits]\nstreams = 1\nstreams = 2\n", '"streams" is there already, in line 2'),
            ("[rolls]\n", "rolls"),
            ("[limits]\nstreams = 'many'\n", "[limits] streams"),
            ("[directory]\ndefault_roles = ['admin']\n", "default_roles"),
        ):
            answer = await configured.reload(text, works=False)
            assert word in answer["reason"]
            assert "Traceback" not in answer["reason"]
        configured.file.unlink()
        await configured.reload(works=False)
    service.token = made.json["token"]
    async with service.http() as http:
        assert len((await http.get("/jobs"))["items"]) == 2


async def test_default_roles_secrets_and_roles_of_files_change(configured: Configured) -> None:
    secret = configured.service.root / "key"
    secret.write_text("first-value\n")
    secret.chmod(0o600)
    configured.write("")
    configured.start()
    service = configured.service
    async with service.http() as http:
        made = await http.call("POST", "/tokens", {"userId": "gina", "roles": ["guest"]})
        command = {"command": "start", "jobId": "L/Secret", "variables": {"Key": {"secret": "K"}}}
        assert (await http.call("POST", "/commands", command)).status == 422
        answer = await configured.reload(
            '[roles]\nview = ["guest", "operator"]\n[directory.role_map]\nsite = ["operator"]\n'
            f'[secrets]\nK = {{ file = "{secret}" }}\n'
        )
        assert answer["changed"] == ["[directory] role_map", "[roles] view", "secrets"]
        execution_id = await http.start("L/Secret", Key={"secret": "K"})
        assert (await http.ended(execution_id))["status"] == "Succeeded"
        assert await http.output(execution_id) == b"***\n"
    command_id = "0190a1b2-c3d4-4e5f-8a9b-0c1d2e3f4a5b"
    fields = {"CommandID": command_id, "Command": "start", "JobID": "L/Plain", "UserID": "x"}
    path = service.data / "JobCommandQueue" / f"{command_id}.json"
    path.write_text(json.dumps({**fields, "Roles": ["site"]}))
    result = await eventually(lambda: service.result(command_id))
    assert result["Status"] == "Completed", result
    service.token = made.json["token"]
    async with service.http() as http:
        assert len((await http.get("/jobs"))["items"]) == 2


async def test_what_only_a_start_can_change_is_named_and_stays(configured: Configured) -> None:
    configured.write("")
    configured.start()
    answer = await configured.reload(
        '[serve]\nbehind_proxy = true\n[log]\nlevel = "warning"\nformat = "json"\n'
    )
    assert answer["changed"] == ["[log] level"]
    wanted = "some settings change at the next start only"
    [entry] = await eventually(lambda: configured.said(wanted))
    assert entry["settings"] == ["[serve] behind_proxy", "[log] format"]
    async with configured.service.http() as http:
        await http.start("L/Plain")


async def test_revoked_and_added_tokens_of_the_file_count(configured: Configured) -> None:
    configured.write("")
    configured.start()
    service = configured.service
    async with service.http() as http:
        made = await http.call("POST", "/tokens", {"userId": "gina", "roles": ["viewer"]})
    tokens = service.data / "tokens.json"
    kept = tokens.read_bytes()
    content = json.loads(kept)
    content["tokens"] = []
    tokens.write_text(json.dumps(content))
    admin, service.token = service.token, made.json["token"]
    async with service.http() as http, await service.stream() as stream:
        await stream.until_kind("snapshot_end")
        await configured.reload()
        assert (await stream.rest())[-1].data["reason"] == "revoked"
        assert (await http.call("GET", "/jobs")).status == 401
        tokens.write_bytes(kept)
        await configured.reload()
        assert (await http.call("GET", "/jobs")).status == 200
        tokens.write_text("{")
        await configured.reload(works=False)
        assert (await http.call("GET", "/jobs")).status == 200
    service.token = admin


async def test_token_removed_by_hand_does_not_come_back_by_what_is_saved_next(
    configured: Configured,
) -> None:
    configured.write("")
    configured.start()
    service = configured.service
    tokens = service.data / "tokens.json"
    async with service.http() as http:
        made = await http.call("POST", "/tokens", {"userId": "gina", "roles": ["viewer"]})
        admin, service.token = service.token, made.json["token"]
        async with service.http() as gina, await service.stream() as stream:
            await stream.until_kind("snapshot_end")
            tokens.write_text('{"version": 1, "tokens": []}')
            later = await http.call("POST", "/tokens", {"userId": "later", "roles": ["viewer"]})
            assert later.status == 201
            assert (await stream.rest())[-1].data["reason"] == "revoked"
            assert (await gina.call("GET", "/jobs")).status == 401
    service.token = admin
    assert [each["userId"] for each in json.loads(tokens.read_bytes())["tokens"]] == ["later"]
    service.restart()
    service.token = made.json["token"]
    async with service.http() as gina:
        assert (await gina.call("GET", "/jobs")).status == 401


async def test_tokens_made_during_hang_ups_are_all_in_force(configured: Configured) -> None:
    configured.write("")
    configured.start()
    service = configured.service
    over = asyncio.Event()

    async def hang_up() -> None:
        while not over.is_set():
            kill(service.pid, signal.SIGHUP)
            await asyncio.sleep(0.005)

    async with service.http() as http:
        hanging = asyncio.create_task(hang_up(), name="hang-ups")
        bodies = [{"userId": f"u{number}", "roles": ["viewer"]} for number in range(60)]
        made = [await http.call("POST", "/tokens", body) for body in bodies]
        over.set()
        await hanging
        assert all(answer.status == 201 for answer in made)
        in_force = {each["userId"] for each in (await http.get("/tokens"))["items"]}
    assert in_force == {body["userId"] for body in bodies}


def certificate(folder: Path, name: str) -> None:
    """`cert.pem` and `key.pem` for that name, in the place of others."""
    made = {part: folder / f"{name}.{part}" for part in ("cert", "key")}
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", f"/CN={name}"),
            *("-keyout", str(made["key"]), "-out", str(made["cert"])),
        ],
        check=True,
        capture_output=True,
    )
    made["key"].chmod(0o600)
    for part, path in made.items():
        path.replace(folder / f"{part}.pem")


async def test_new_connections_get_the_certificate_that_was_put_in_place(tmp_path: Path) -> None:
    configured = Configured(tmp_path)
    service = configured.service
    certificate(tmp_path, "old.example.org")
    configured.write('[serve]\ntls_cert = "cert.pem"\ntls_key = "key.pem"\n')
    places = ("--config", str(configured.file), "--listen", "127.0.0.1:0")
    process = service.spawn(*places)
    try:
        assert process.stdout is not None
        line = (await asyncio.to_thread(process.stdout.readline)).decode()
        port = int(line.strip().rpartition(":")[2])
        assert b"old.example.org" in await asyncio.to_thread(shown, port)
        certificate(tmp_path, "new.example.org")
        kill(process.pid, signal.SIGHUP)
        await eventually(lambda: configured.said("the settings were read again"))
        assert b"new.example.org" in await asyncio.to_thread(shown, port)
        (tmp_path / "cert.pem").write_text("none")
        kill(process.pid, signal.SIGHUP)
        await eventually(lambda: configured.said("the settings stay as they were"))
        assert b"new.example.org" in await asyncio.to_thread(shown, port)
        process.terminate()
        assert await asyncio.to_thread(process.wait, PATIENCE_S) == 0
        assert not service.complaints()
    finally:
        process.kill()
        process.communicate()
        service.clear_away()


def shown(port: int) -> bytes:
    """The certificate that a connection is shown, in DER."""
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port)))


async def test_hang_ups_at_any_moment_of_a_start_end_nothing(tmp_path: Path) -> None:
    configured = Configured(tmp_path)
    configured.write("")
    process = configured.service.spawn("--config", str(configured.file), "--listen", "127.0.0.1:0")
    try:
        status = Path(f"/proc/{process.pid}/status")
        await eventually(lambda: _catches(status, signal.SIGHUP), "the signal is taken")
        assert process.stdout is not None
        while not select.select([process.stdout], [], [], 0.02)[0]:
            kill(process.pid, signal.SIGHUP)
        assert process.stdout.readline().startswith(b"jobbus ready")
        for _ in range(20):
            kill(process.pid, signal.SIGHUP)
        process.terminate()
        assert await asyncio.to_thread(process.wait, PATIENCE_S) == 0
    finally:
        process.kill()
        process.communicate()
        configured.service.clear_away()


def _catches(status: Path, number: signal.Signals) -> bool:
    line = next(text for text in status.read_text().splitlines() if text.startswith("SigCgt:"))
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


@pytest.mark.parametrize("hangs_up", [False, True])
async def test_link_with_a_code_is_shown_to_a_terminal_alone_and_that_may_go(
    tmp_path: Path, hangs_up: bool
) -> None:
    service = Service(tmp_path)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(  # noqa: ASYNC220 - its start is what is waited for
        (
            *(sys.executable, "-m", "jobbus", "serve", *service.places()),
            *("--listen", "127.0.0.1:0"),
        ),
        cwd=ROOT,
        env=service.environment(),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        assert process.stdout is not None
        line = await asyncio.to_thread(process.stdout.readline)
        assert line.startswith(b"jobbus ready")
        shown = b""
        while b"/#code=" not in shown:  # what is logged at a start comes in several pieces
            assert is_readable(ours, PATIENCE_S), shown
            shown += os.read(ours, 65_536)
        if hangs_up:
            os.close(ours)
            kill(process.pid, signal.SIGHUP)
        else:
            process.terminate()
        assert await asyncio.to_thread(process.wait, PATIENCE_S) == 0
        assert json.loads((service.data / "instance.json").read_bytes())["pid"] == 0
    finally:
        if not hangs_up:
            os.close(ours)
        process.kill()
        process.communicate()
        service.clear_away()


def test_journal_and_files_get_no_code_but_the_way_to_one(configured: Configured) -> None:
    configured.write("")
    configured.start()
    log = configured.service.log.read_text()
    assert "code=" not in log
    assert "jobbus token link" in log
