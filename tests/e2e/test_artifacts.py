"""Files that programs leave in `JOBBUS_ARTIFACTS`: listed, fetched, zipped, and bounded."""

import asyncio
import io
import unicodedata
import zipfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
import yarl
from playwright.async_api import expect

from jobbus.cli.exits import Exit
from jobbus.client.client import Client
from jobbus.client.errors import ApiProblem
from tests.browser import chromium
from tests.command_line import in_this_process
from tests.jobs import WAITING, Apps
from tests.service import Http, Service, eventually, eventually_answered

Content = dict[str, Any]
Fetched = tuple[int, Mapping[str, str], bytes]

LEAVES = """
cd "$JOBBUS_ARTIFACTS"
mkdir -p deep/er
printf 'hello report' > report.txt
printf 'inner' > deep/er/inner.csv
: > empty
"""
NAMES = [
    b"a b%c?#&.txt",
    b"\xff\xfe.bin",
    "ä→.txt".encode(),
    b"new\nline",
    b"..\\..\\up.txt",
    b"A",
    b"a",
    "\u00e9".encode(),
    "e\u0301".encode(),
    "\u202egpj.exe".encode(),
]
ODD = f"""
import os
folder = os.environ["JOBBUS_ARTIFACTS"].encode()
for name in {NAMES!r}:
    with open(folder + b"/" + name, "wb") as file:
        file.write(b"of " + name)
"""
TRICKS = """
cd "$JOBBUS_ARTIFACTS"
echo kept > kept
ln -s /etc/passwd link
ln -s / folder
mkfifo pipe
ln "$BOARD/precious" second-name
mkdir -p a/b; ln -s ../../../exit.json a/b/up
"""
REPLACED = 'rmdir "$JOBBUS_ARTIFACTS"; ln -s "$BOARD" "$JOBBUS_ARTIFACTS"'
LARGE = """
import os
with open(os.environ["JOBBUS_ARTIFACTS"] + "/large.bin", "wb") as file:
    for number in range(3 * 1024):
        file.write(number.to_bytes(4, "big") * 256)
"""


def define(apps: Apps) -> None:
    (apps.board / "precious").write_text("precious")
    apps.shell("F/Leaves", LEAVES, roles={"view": ["viewer", "operator"], "output": ["operator"]})
    apps.python("F/Odd", ODD)
    apps.shell("F/Tricks", TRICKS)
    apps.shell("F/Replaced", REPLACED)
    apps.python("F/Large", LARGE)
    many = 'cd "$JOBBUS_ARTIFACTS"; for n in 1 2 3 4 5; do printf 1234567890 > $n; done'
    apps.shell("F/Many", many, artifacts={"max_files": 3})
    apps.shell("F/Heavy", many, artifacts={"max_bytes": 25})
    apps.shell("F/Waits", LEAVES + WAITING.format(name="released"))
    apps.shell("F/None", "exit 0")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    place = tmp_path_factory.mktemp("artifacts")
    running = Service(place)
    define(running.apps)
    try:
        running.start()
        yield running
        assert not running.complaints()
    finally:
        running.clear_away()


@pytest.fixture
async def http(service: Service) -> AsyncIterator[Http]:
    async with service.http() as session:
        yield session


async def left_by(http: Http, job_id: str) -> tuple[Content, Content]:
    """The ended execution, and its list."""
    end = await http.ended(await http.start(job_id))
    return end, await http.get(f"/executions/{end['executionId']}/artifacts")


async def fetched(http: Http, item: Content, **headers: str) -> Fetched:
    """The answer at an address exactly as the list has it."""
    url = yarl.URL(str(http.session._base_url).rstrip("/") + item["href"], encoded=True)
    spelled = {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.session.get(url, headers=spelled) as answer:
        return answer.status, answer.headers, await answer.read()


async def test_files_are_listed_and_fetched_after_the_end(service: Service, http: Http) -> None:
    end, found = await left_by(http, "F/Leaves")
    names = [(each["name"], each["size"]) for each in found["items"]]
    assert names == [("deep/er/inner.csv", 5), ("empty", 0), ("report.txt", 12)]
    assert (end["artifacts"], end["artifactBytes"], end["artifactsNote"]) == (3, 17, "")
    assert [(await fetched(http, each))[2] for each in found["items"]] == [
        b"inner",
        b"",
        b"hello report",
    ]
    none, nothing = await left_by(http, "F/None")
    assert (none["artifacts"], nothing["items"]) == (0, [])
    folder = service.data / "JobOutput" / none["executionId"]
    assert not (folder / "artifacts").exists()


async def test_a_file_is_sent_to_be_saved_with_ranges_and_validators(http: Http) -> None:
    _, found = await left_by(http, "F/Leaves")
    report = found["items"][2]
    status, headers, body = await fetched(http, report)
    assert (status, body) == (200, b"hello report")
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Content-Disposition"].startswith('attachment; filename="report.txt"')
    assert "sandbox" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    tag = headers["ETag"]
    assert (await fetched(http, report, If_None_Match=tag))[0] == 304
    status, headers, body = await fetched(http, report, Range="bytes=6-", If_Range=tag)
    assert (status, headers["Content-Range"], body) == (206, "bytes 6-11/12", b"report")
    assert (await fetched(http, report, Range="bytes=-3"))[2] == b"ort"
    status, _, body = await fetched(http, report, Range="bytes=6-", If_Range='"other"')
    assert (status, body) == (200, b"hello report")
    status, headers, _ = await fetched(http, report, Range="bytes=12-")
    assert (status, headers["Content-Range"]) == (416, "bytes */12")


async def test_names_of_any_bytes_are_listed_and_fetched(http: Http) -> None:
    _, found = await left_by(http, "F/Odd")
    assert {unquote_to_bytes(each["path"]) for each in found["items"]} == set(NAMES)
    for each in found["items"]:
        status, headers, body = await fetched(http, each)
        assert (status, body) == (200, b"of " + unquote_to_bytes(each["path"])), each
        assert "\n" not in headers["Content-Disposition"]
    archive = await http.call("GET", f"/executions/{found['executionId']}/artifacts.zip")
    with zipfile.ZipFile(io.BytesIO(archive.body)) as files:
        assert files.testzip() is None
        names = files.namelist()
        unpacked = {unicodedata.normalize("NFC", name).casefold() for name in names}
        assert len(unpacked) == len(NAMES)
        assert "\ufffdgpj.exe" in names
        assert not any("\\" in name or ".." in Path(name).parts for name in names)


async def test_links_pipes_and_second_names_get_nobody_anything(
    service: Service, http: Http
) -> None:
    end, found = await left_by(http, "F/Tricks")
    assert [each["name"] for each in found["items"]] == ["kept"]
    assert end["artifactsNote"].startswith("5 artifacts were not kept: only plain files are")
    base = f"/executions/{end['executionId']}/artifacts"
    for path in ("link", "folder/etc/passwd", "../exit.json", "%2e%2e/exit.json", "a/b/up", "",
                 "kept/", "./kept", "%2e/kept", "/etc/passwd", "%2fetc%2fpasswd"):  # fmt: skip
        answer = await service.raw("GET", f"/api/v1{base}/{path}")
        assert answer.status in (404, 405), path
    assert (service.apps.board / "precious").read_text() == "precious"
    replaced, nothing = await left_by(http, "F/Replaced")
    assert nothing["items"] == []
    assert "was replaced" in replaced["artifactsNote"]
    assert (service.apps.board / "precious").exists()


async def test_what_is_put_there_after_the_end_is_not_given_out(
    service: Service, http: Http
) -> None:
    end, found = await left_by(http, "F/Leaves")
    folder = service.data / "JobOutput" / end["executionId"] / "artifacts"
    report, inner = found["items"][2], found["items"][0]
    (folder / "report.txt").unlink()
    (folder / "report.txt").symlink_to("/etc/passwd")
    (folder / "late").write_text("late")
    (folder / "deep").rename(folder / "moved")
    (folder / "deep").symlink_to("moved")
    assert (await fetched(http, report))[0] == 410
    assert (await fetched(http, inner))[0] == 410
    assert (
        await http.call("GET", f"/executions/{end['executionId']}/artifacts/late")
    ).status == 404
    archive = await http.call("GET", f"/executions/{end['executionId']}/artifacts.zip")
    assert archive.status == 410
    (folder / "report.txt").unlink()
    (folder / "report.txt").write_text("HELLO report")
    assert (await fetched(http, report))[0] == 410


async def test_what_is_over_the_bounds_is_removed_and_said(service: Service, http: Http) -> None:
    for job_id, count, words in (("F/Many", 3, "3 files"), ("F/Heavy", 2, "with 25 bytes")):
        end, found = await left_by(http, job_id)
        assert (end["artifacts"], len(found["items"])) == (count, count)
        assert f"{5 - count} artifacts were not kept" in end["artifactsNote"]
        assert words in end["artifactsNote"]
        folder = service.data / "JobOutput" / end["executionId"] / "artifacts"
        assert len(list(folder.iterdir())) == count
        status = await eventually(partial(service.status, end["executionId"]))
        assert status["ArtifactsNote"] == end["artifactsNote"]


async def test_a_large_file_comes_whole_and_in_a_zip(service: Service, http: Http) -> None:
    end, found = await left_by(http, "F/Large")
    assert end["status"] == "Succeeded", await http.output(end["executionId"])
    assert end["artifactsNote"] == ""
    wanted = b"".join(number.to_bytes(4, "big") * 256 for number in range(3 * 1024))
    assert (await fetched(http, found["items"][0]))[2] == wanted
    async with Client(service.url, service.token) as client:
        listed = await client.artifacts(end["executionId"])
        async with aclosing(client.artifact(end["executionId"], listed.items[0].path)) as pieces:
            assert b"".join([piece async for piece in pieces]) == wanted
        async with aclosing(client.artifact_archive(end["executionId"])) as pieces:
            archive = b"".join([piece async for piece in pieces])
        with pytest.raises(ApiProblem):
            async for _ in client.artifact(end["executionId"], "none"):
                pass
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        assert files.read("large.bin") == wanted


async def test_the_right_to_the_output_is_needed_and_deletion_takes_the_files(
    service: Service, http: Http
) -> None:
    end, found = await left_by(http, "F/Leaves")
    body = {"userId": "vera", "roles": ["viewer"]}
    token = (await http.call("POST", "/tokens", body)).json["token"]
    base = f"/api/v1/executions/{end['executionId']}/artifacts"
    for path in (base, f"{base}.zip", found["items"][0]["href"]):
        answer = await service.raw("GET", path, headers={"Authorization": f"Bearer {token}"})
        assert answer.status == 403, path
    assert (await http.call("DELETE", f"/executions/{end['executionId']}")).status in (200, 202)

    async def is_gone() -> bool:
        return not (service.data / "JobOutput" / end["executionId"]).exists()

    await eventually_answered(is_gone, "the folder is removed")
    assert (await http.call("GET", base.removeprefix("/api/v1"))).status in (404, 410)


async def test_the_list_survives_a_death_of_the_service(service: Service) -> None:
    async with service.http() as http:
        execution_id = await http.start("F/Waits")
        assert (await http.get(f"/executions/{execution_id}/artifacts"))["items"] == []
        service.kill9()
        service.apps.put("released")
        service.start()
    async with service.http() as http:
        end = await http.ended(execution_id)
        assert end["artifacts"] == 3
        service.restart()
    async with service.http() as http:
        found = await http.get(f"/executions/{execution_id}/artifacts")
        assert [(await fetched(http, each))[0] for each in found["items"]] == [200, 200, 200]


def test_the_command_line_lists_and_fetches(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobbus = in_this_process(monkeypatch, capsys)
    assert jobbus(service.root, "run", "F/Leaves").code == 0
    listed = jobbus(service.root, "artifacts", "F/Leaves")
    assert "deep/er/inner.csv" in listed.out
    place = service.root / "fetched"
    place.mkdir()
    assert jobbus(service.root, "artifacts", "F/Leaves", "report.txt", "-o", str(place)).code == 0
    assert (place / "report.txt").read_text() == "hello report"
    piped = jobbus(service.root, "artifacts", "F/Leaves", "report.txt", "-o", "-")
    assert (piped.code, piped.out) == (0, "hello report")
    for wrong in (("-o", "--zip"), ("report.txt", "-o", "--zip"), ("-o", str(place))):
        assert jobbus(service.root, "artifacts", "F/Leaves", *wrong).code == Exit.USAGE
    again = jobbus(service.root, "artifacts", "F/Leaves", "report.txt", "-o", str(place))
    assert again.code == Exit.CONFLICT
    assert "exists" in again.err
    archive = place / "all.zip"
    assert jobbus(service.root, "artifacts", "F/Leaves", "--zip", "-o", str(archive)).code == 0
    with zipfile.ZipFile(archive) as files:
        assert files.read("deep/er/inner.csv") == b"inner"
    missing = jobbus(service.root, "artifacts", "F/Leaves", "report.tx")
    assert missing.code != 0
    assert 'did you mean "report.txt"' in missing.err


async def test_the_page_has_a_link_for_each_file(service: Service, http: Http) -> None:
    await left_by(http, "F/Leaves")
    async with chromium() as browser:
        page = await browser.new_page()
        await page.goto(service.url)
        await page.fill("#token", service.token)
        await page.click("#sign-in button")
        await page.click("tbody button:has-text('Leaves') >> nth=0")
        link = page.locator("#files a", has_text="report.txt")
        await expect(link).to_be_visible()
        async with page.expect_download() as saved:
            await link.click()
        path = await (await saved.value).path()
        assert await asyncio.to_thread(Path(path).read_bytes) == b"hello report"
