"""Schemathesis reads the API's document and tries it on a whole service: nothing undocumented."""

from pathlib import Path

import pytest

from tests.jobs import Apps
from tests.service import running_service
from tests.tally import Kind, Tally


def define(apps: Apps) -> None:
    apps.shell("T/Quick", "echo said", max_running=50)


@pytest.mark.parametrize(
    "examples",
    [2, pytest.param(300, marks=[pytest.mark.exhaustive, pytest.mark.timeout(3600)])],
)
def test_answers_are_documented_and_none_is_a_failure(
    tmp_path: Path, examples: int, tally: Tally
) -> None:
    # Here, for it is slow to import, and each worker imports this file.
    from tests.api_trial import trial_of

    with running_service(tmp_path, define) as service:
        trial = trial_of(service, examples)
        trial.run()
    for status, count in sorted(trial.sent.items()):
        tally.add(Kind.SCHEMA, f"answered by {status}", count)
    assert {200, 202, 204, 400, 404, 422} <= trial.sent.keys()
