"""What the command line lists is as long as was asked for, over as many pages as it takes."""

import json
from pathlib import Path

import pytest

from bus.commands import StartJob
from bus.envelope import seal
from jobbus.cli.list import commands, ps
from jobbus.cli.target import Target
from tests.gateway_fixture import ALICE, Backend, serving


async def test_lists_go_on_over_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backend = Backend()
    alice = backend.principals[ALICE]
    for _ in range(600):
        envelope = seal(StartJob(job_id="App/Job"), alice, now_ms=backend.clock.now_ms())
        backend.accept(envelope)
        backend.queue("App/Job")
    token = tmp_path / "token"
    token.write_text(ALICE)
    async with serving(backend) as (url, _):
        target = Target(url=url, token_file=token)
        for listing in (commands, ps):
            shown = []
            for limit in (600, 550):
                assert await listing(limit=limit, as_json=True, target=target) == 0
                shown.append(json.loads(capsys.readouterr().out))
            whole, part = shown
            assert len(whole["items"]) == 600
            assert part["items"] == whole["items"][:550]
            assert (whole["next"], part["next"] is None) == (None, False)
