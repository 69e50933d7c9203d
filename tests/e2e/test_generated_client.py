"""A client that a generator makes of the service's document, with no line of ours in between."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import PATIENCE_S, Service, running_service

PROGRAM = """
import sys, time
from made import AuthenticatedClient
from made.api.commands import get_command, publish_command
from made.api.executions import get_execution, list_executions
from made.api.jobs import list_jobs, start_job
from made.models import (
    Command, Execution, ExecutionStatus, JobCall, JobCallAnswer, Problem, StartJob
)

def ended(execution_id):
    while True:
        execution = get_execution.sync(execution_id, client=client)
        assert isinstance(execution, Execution), execution
        if execution.end_time is not None:
            return execution
        time.sleep(0.05)

with AuthenticatedClient(base_url=sys.argv[1], token=sys.argv[2]) as client:
    [job] = list_jobs.sync(client=client).items
    start = StartJob(command="start", job_id=job.job_id)
    first = publish_command.sync(client=client, body=start, prefer="wait=20")
    assert isinstance(first, Command), first
    execution = ended(first.execution_id)
    assert execution.status is ExecutionStatus.SUCCEEDED
    assert execution.end_time >= execution.start_time
    called = start_job.sync(client=client, body=JobCall(job_id=job.job_id))
    assert isinstance(called, JobCallAnswer), called
    second = get_command.sync(called.command_id, client=client, prefer="wait=20")
    page = list_executions.sync(client=client, job=[job.job_id])
    listed = [each.execution_id for each in page.items]
    assert listed == [second.execution_id, first.execution_id], page
    missing = get_execution.sync(first.command_id, client=client)
    assert isinstance(missing, Problem) and missing.code == "not_found", missing
    print(execution.job_id, execution.exit_code)
"""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running_service(
        tmp_path / "service", lambda apps: apps.shell("T/Quick", "echo done")
    ) as service:
        yield service


def test_a_generated_client_starts_a_job_lists_executions_and_reads_one(
    service: Service, tmp_path: Path
) -> None:
    asked = urllib.request.Request(
        f"{service.url}/api/v1/openapi.json", headers={"Authorization": f"Bearer {service.token}"}
    )
    with urllib.request.urlopen(asked, timeout=PATIENCE_S) as answer:
        (tmp_path / "openapi.json").write_bytes(answer.read())
    (tmp_path / "config.json").write_text(json.dumps({"post_hooks": []}))
    generated = run(
        tmp_path,
        *("-m", "openapi_python_client", "generate", "--meta", "none", "--output-path", "made"),
        *("--path", "openapi.json", "--config", "config.json"),
    )
    # It knows no body but JSON; everything else of the document it takes as it is.
    assert generated.count("WARNING") == 1, generated
    assert "Unsupported content type application/x-ndjson" in generated
    said = run(tmp_path, "-c", PROGRAM, service.url, service.token)
    assert said == "T/Quick 0\n"


def run(folder: Path, *arguments: str) -> str:
    """What the program said; it must end well."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
