"""Why something waits, wherever people look: API, stream, `status` command, command line, page."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from tests.browser import chromium
from tests.command_line import Cli, in_this_process
from tests.jobs import WAITING, Apps
from tests.raw_stream import RawEvent
from tests.service import Service, running_service

SLOT = r"waiting for a slot of W/Queue: 1 of 1 running \(since \d\d:\d\d UTC\), position {}"


def define(apps: Apps) -> None:
    apps.shell("W/Queue", WAITING.format(name="go"), overlap="queue")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running_service(tmp_path, define) as running:
        yield running


@pytest.fixture
def jobbus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return in_this_process(monkeypatch, capsys)


def is_waiting(event: RawEvent) -> bool:
    return event.kind == "change" and bool(event.data["data"].get("waitingFor"))


async def test_reason_and_position_are_seen_wherever_people_look_until_it_starts(
    service: Service, jobbus: Cli
) -> None:
    async with service.http() as http, await service.stream("/api/v1/events?start=now") as stream:
        first = await http.start("W/Queue")
        second, third = [
            (await http.publish(command="start", jobId="W/Queue"))["commandId"] for _ in range(2)
        ]
        received = [*await stream.until(is_waiting), *await stream.until(is_waiting)]
        for each, place in zip(filter(is_waiting, received), (1, 2), strict=True):
            assert re.fullmatch(SLOT.format(place), each.data["data"]["waitingFor"])
        waiting = (await http.get(f"/commands/{third}"))["executionId"]
        shown: dict[str, Any] = await http.execution(waiting)
        assert re.fullmatch(SLOT.format(2), shown["waitingFor"])
        status = await http.publish(20, command="status", jobId="W/Queue")
        reasons = {each["waitingFor"] for each in status["result"]["executions"]}
        assert reasons >= {"", shown["waitingFor"]}
        listed = (await http.get("/jobs/W/Queue"))["lastExecutions"]
        assert listed[0]["waitingFor"] == shown["waitingFor"]
        async with chromium() as browser:
            page = await browser.new_page()
            await page.goto(service.url)
            await page.fill("#token", service.token)
            await page.click("#sign-in button")
            await expect(page.locator("tbody tr").first).to_contain_text(shown["waitingFor"])
            answer = await http.publish(20, command="cancel", targetId=second)
            assert answer["outcome"] == "done"
            # Its own record did not change; the page asks again all the same.
            await expect(page.locator("tbody tr").first).to_contain_text("position 1")
        for arguments in (("ps", "--job", "W/Queue"), ("status", waiting)):
            out = (await asyncio.to_thread(jobbus, service.root, *arguments)).out
            assert re.search(rf"Queued \({SLOT.format(1)}\)", out), out
        service.apps.put("go")
        assert (await http.ended(first))["waitingFor"] == ""
        assert (await http.ended(waiting))["waitingFor"] == ""
