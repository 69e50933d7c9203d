"""What runs by itself in the time to come, as people look it up: HTTP, client, command line."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobbus.client.client import Client
from tests.command_line import Cli, in_this_process
from tests.jobs import Apps
from tests.service import Service, eventually_answered, running_service

TOMORROW = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
LATER = TOMORROW + timedelta(hours=2)


def define(apps: Apps) -> None:
    at = [moment.isoformat() for moment in (TOMORROW, LATER)]
    once = {"name": "once", "at": at, "zone": "Asia/Kolkata"}
    apps.shell("A/Once", "true", schedule=[once])
    apps.shell("A/Closed", "true", schedule=[{**once, "except": ["Always"]}])
    apps.shell("A/Disabled", "true", disabled=True, schedule=[once])
    apps.shell("A/Hidden", "true", roles={"view": ["nobody"]}, schedule=[once])
    apps.shell("A/Plain", "true")
    (apps.root / "calendars.toml").write_text('[calendar.Always]\nweekdays = ["Mon..Sun"]\n')


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("ahead"), define) as running:
        yield running


@pytest.fixture
def jobbus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return in_this_process(monkeypatch, capsys)


async def agenda(service: Service, query: str = "hours=48") -> dict[str, Any]:
    async with service.http() as http:

        async def planned() -> dict[str, Any] | None:
            found: dict[str, Any] = await http.get(f"/schedule?{query}")
            return found if found["items"] else None

        return await eventually_answered(planned)


async def test_all_that_is_due_is_listed_in_order_with_what_starts_nothing(
    service: Service,
) -> None:
    async with service.http() as http:
        between = TOMORROW + timedelta(hours=1)
        await http.publish(command="start", jobId="A/Plain", notBefore=between.isoformat())
        await eventually_answered(lambda: http.executions("A/Plain"))
    found = await agenda(service)
    items = [(item["jobId"], item["at"], item["starts"]) for item in found["items"]]
    in_kolkata = (TOMORROW + timedelta(hours=5, minutes=30)).strftime("%Y-%m-%dT%H:%M:%S+05:30")
    assert ("A/Once", in_kolkata, True) in items
    assert ("A/Closed", in_kolkata, False) in items
    assert ("A/Disabled", in_kolkata, False) in items
    names = [item["jobId"] for item in found["items"]]
    assert names.index("A/Plain") == 4  # between the two instants of the four others, admin's eyes
    assert not found["more"]
    notes = {item["jobId"]: item["note"] for item in found["items"]}
    assert "except Always: it is a" in notes["A/Closed"]
    assert notes["A/Disabled"].startswith("disabled by its definition")
    [plain] = [item for item in found["items"] if item["jobId"] == "A/Plain"]
    assert plain["schedule"] is None
    assert plain["executionId"]


async def test_list_is_bounded_by_hours_jobs_and_number(service: Service) -> None:
    one = await agenda(service, "hours=48&job=A/Once")
    assert [item["jobId"] for item in one["items"]] == ["A/Once", "A/Once"]
    cut = await agenda(service, "hours=48&job=A/Once&limit=1")
    assert (len(cut["items"]), cut["more"]) == (1, True)
    async with service.http() as http:
        assert (await http.get("/schedule?hours=1"))["items"] == []
        assert (await http.call("GET", "/schedule?hours=0")).status == 400


async def test_jobs_that_one_may_not_view_are_not_listed(service: Service) -> None:
    async with service.http() as http:
        made = await http.call("POST", "/tokens", {"userId": "vera", "roles": ["viewer"]})
        assert made.status == 201, made.body
    async with Client(service.url, made.json["token"]) as client:
        seen = {item.job_id for item in (await client.schedule(hours=48)).items}
    assert seen >= {"A/Once", "A/Closed"}
    assert "A/Hidden" not in seen


def test_command_line_shows_it(service: Service, jobbus: Cli) -> None:
    shown = jobbus(service.root, "schedule", "--hours", "48", "--job", "A/Closed")
    assert shown.code == 0, shown.err
    assert shown.out.count("A/Closed") == 2
    assert "except Always" in shown.out
    as_json = jobbus(service.root, "schedule", "list", "--hours", "48", "--json")
    assert "A/Once" in {item["jobId"] for item in as_json.json["items"]}
    following = jobbus(service.root, "schedule", "next", "A/Once", "A/Disabled")
    assert following.code == 0, following.err
    assert following.out.count("+05:30") == 4
    assert "starts nothing now:  disabled by its definition" in following.out
    [item] = json.loads(jobbus(service.root, "schedule", "next", "A/Once", "--json").out)["items"]
    assert len(item["schedules"][0]["next"]) == 2
    assert jobbus(service.root, "schedule", "--hours", "0").code == 2
