"""`[directory] group`: another account of this machine writes commands, reads their results, and
gets no further."""

import json
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from tests.jobs import Apps
from tests.service import Service, eventually

GROUP, MEMBER, OTHER_MEMBER, ROLELESS = 54_321, 54_322, 54_323, 54_324

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes other accounts")


def define(apps: Apps) -> None:
    apps.shell("G/Open", "echo said")
    apps.shell("G/Guarded", 'echo ran >> "$BOARD/ran"', roles={"start": ["boss"]})


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    # pytest's own folders cannot be entered by others.
    root = Path(tempfile.mkdtemp(prefix="jobbus-group-"))
    root.chmod(0o711)
    service = Service(root)
    define(service.apps)
    settings = root / "group.toml"  # not jobbus.toml: a start would find that by itself
    settings.write_text(
        f'[directory]\ngroup = "{GROUP}"\nuid_roles = {{ {MEMBER} = ["operator"] }}\n',
        encoding="utf-8",
    )
    try:
        service.start("--config", str(settings))
        yield service
        assert not service.complaints()
    finally:
        service.clear_away()
        shutil.rmtree(root)


def as_account(uid: int, script: str, *arguments: object, group: int = GROUP) -> str | None:
    """What a shell of that account prints; None if it fails."""
    done = subprocess.run(
        ["/bin/sh", "-c", f"umask 027; {script}", "sh", *map(str, arguments)],
        user=uid,
        group=uid,
        extra_groups=[group] if group else [],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout if done.returncode == 0 else None


def drop(service: Service, uid: int, job: str, **fields: object) -> str:
    command_id = str(uuid4())
    content = {"CommandID": command_id, "Command": "start", "JobID": job} | fields
    path = service.data / "JobCommandQueue" / f"{command_id}.json"
    assert as_account(uid, 'printf %s "$2" > "$1"', path, json.dumps(content)) is not None
    return command_id


async def test_members_write_commands_as_their_account_and_read_results(service: Service) -> None:
    claims = {"UserID": "root", "Roles": ["admin", "boss"]}
    allowed = drop(service, MEMBER, "G/Open", **claims)
    refused = drop(service, MEMBER, "G/Guarded", **claims)
    unnamed = drop(service, OTHER_MEMBER, "G/Open", **claims)
    dropped = (allowed, refused, unnamed)
    done, denied, unknown = [await eventually(partial(service.result, each)) for each in dropped]
    assert (done["Status"], done["UserID"]) == ("Completed", f"uid:{MEMBER}")
    assert (denied["Status"], denied["ErrorCode"]) == ("Rejected", "not_permitted")
    # An account without roles may see no job: it does not exist for it.
    assert (unknown["Status"], unknown["ErrorCode"]) == ("Rejected", "unknown_job")
    result = service.data / "JobCommandResults" / f"{allowed}.json"
    state = service.data / "JobStatus" / f"{done['ExecutionID']}.json"
    assert json.loads(as_account(MEMBER, 'cat "$1"', result) or "null") == done
    assert as_account(MEMBER, 'cat "$1"', state) is not None
    assert as_account(ROLELESS, 'cat "$1"', result, group=0) is None
    assert service.apps.lines("ran") == []


async def test_members_get_no_further_than_their_own_files(service: Service) -> None:
    data, queue = service.data, service.data / "JobCommandQueue"
    foreign = queue / "foreign.json"
    assert as_account(OTHER_MEMBER, 'printf x > "$1"', foreign) is not None
    tried = {
        "list the queue": ('ls "$1"', queue),
        "list the directory": ('ls "$1"', data),
        "take a file away": ('rm -f "$1"', foreign),
        "put another in its place": ('printf y > "$1.y" && mv -f "$1.y" "$1"', foreign),
        "read the token": ('cat "$1"', data / "admin.token"),
        "read the key": ('cat "$1"', data / "secret.key"),
        "read output": ('ls "$1"', data / "JobOutput"),
        "read the journal": ('ls "$1"', data / "Journal"),
        "look into .tmp": ('ls "$1"', queue / ".tmp"),
        "write a result": ('printf x > "$1/x.json"', data / "JobCommandResults"),
        "make a name in the directory": ('printf x > "$1/x"', data),
        "link to the token": ('ln "$1/admin.token" "$1/JobCommandQueue/l.json"', data),
    }
    succeeded = [
        what for what, (script, at) in tried.items() if as_account(MEMBER, script, at) is not None
    ]
    assert succeeded == []


async def test_a_start_without_the_setting_closes_the_directory_again(service: Service) -> None:
    """Last: the service goes on without it."""
    assert stat.S_IMODE((service.data / "JobCommandQueue").stat().st_mode) == 0o3730
    assert service.end() == 0
    service.start()
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in service.data.iterdir()
        if path.is_dir()
    }
    assert {mode & 0o077 for mode in modes.values()} == {0}
    assert stat.S_IMODE(service.data.stat().st_mode) == 0o700
