"""A host that writes command files with its own words for roles, from refusal to configuration."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.jobs import Apps
from tests.service import ROOT, Service, eventually, running_service

MAP = '[directory.role_map]\nsite_admin = ["operator"]\nauthenticated = []\n'


def define(apps: Apps) -> None:
    apps.shell("Host/Plain", "true")
    apps.shell("Host/Metrics", "true", roles={"view": ["metrics"], "start": ["metrics"]})


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running_service(tmp_path, define) as running:
        yield running


async def start(service: Service, job_id: str, *roles: str) -> dict[str, Any]:
    """The result of a command as the host writes it."""
    command_id = str(uuid4())
    fields = {"CommandID": command_id, "Command": "start", "JobID": job_id, "UserID": "alice"}
    path = service.data / "JobCommandQueue" / f"{command_id}.json"
    path.write_text(json.dumps(fields | {"Roles": roles}), encoding="utf-8")
    return await eventually(lambda: service.result(command_id), f"result of {roles}")


def doctor(service: Service, *flags: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "jobbus", "doctor", "--data", str(service.data), *flags],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip


async def test_words_of_a_host_are_named_mapped_listed_by_jobs_and_known_to_doctor(
    service: Service,
) -> None:
    refused = await start(service, "Host/Plain", "site_admin", "debug")
    assert refused["ErrorCode"] == "unknown_job"
    assert 'roles "site_admin", "debug"' in refused["Error"]
    assert "[directory.role_map] of jobbus.toml" in refused["Error"]
    assert (await start(service, "Host/Metrics", "metrics"))["Status"] == "Completed"
    assert (await start(service, "Host/Plain", "authenticated"))["Status"] == "Completed"
    assert '"debug" (1), "site_admin" (1)' in doctor(service)

    config = service.root / "jobbus.toml"
    config.write_text(MAP, encoding="utf-8")
    assert service.end() == 0
    service.start("--config", str(config))
    done = await start(service, "Host/Plain", "site_admin", "debug")
    assert (done["Status"], done["Roles"]) == ("Completed", ["site_admin", "debug", "operator"])
    assert (await start(service, "Host/Plain", "authenticated"))["Status"] == "Rejected"
    report = doctor(service, "--config", str(config))
    assert '"debug" (2)' in report
    assert "site_admin" not in report
