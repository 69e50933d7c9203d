"""Chains from `job.toml` to every place where people look: who was started, by whom, with what."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from playwright.async_api import expect

from jobbus.client.client import Client
from tests.browser import chromium
from tests.command_line import in_this_process
from tests.jobs import WAITING, Apps
from tests.service import Http, Service, eventually_answered

Content = dict[str, Any]

SEEN = 'echo "$JOBBUS_EXECUTION_ID $JOBBUS_CAUSED_BY $JOBBUS_VAR_Day $JOBBUS_VAR_Rows" >> "$BOARD/'
RESULT = """echo '{"rows": 12, "in": {"file": "a b.csv"}, "list": [1]}' > "$JOBBUS_RESULT"; """
DAY = {"Day": {"type": "string", "default": "today"}}
ROWS = {**DAY, "Rows": {"type": "integer", "default": 0}, "Text": {"type": "string"}}
ENDS: dict[str, Content] = {
    "Succeeded": {},
    "Failed": {},
    "Unstartable": {"on": ["Failed"]},
    "TimedOut": {"timeout_s": 0.2},
    "Stopped": {},
    "Cancelled": {"overlap": "queue"},
}


def define(apps: Apps) -> None:
    handed = {"Day": "{{Day}}", "Rows": "{{result.rows}}", "Text": "of {{ result.in.file }}"}
    second: Content = {"start": "C/Second", "variables": handed}
    apps.shell("C/First", RESULT + "exit 0", variables=DAY, after=[second])
    third: Content = {"start": "C/Third", "variables": {"Text": "{{Text}}"}}
    apps.shell("C/Second", SEEN + 'second"', variables=ROWS, after=[third])
    apps.shell("C/Third", SEEN + 'third"', variables=ROWS)
    scripts = {"Succeeded": "exit 0", "Failed": "exit 3"}
    for state, settings in ENDS.items():
        kept = {name: value for name, value in settings.items() if name != "on"}
        on = settings.get("on", [state])
        others = ["Succeeded", "Failed", "TimedOut", "Stopped", "Cancelled", "Skipped", "Lost"]
        rest = [each for each in others if each not in on]
        kept["after"] = [
            {"start": f"E/After{state}", "on": on},
            {"start": "E/Never", "on": rest},
        ]
        if state == "Unstartable":
            apps.write(f"E/{state}", ("./none",), **kept)
        else:
            apps.shell(f"E/{state}", scripts.get(state, "exec sleep 600"), **kept)
        apps.shell(f"E/After{state}", "exit 0")
    apps.shell("E/Never", "exit 0", max_running=50)
    retry = {"attempts": 3, "delay_s": 0.02}
    both = {"start": "T/AfterRetries", "on": ["Succeeded", "Failed"]}
    apps.shell("T/Retried", '[ "$JOBBUS_ATTEMPT" -ge 3 ]', retry=retry, after=[both])
    apps.shell("T/AfterRetries", "exit 0")
    apps.shell("T/Twice", "exit 0", after=[{"start": "T/Alone"}] * 2)
    apps.shell("T/Alone", WAITING.format(name="alone"))
    refused: list[Content] = [
        {"start": "T/Disabled"},
        {"start": "T/Missing"},
        {"start": "T/Strict", "variables": {"N": "{{result.rows}}"}},
        {"start": "T/Strict", "variables": {"Choice": "{{result.in.file}}"}},
        {"start": "T/Strict", "variables": {"M": "{{result.none}}"}},
    ]
    apps.shell("T/Refused", RESULT + "exit 0", after=refused)
    apps.shell("T/Disabled", "exit 0", disabled=True)
    strict = {
        "N": {"type": "integer", "max": 5},
        "Choice": {"type": "choice", "choices": ["ls"], "default": "ls"},
        "M": {"type": "integer", "required": True},
    }
    apps.write("T/Strict", ("{{Choice}}",), variables=strict)
    hidden = {"roles": {"view": ["boss"]}}
    how = {"How": {"type": "choice", "choices": ["ls-l"], "required": True}}
    apps.shell("T/Hidden", "exit 0", variables=how, **hidden)
    apps.shell("T/HiddenToo", "exit 0", **hidden)
    onward = [{"start": f"T/{name}"} for name in ("Hidden", "HiddenToo", "Missing")]
    apps.shell("T/Open", "exit 0", after=onward)
    apps.shell("T/ToOld", "exit 0", after=[{"start": "T/FormerName"}])
    apps.shell("T/Renamed", "exit 0", formerly=["T/FormerName"])
    apps.shell("T/Held", WAITING.format(name="held"), after=[{"start": "T/AfterHeld"}])
    apps.shell("T/AfterHeld", SEEN + 'held"')
    secret = {"Token": {"type": "secret"}}
    takes: Content = {"start": "T/Taker", "variables": {"Token": "{{Token}}"}}
    apps.shell("T/Keeper", "exit 0", variables=secret, after=[takes])
    taker = 'printf %s "$JOBBUS_VAR_Token" | wc -c > "$BOARD/length"'
    apps.shell("T/Taker", taker, variables=secret)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    place = tmp_path_factory.mktemp("chains")
    (place / "token").write_text("a-secret-of-24-characters")
    (place / "token").chmod(0o600)
    (place / "jobbus.toml").write_text('[secrets]\nTOKEN = { file = "token" }\n')
    running = Service(place)
    define(running.apps)
    try:
        running.start("--config", str(place / "jobbus.toml"))
        yield running
        assert not running.complaints()
    finally:
        running.clear_away()


@pytest.fixture
async def http(service: Service) -> AsyncIterator[Http]:
    async with service.http() as session:
        yield session


async def followed(http: Http, execution_id: str, count: int = 1) -> Content:
    """The ended execution, when it says so many times what its end set going."""

    async def look() -> Content | None:
        found = await http.execution(execution_id)
        return found if len(found["caused"]) == count else None

    return await eventually_answered(look, "what was set going")


async def test_a_chain_of_three_hands_on_variables_and_results(
    service: Service, http: Http
) -> None:
    first = await followed(http, await http.start("C/First", Day="monday"))
    second = await followed(http, first["caused"][0]["executionId"])
    third = await http.ended(second["caused"][0]["executionId"])
    assert second["variables"] == {"Day": "monday", "Rows": 12, "Text": "of a b.csv"}
    assert third["variables"] == {"Day": "today", "Rows": 0, "Text": "of a b.csv"}
    assert [second["causedBy"], third["causedBy"]] == [first["executionId"], second["executionId"]]
    assert second["userId"] == "chain:C/First"
    assert service.apps.lines("second") == [
        f"{second['executionId']} {first['executionId']} monday 12"
    ]
    start = await http.get(f"/commands/{second['commandId']}")
    assert (start["status"], start["userId"]) == ("Completed", "chain:C/First")

    async def in_files() -> bool:
        one, two = (service.status(each["executionId"]) or {} for each in (first, second))
        caused = [each["ExecutionID"] for each in one["Caused"]]
        return caused == [second["executionId"]] and two["CausedBy"] == first["executionId"]

    await eventually_answered(in_files, "both ends in the status files")
    audit = (await http.get("/audit?action=chain"))["items"]
    entry = next(each for each in audit if each["execution"] == first["executionId"])
    assert (entry["actor"], entry["job"]) == ("chain:C/First", "C/Second")
    assert entry["detail"] == {"started": second["executionId"]}


async def test_every_end_sets_going_what_is_ordered_for_it_and_nothing_else(http: Http) -> None:
    async def ended(state: str) -> None:
        job_id = f"E/{state}"
        command = await http.publish(20, command="start", jobId=job_id)
        execution_id = command["executionId"]
        if state == "Stopped":
            await http.publish(20, command="stop", executionId=execution_id)
        if state == "Cancelled":
            waiting = await http.publish(command="start", jobId=job_id)

            async def queued() -> str | None:
                found = await http.get(f"/commands/{waiting['commandId']}")
                return found["executionId"]  # type: ignore[no-any-return]

            execution_id = await eventually_answered(queued, "what waits")
            await http.publish(20, command="cancel", targetId=waiting["commandId"])
        found = await followed(http, execution_id)
        assert [each["jobId"] for each in found["caused"]] == [f"E/After{state}"], found
        assert found["caused"][0]["errorCode"] is None
        if state == "Cancelled":
            await http.publish(command="stop", jobId=job_id)

    await asyncio.gather(*map(ended, ENDS))
    never = await http.executions("E/Never")
    assert {each["causedBy"] for each in never} <= {
        each["executionId"] for each in await http.executions("E/Cancelled")
    }


async def test_retried_work_sets_going_once_after_its_last_attempt(http: Http) -> None:
    first_id = await http.start("T/Retried")

    async def last() -> Content | None:
        newest = (await http.executions("T/Retried"))[0]
        return newest if newest["attempt"] == 3 and newest["caused"] else None

    newest = await eventually_answered(last, "the third attempt")
    after = await http.executions("T/AfterRetries")
    assert [each["causedBy"] for each in after] == [newest["executionId"]]
    assert (await http.execution(first_id))["caused"] == []


async def test_two_starts_of_one_end_do_not_share_a_slot(service: Service, http: Http) -> None:
    found = await followed(http, await http.start("T/Twice"), 2)
    first, second = found["caused"]
    assert first["executionId"] is not None
    assert first["errorCode"] is None
    assert (second["errorCode"], second["executionId"]) in (
        ("already_running", None),
        (None, first["executionId"]),  # the same start, which had not come through yet
    )
    assert len(await http.executions("T/Alone")) == 1
    service.apps.put("alone")


async def test_what_cannot_be_started_is_recorded_where_people_look(
    service: Service, http: Http
) -> None:
    found = await followed(http, await http.start("T/Refused"), 5)
    codes = [each["errorCode"] for each in found["caused"]]
    bad = "bad_variables"
    assert codes == ["disabled", "unknown_job", bad, bad, bad]
    assert "must be at most 5, not 12" in found["caused"][2]["error"]
    assert 'has no choice "a b.csv"' in found["caused"][3]["error"]
    assert 'variable "M" is required' in found["caused"][4]["error"]
    refused = await http.get(f"/commands/{found['caused'][0]['commandId']}")
    assert (refused["status"], refused["errorCode"]) == ("Rejected", "disabled")
    log = service.log.read_text()
    assert "T/Disabled was not started after T/Refused: T/Disabled is disabled" in log


async def test_what_is_set_going_is_not_named_to_those_who_may_not_view_it(
    service: Service, http: Http
) -> None:
    made = await http.call("POST", "/tokens", {"userId": "anna", "roles": ["viewer"]})
    headers = {"Authorization": f"Bearer {made.json['token']}"}
    execution_id = await http.start("T/Open")
    await followed(http, execution_id, 3)
    async with aiohttp.ClientSession(service.url, headers=headers) as session:
        seen = await Http(session).execution(execution_id)
        stream = await Http(session).call("GET", f"/executions/{execution_id}/stream")
        commands = [each["commandId"] for each in seen["caused"]]
        answers = [await Http(session).call("GET", f"/commands/{each}") for each in commands]
    named = [(each["jobId"], each["errorCode"], each["error"]) for each in seen["caused"]]
    why = "those who may view the other job find the reason at the command"
    missing = 'no job "T/Missing" that chain:T/Open may see'
    assert named == [
        ("", "bad_variables", why),
        ("", None, None),
        ("T/Missing", "unknown_job", missing),
    ]
    assert b"Hidden" not in stream.body
    assert b"ls-l" not in stream.body
    assert [each.status for each in answers[:2]] == [404, 404]
    reason = (await http.get(f"/commands/{commands[0]}"))["error"]
    assert 'variable "How" is required: must be one of "ls-l"' in reason


async def test_a_chain_goes_on_once_when_the_service_dies_before_the_end(
    service: Service,
) -> None:
    async with service.http() as http:
        execution_id = await http.start("T/Held")
        service.kill9()
        service.apps.put("held")
        service.start("--config", str(service.root / "jobbus.toml"))
    async with service.http() as http:
        found = await followed(http, execution_id)
        await http.ended(found["caused"][0]["executionId"])
        service.restart()
    async with service.http() as http:
        again = await http.execution(execution_id)
        assert again["caused"] == found["caused"]
        assert len(await http.executions("T/AfterHeld")) == 1
    assert len(service.apps.lines("held")) == 1


async def test_a_chain_starts_a_renamed_job_by_the_name_that_it_had(http: Http) -> None:
    found = await followed(http, await http.start("T/ToOld"))
    (caused,) = found["caused"]
    assert (caused["jobId"], caused["errorCode"]) == ("T/Renamed", None)
    started = await http.ended(caused["executionId"])
    assert (started["jobId"], started["status"]) == ("T/Renamed", "Succeeded")


async def test_a_secret_is_handed_on_by_its_name(service: Service, http: Http) -> None:
    found = await followed(http, await http.start("T/Keeper", Token={"secret": "TOKEN"}))
    taker = await http.ended(found["caused"][0]["executionId"])
    assert taker["variables"] == {"Token": {"secret": "TOKEN"}}
    assert service.apps.lines("length") == ["25"]


async def test_the_client_has_both_ends_of_a_chain(service: Service) -> None:
    async with Client(service.url, service.token) as client:
        first = await client.run("C/First")
        while not first.caused:
            first = await client.execution(first.execution_id)
        second = await client.execution(first.caused[0].execution_id or "")
    assert second.caused_by == first.execution_id


def test_the_command_line_shows_both_ends_of_a_chain(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobbus = in_this_process(monkeypatch, capsys)
    ran = json.loads(jobbus(service.root, "run", "C/First", "--json").out)
    jobbus(service.root, "wait", "C/Third")
    shown = jobbus(service.root, "status", ran["executionId"]).out
    caused = next(line for line in shown.splitlines() if "C/Second " in line)
    second = jobbus(service.root, "status", caused.split()[-1]).out
    assert ran["executionId"] in next(line for line in second.splitlines() if "caused by" in line)


async def test_the_page_shows_both_ends_of_a_chain(service: Service, http: Http) -> None:
    first = await followed(http, await http.start("C/First"))
    second = await http.ended(first["caused"][0]["executionId"])
    async with chromium() as browser:
        page = await browser.new_page()
        await page.goto(service.url)
        await page.fill("#token", service.token)
        await page.click("#sign-in button")
        await page.click("tbody button:has-text('Second') >> nth=0")
        await expect(page.locator("#about")).to_contain_text("started after C/First")
        await page.click("tbody button:has-text('First') >> nth=0")
        await expect(page.locator("#about")).to_contain_text("then started C/Second")
    assert second["causedBy"] == first["executionId"]


async def test_a_circle_is_refused_at_each_job_of_it_with_the_way_and_the_line(
    service: Service, http: Http
) -> None:
    apps = service.apps
    for here, there in (("A", "B"), ("B", "D"), ("D", "A"), ("Self", "Self")):
        apps.shell(f"Z/{here}", "exit 0", after=[{"start": f"Z/{there}"}])

    async def faults() -> dict[str, Content] | None:
        jobs = (await http.get("/jobs"))["items"]
        found = {each["jobId"]: each["fault"] for each in jobs if each["jobId"].startswith("Z/")}
        return found if len(found) == 4 and all(found.values()) else None

    found = await eventually_answered(faults, "four faults")
    assert "in a circle: Z/B → Z/D → Z/A → Z/B;" in found["Z/B"]["reason"]
    assert "in a circle: Z/Self → Z/Self;" in found["Z/Self"]["reason"]
    line = apps.definition("Z/B").read_text().splitlines()[found["Z/B"]["line"] - 1]
    assert line == 'start = "Z/D"'
    apps.shell("Z/D", "exit 0")

    async def is_sound() -> bool:
        jobs = (await http.get("/jobs"))["items"]
        return not any(each["fault"] for each in jobs if each["jobId"] in ("Z/A", "Z/B", "Z/D"))

    await eventually_answered(is_sound, "the circle is open")
