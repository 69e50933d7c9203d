"""What programs leave in the file named in `JOBBUS_RESULT`, wherever people and programs look."""

import asyncio
import json
from collections.abc import Iterator

import pytest
from playwright.async_api import expect

from jobbus.client.client import Client
from tests.browser import chromium
from tests.command_line import in_this_process
from tests.jobs import WAITING, Apps
from tests.service import Service, eventually_answered

SECRET = "s3cr3t-Planted/value+42"
RESULT = {"rows": 1204, "files": ["ä.pdf"], "by": {"kind": None}}
WRITTEN = json.dumps(RESULT)

TAKEN = {
    "shell": f"""echo '{WRITTEN}' > "$JOBBUS_RESULT" """,
    "renamed": f"""echo '{WRITTEN}' > "$BOARD/new"; mv "$BOARD/new" "$JOBBUS_RESULT" """,
    "in-lines": f"""echo '{json.dumps(RESULT, indent=2)}' > "$JOBBUS_RESULT" """,
    "utf-16": f"""echo '{WRITTEN}' | iconv -t UTF-16 > "$JOBBUS_RESULT" """,
    "written-last": f"""(sleep 0.3; echo '{WRITTEN}' > "$JOBBUS_RESULT") &""",
    "first-half": f"""echo '{{"rows": ' > "$JOBBUS_RESULT"; sleep 0.3
                      echo '{WRITTEN}' > "$JOBBUS_RESULT" """,
}
MISSED = {
    "list": ("echo '[1, 2]' > \"$JOBBUS_RESULT\"", 'the result "[1, 2]" is no JSON object'),
    "words": ('echo done > "$JOBBUS_RESULT"', 'the result "done" is not JSON'),
    "cut": ("""echo '{"a": ' > "$JOBBUS_RESULT" """, 'the result "{"a":" is not JSON'),
    "empty": (': > "$JOBBUS_RESULT"', "the result file is empty: write one JSON object"),
    "nan": ("""echo '{"a": NaN}' > "$JOBBUS_RESULT" """, "is not JSON: write one JSON object"),
    "huge": ("""echo '{"a": 1e999}' > "$JOBBUS_RESULT" """, "holds a number or a character"),
    "half": ("""echo '{"a": "\\ud800"}' > "$JOBBUS_RESULT" """, "holds a number or a character"),
    "long": ('printf \'{"a": "%070000d"}\' 0 > "$JOBBUS_RESULT"', "it has 70009 bytes, of at most"),
    "latin": ("""printf '{"a": "\\344"}' > "$JOBBUS_RESULT" """, "it is no text in UTF-8"),
    "link": ('ln -s /etc/hostname "$JOBBUS_RESULT"', "was replaced by a link, which is not read"),
    "folder": ('mkdir "$JOBBUS_RESULT"', "was replaced by a folder"),
    "pipe": ('mkfifo "$JOBBUS_RESULT"', "was replaced by a named pipe"),
}
LARGE = """
import json, os
json.dump({"text": "ä" * 30_000}, open(os.environ["JOBBUS_RESULT"], "w"), ensure_ascii=False)
"""
DEEP = """
import os
open(os.environ["JOBBUS_RESULT"], "w").write('{"a": ' + "[" * 5000 + "]" * 5000 + "}")
"""
SPELLING = """
import os
spelled = "".join(f"\\\\u{ord(sign):04x}" for sign in os.environ["JOBBUS_VAR_Token"])
open(os.environ["JOBBUS_RESULT"], "w").write('{"key": "%s"}' % spelled)
"""
NO_JSON = """
import os
open(os.environ["JOBBUS_RESULT"], "w").write("x" * 45 + os.environ["JOBBUS_VAR_Token"])
"""
TOO_LONG = """
import json, os
json.dump([os.environ["JOBBUS_VAR_Token"]] * 4000, open(os.environ["JOBBUS_RESULT"], "w"))
"""
REVEALING = """
import json, os
json.dump({"key": os.environ["JOBBUS_VAR_Token"]}, open(os.environ["JOBBUS_RESULT"], "w"))
"""


def define(apps: Apps) -> None:
    for way, script in TAKEN.items():
        apps.shell(f"R/{way}", script, leftover="wait")
    for way, (script, _) in MISSED.items():
        apps.shell(f"R/{way}", script)
    leaves = f"""echo '{WRITTEN}' > "$JOBBUS_RESULT"; """
    apps.shell("R/Fails", leaves + "exit 3")
    apps.shell("R/Stopped", leaves + "exec sleep 600")
    apps.shell("R/Waits", leaves + WAITING.format(name="released"))
    retry = {"attempts": 2, "delay_s": 0.01}
    second = """echo "{\\"attempt\\": $JOBBUS_ATTEMPT}" > "$JOBBUS_RESULT"; exit 1"""
    apps.shell("R/Retried", second, retry=retry)
    apps.python("R/Large", LARGE)
    apps.python("R/Deep", DEEP)
    secret = {"Token": {"type": "secret"}}
    apps.python("R/Revealing", REVEALING, variables=secret)
    apps.python("R/Spelling", SPELLING, variables=secret)
    apps.python("R/NoJson", NO_JSON, variables=secret)
    apps.python("R/TooLong", TOO_LONG, variables=secret)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    place = tmp_path_factory.mktemp("results")
    (place / "token").write_text(SECRET)
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


async def test_a_result_is_the_executions_however_it_was_written(service: Service) -> None:
    async def follow(way: str) -> None:
        end = await http.ended(await http.start(f"R/{way}"))
        assert (end["result"], end["resultNote"]) == (RESULT, ""), way

    async with service.http() as http:
        await asyncio.gather(*map(follow, TAKEN))


async def test_what_is_no_result_is_reported_with_what_would_be_right(service: Service) -> None:
    async def follow(way: str) -> None:
        end = await http.ended(await http.start(f"R/{way}"))
        assert end["result"] is None, way
        assert MISSED[way][1] in end["resultNote"], (way, end["resultNote"])
        assert end["status"] == "Succeeded", way

        async def in_file() -> bool:
            file = service.status(end["executionId"]) or {}
            return bool(file["ResultNote"] == end["resultNote"])

        await eventually_answered(in_file, "the note in the status file")

    async with service.http() as http:
        await asyncio.gather(*map(follow, MISSED))
        deep = await http.ended(await http.start("R/Deep"))
    assert "is not JSON" in deep["resultNote"] or "levels deep" in deep["resultNote"]


async def test_a_result_counts_whatever_the_end_and_for_each_attempt(service: Service) -> None:
    async with service.http() as http:
        assert (await http.ended(await http.start("R/Fails")))["result"] == RESULT
        stopped = await http.start("R/Stopped")
        place = service.data / "JobOutput" / stopped / "result.json"

        async def is_written() -> bool:
            return place.exists() and place.read_text().endswith("\n")

        await eventually_answered(is_written, "the result")
        await http.publish(20, command="stop", executionId=stopped)
        assert (await http.ended(stopped))["result"] == RESULT
        first = await http.ended(await http.start("R/Retried"))

        async def second() -> dict[str, object] | None:
            newest = (await http.executions("R/Retried"))[0]
            return newest if newest["attempt"] == 2 and newest["endTime"] else None

        again = await eventually_answered(second, "the second attempt")
    assert [first["result"], again["result"]] == [{"attempt": 1}, {"attempt": 2}]


async def test_a_large_result_comes_whole_over_stream_and_client(service: Service) -> None:
    large = {"text": "ä" * 30_000}
    async with service.http() as http:
        execution_id = await http.start("R/Large")
        end = await http.ended(execution_id)
        stream = await http.call("GET", f"/executions/{execution_id}/stream")
    assert end["result"] == large
    assert ("ä" * 30_000).encode() in stream.body
    async with Client(service.url, service.token) as client:
        assert (await client.execution(execution_id)).result == large


async def test_a_result_is_kept_when_the_service_dies_before_it_is_written(
    service: Service,
) -> None:
    async with service.http() as http:
        execution_id = await http.start("R/Waits")
        service.kill9()
        service.apps.put("released")
        service.start("--config", str(service.root / "jobbus.toml"))
    async with service.http() as http:
        assert (await http.ended(execution_id))["result"] == RESULT
        service.restart()
    async with service.http() as http:
        assert (await http.execution(execution_id))["result"] == RESULT
        assert (service.status(execution_id) or {})["Result"] == RESULT


async def test_a_secret_in_a_result_is_masked_and_its_file_removed(service: Service) -> None:
    async with service.http() as http:
        token = {"secret": "TOKEN"}
        end = await http.ended(await http.start("R/Revealing", Token=token))
    assert end["result"] == {"key": "***"}
    files = [path for path in service.data.rglob("*") if path.is_file()]
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


async def test_no_file_is_left_in_which_a_secret_may_stand_spelled_otherwise_or_unread(
    service: Service,
) -> None:
    async with service.http() as http:
        token = {"secret": "TOKEN"}
        spelled = await http.ended(await http.start("R/Spelling", Token=token))
        too_long = await http.ended(await http.start("R/TooLong", Token=token))
        no_json = await http.ended(await http.start("R/NoJson", Token=token))
    assert (spelled["result"], too_long["result"]) == ({"key": "***"}, None)
    assert "of at most 64 KiB" in too_long["resultNote"]
    assert f'the result "{"x" * 45}***" is not JSON' in no_json["resultNote"]
    for end in (spelled, too_long, no_json):
        assert not (service.data / "JobOutput" / end["executionId"] / "result.json").exists()


def test_the_command_line_prints_the_result(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobbus = in_this_process(monkeypatch, capsys)
    ran = jobbus(service.root, "run", "R/shell", "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["result"] == RESULT
    execution_id = json.loads(ran.out)["executionId"]
    shown = jobbus(service.root, "status", execution_id)
    line = next(line for line in shown.out.splitlines() if "result" in line)
    assert json.loads(line.partition("result")[2]) == RESULT
    inspected = jobbus(service.root, "inspect", execution_id)
    assert json.loads(inspected.out)["execution"]["result"] == RESULT
    missed = jobbus(service.root, "run", "R/words", "--json")
    shown = jobbus(service.root, "status", json.loads(missed.out)["executionId"])
    assert 'the result "done" is not JSON' in shown.out


async def test_the_page_shows_the_result_of_the_chosen_execution(service: Service) -> None:
    async with service.http() as http:
        await http.ended(await http.start("R/Fails"))
    async with chromium() as browser:
        page = await browser.new_page()
        await page.goto(service.url)
        await page.fill("#token", service.token)
        await page.click("#sign-in button")
        await page.click("tbody tr:has-text('Fails') button")
        await expect(page.locator("#about")).to_contain_text('"rows": 1204')
