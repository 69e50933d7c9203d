"""What a program is given beside its arguments: an `env_file`, and what it reads on stdin."""

import os
from collections.abc import Iterator

import pytest

from tests.jobs import Apps
from tests.service import Http, Service, running_service

SECRET = "correct horse battery staple"


def define(apps: Apps) -> None:
    show = 'echo "$COLOUR $SIZE $TOLD"'
    apps.shell("P/File", show, env_file="settings.env", env={"SIZE": "from env"})
    apps.shell("P/Optional", show, env_file="?missing.env")
    apps.shell("P/Missing", show, env_file="missing.env")
    apps.shell("P/Pipe", show, env_file="pipe.env")
    apps.shell("P/Folder", show, env_file=".")
    apps.shell("P/Null", 'cat; echo "end"')
    apps.shell("P/Text", "cat", stdin="file:text.txt")
    apps.shell("P/Gone", "cat", stdin="file:gone.txt")
    apps.shell("P/Device", "cat", stdin="file:/dev/zero")
    apps.shell("P/Value", "cat", stdin="variable:Text", variables={"Text": {"max_length": 32_000}})
    secret = {"Key": {"type": "secret", "required": True}}
    apps.shell("P/Secret", "wc -c", stdin="variable:Key", variables=secret)
    (apps.folder("P/File") / "settings.env").write_text("COLOUR='deep blue'\nSIZE=file\nTOLD=yes\n")
    (apps.folder("P/Text") / "text.txt").write_text("line 1\nline 2")
    os.mkfifo(apps.folder("P/Pipe") / "pipe.env")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    root = tmp_path_factory.mktemp("inputs")
    (root / "key").write_text(SECRET)
    (root / "key").chmod(0o600)
    (root / "jobbus.toml").write_text(f'[secrets]\nKEY = {{ file = "{root}/key" }}\n')
    with running_service(root, define) as running:
        yield running


async def said(http: Http, job_id: str, **variables: object) -> bytes:
    execution_id = await http.start(job_id, **variables)
    assert (await http.ended(execution_id))["status"] == "Succeeded"
    return await http.output(execution_id)


async def failure(http: Http, job_id: str) -> str:
    command = await http.publish(20, command="start", jobId=job_id)
    ended = await http.ended(command["executionId"])
    assert (ended["status"], ended["reason"]) == ("Failed", "spawn_error")
    error: str = ended["error"]
    return error


async def test_env_file_is_read_at_each_start_below_env_and_what_jobbus_says(
    service: Service,
) -> None:
    file = service.apps.folder("P/File") / "settings.env"
    async with service.http() as http:
        assert await said(http, "P/File") == b"deep blue from env yes\n"
        file.write_text("COLOUR=red\n")
        assert await said(http, "P/File") == b"red from env \n"
        assert await said(http, "P/Optional") == b"  \n"
        file.write_text("COLOUR=red\nSIZE\n")
        assert f"{file}: line 2: is no NAME=VALUE" in await failure(http, "P/File")
        file.write_bytes(b"COLOUR=\xff\n")
        assert f"{file} holds no UTF-8 text" in await failure(http, "P/File")


async def test_env_file_that_cannot_be_read_fails_the_start(service: Service) -> None:
    async with service.http() as http:
        assert 'missing.env; "?" before it allows that' in await failure(http, "P/Missing")
        assert "pipe.env cannot be read: it is no regular file" in await failure(http, "P/Pipe")
        assert "cannot be read" in await failure(http, "P/Folder")


async def test_program_reads_on_stdin_what_the_definition_names(service: Service) -> None:
    async with service.http() as http:
        assert await said(http, "P/Null") == b"end\n"
        assert await said(http, "P/Text") == b"line 1\nline 2"
        long = "x" * 32_000
        assert await said(http, "P/Value", Text=long) == long.encode()
        assert await said(http, "P/Value") == b""


async def test_secret_on_stdin_is_written_nowhere(service: Service) -> None:
    async with service.http() as http:
        output = await said(http, "P/Secret", Key={"secret": "KEY"})
    assert int(output) == len(SECRET)
    for path in service.data.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


async def test_stdin_that_is_no_file_fails_the_start(service: Service) -> None:
    async with service.http() as http:
        assert "gone.txt' cannot be read: No such file" in await failure(http, "P/Gone")
        assert "its stdin '/dev/zero' is no regular file" in await failure(http, "P/Device")
