"""Saved definitions are in force at once; broken ones are shown, and the last good one goes on."""

import asyncio
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asyncinotify import Inotify, Mask

from bus.events import JobChanged, JobRemoved
from handlers.journal.format import Record, decode_line
from tests.jobs import Apps
from tests.service import (
    PATIENCE_S,
    Http,
    Service,
    eventually,
    eventually_answered,
    running_service,
)


def define(apps: Apps) -> None:
    apps.shell("T/Edited", "echo one")
    apps.shell("T/Other", "echo other")
    apps.shell("T/Running", 'echo old; until [ -e "$BOARD/go" ]; do sleep 0.1; done; echo done')


@pytest.fixture
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("reload"), define) as running:
        yield running


async def job_when(http: Http, job_id: str, **fields: object) -> dict[str, Any]:
    """The job as soon as it has these fields; `fault` is only looked at for being there."""

    async def look() -> dict[str, Any] | None:
        answer = await http.call("GET", f"/jobs/{job_id}")
        if answer.status != 200:
            return None
        job: dict[str, Any] = answer.json
        shown = job | {"fault": job["fault"] is not None}
        return job if all(shown[name] == value for name, value in fields.items()) else None

    return await eventually_answered(look, f"{job_id} with {fields}")


async def cli(service: Service, *arguments: str) -> str:
    """What the command line prints, asked of the service."""
    words = (sys.executable, "-m", "jobbus", *arguments, "--data", str(service.data))
    child = await asyncio.create_subprocess_exec(
        *words, env=service.environment(), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(PATIENCE_S):
        out, _ = await child.communicate()
    assert child.returncode == 0
    return out.decode()


async def said(http: Http, job_id: str) -> bytes:
    execution_id = await http.start(job_id)
    assert (await http.ended(execution_id))["status"] == "Succeeded"
    return await http.output(execution_id)


async def test_edit_is_in_force_without_a_restart_and_sent_to_subscribers(
    service: Service,
) -> None:
    async with service.http() as http, await service.stream() as events:
        await events.until_kind("snapshot_end")
        assert await said(http, "T/Edited") == b"one\n"
        service.apps.shell("T/Edited", "echo two", description="second")
        event = (await events.until_change("job.changed"))[-1].data
        assert (event["job"], event["data"]["description"]) == ("T/Edited", "second")
        await job_when(http, "T/Edited", description="second", fault=False)
        assert await said(http, "T/Edited") == b"two\n"


async def test_broken_edit_is_shown_with_its_line_while_the_old_version_starts(
    service: Service,
) -> None:
    path = service.apps.definition("T/Edited")
    good = path.read_text()
    async with service.http() as http, await service.stream() as events:
        await events.until_kind("snapshot_end")
        path.write_text(good + "\n[variables.Count]\ntype = 'intger'\n")
        line = path.read_text().splitlines().index("type = 'intger'") + 1
        event = (await events.until_change("job.invalid"))[-1].data
        broken = await job_when(http, "T/Edited", fault=True)
        for fault in (broken["fault"], event["data"]["fault"]):
            assert fault["file"].endswith("T/jobs/Edited/job.toml")
            assert fault["line"] == line
            assert "intger" in fault["reason"]
            assert "integer" in fault["reason"]
        assert broken["may"]["start"]["allowed"] is True
        assert await said(http, "T/Edited") == b"one\n"
        path.write_text("command = [\n")
        await eventually_answered(
            lambda: reason_has(http, "the list that begins in line 1 is not closed"),
            "the next fault",
        )
        assert await said(http, "T/Edited") == b"one\n"
        assert await said(http, "T/Other") == b"other\n"
        path.write_text(good.replace("echo one", "echo repaired"))
        await job_when(http, "T/Edited", fault=False)
        assert await said(http, "T/Edited") == b"repaired\n"


@pytest.mark.parametrize("is_removed", [False, True])
async def test_definition_that_is_saved_in_pieces_is_never_shown_as_broken_or_gone(
    service: Service, *, is_removed: bool
) -> None:
    path = service.apps.definition("T/Edited")
    good = path.read_text().replace("echo one", "echo pieces")
    async with service.http() as http, await service.stream() as events:
        await events.until_kind("snapshot_end")
        with Inotify() as looks:
            # A look reads the jobs in the order of their names.
            looks.add_watch(service.apps.definition("T/Other"), Mask.CLOSE_NOWRITE)
            if is_removed:
                path.unlink()
            else:
                path.write_text("command = [\n")
            async with asyncio.timeout(PATIENCE_S):
                await looks.get()
        path.write_text(good)
        received = await events.until_change("job.changed")
        kinds = [each.data["type"] for each in received if each.kind == "change"]
        assert kinds == ["job.changed"]
        assert await said(http, "T/Edited") == b"pieces\n"


async def reason_has(http: Http, word: str) -> bool:
    fault = (await http.get("/jobs/T/Edited"))["fault"]
    return fault is not None and word in fault["reason"]


async def test_broken_definition_survives_a_restart_with_its_last_good_version(
    service: Service,
) -> None:
    service.apps.definition("T/Edited").write_text("command = 'sh'\n")
    async with service.http() as http:
        before = await job_when(http, "T/Edited", fault=True)
    service.restart()
    async with service.http() as http:
        after = await http.get("/jobs/T/Edited")
        assert after["fault"] == before["fault"]
        assert after["revision"] == before["revision"]
        assert await said(http, "T/Edited") == b"one\n"


async def test_new_folder_appears_and_a_removed_one_disappears(service: Service) -> None:
    async with service.http() as http, await service.stream() as events:
        await events.until_kind("snapshot_end")
        assert (await http.call("GET", "/jobs/New/Job")).status == 404
        service.apps.shell("New/Job", "echo new")
        event = (await events.until_change("job.defined"))[-1].data
        assert event["job"] == "New/Job"
        await job_when(http, "New/Job", fault=False)
        assert await said(http, "New/Job") == b"new\n"
        service.apps.definition("T/Other").unlink()
        service.apps.folder("T/Other").rmdir()
        removed = (await events.until_change("job.removed"))[-1].data
        assert removed["job"] == "T/Other"
        assert (await http.call("GET", "/jobs/T/Other")).status == 404
        refused = await http.call("POST", "/commands", {"command": "start", "jobId": "T/Other"})
        assert (refused.status, refused.json["code"]) == (404, "unknown_job")
        listed = [job["jobId"] for job in (await http.get("/jobs"))["items"]]
        assert listed == ["New/Job", "T/Edited", "T/Running"]


async def test_running_execution_keeps_the_version_it_started_with(service: Service) -> None:
    async with service.http() as http:
        execution_id = await http.start("T/Running")
        before = await http.execution(execution_id)
        log = service.data / "JobOutput" / execution_id / "output.log"
        await eventually(lambda: log.read_bytes() == b"old\n", "it runs")
        service.apps.shell("T/Running", "echo new", description="new")
        job = await job_when(http, "T/Running", description="new")
        assert job["revision"] != before["revision"]
        service.apps.put("go")
        after = await http.ended(execution_id)
        assert (after["status"], after["revision"]) == ("Succeeded", before["revision"])
        assert await http.output(execution_id) == b"old\ndone\n"
        assert await said(http, "T/Running") == b"new\n"


class Deployed(Service):
    """Its apps are those of the release that the link `current` leads to."""

    def places(self) -> tuple[str, ...]:
        return "--data", str(self.data), "--apps", str(self.root / "current" / "apps")

    def release(self, number: int) -> None:
        """A new release is there, whole, and then in force by one rename."""
        folder = self.root / "releases" / str(number) / "apps" / "D" / "jobs" / "Says"
        folder.mkdir(parents=True)
        script = folder / "says.sh"
        script.write_text(f'echo "program {number}, arguments $1, in $(cat mark)"\n')
        (folder / "mark").write_text(f"{number}\n")
        text = f'command = ["sh", "says.sh", "{number}"]\nmax_running = 100\n'
        (folder / "job.toml").write_text(text)
        link = self.root / "next"
        link.symlink_to(Path("releases") / str(number))
        link.rename(self.root / "current")


async def test_program_arguments_and_folder_are_of_one_release_when_a_link_is_swapped(
    tmp_path: Path,
) -> None:
    service = Deployed(tmp_path)
    service.release(1)
    try:
        service.start()
        async with service.http() as http:
            said = set[str]()
            for number in (2, 3):
                service.release(number)
                new = f"program {number}, arguments {number}, in {number}\n"
                while new not in said:
                    execution_id = await http.start("D/Says")
                    await http.ended(execution_id)
                    said.add((await http.output(execution_id)).decode())
        assert said <= {f"program {n}, arguments {n}, in {n}\n" for n in (1, 2, 3)}
    finally:
        service.clear_away()


async def test_definition_of_a_mounted_config_map_is_in_force_when_it_was_switched(
    service: Service,
) -> None:
    """`job.toml` -> `..data/job.toml`, and `..data` leads to another folder by one rename."""
    volume = service.apps.definition("T/Mounted").parent
    volume.mkdir(parents=True)

    def publish(number: int) -> None:
        folder = volume / f"..2026_11_29_12_00_0{number}"
        folder.mkdir()
        (folder / "job.toml").write_text(f'command = ["echo", "version {number}"]\n')
        draft = volume / "..data_tmp"
        draft.symlink_to(folder.name)
        draft.rename(volume / "..data")

    publish(1)
    (volume / "job.toml").symlink_to("..data/job.toml")
    async with service.http() as http:
        first = await job_when(http, "T/Mounted", fault=False)
        assert await said(http, "T/Mounted") == b"version 1\n"
        publish(2)

        async def is_new() -> bool:
            job: dict[str, Any] = await http.get("/jobs/T/Mounted")
            return bool(job["revision"] != first["revision"])

        await eventually_answered(is_new, "the switch was noticed")
        assert await said(http, "T/Mounted") == b"version 2\n"


async def test_defaults_are_in_force_at_once_and_shown_with_their_origin(service: Service) -> None:
    site = service.apps.root / "defaults.toml"
    in_app = service.apps.root / "T" / "defaults.toml"
    async with service.http() as http:
        in_app.write_text("timeout_s = 70\n[env]\nWORD = 'app'\n")
        site.write_text("stop_grace_s = 7\ntimeout_s = 7\n[env]\nWORD = 'site'\n")
        service.apps.shell("T/Edited", 'echo "$WORD"')
        job = await job_when(http, "T/Edited", timeoutS=70, stopGraceS=7)
        assert job["origins"] == {
            "timeout_s": "apps/T/defaults.toml:1",
            "env.WORD": "apps/T/defaults.toml:3",
            "stop_grace_s": "apps/defaults.toml:1",
        }
        assert await said(http, "T/Edited") == b"app\n"

        in_app.unlink()
        job = await job_when(http, "T/Edited", timeoutS=7)
        assert job["origins"]["env.WORD"] == "apps/defaults.toml:4"
        assert await said(http, "T/Edited") == b"site\n"


async def test_mistake_in_defaults_is_shown_there_and_the_last_good_version_goes_on(
    service: Service,
) -> None:
    site = service.apps.root / "defaults.toml"
    async with service.http() as http:
        site.write_text("timeout_s = 7\n")
        await job_when(http, "T/Edited", timeoutS=7, fault=False)

        site.write_text("\ntimout_s = 8\nmax_running = 0\n")
        job = await job_when(http, "T/Edited", fault=True)

        fault = job["fault"]
        assert (fault["file"], fault["line"], fault["key"]) == ("apps/defaults.toml", 2, "timout_s")
        (more,) = fault["more"]
        assert (more["file"], more["line"], more["key"]) == ("apps/defaults.toml", 3, "max_running")
        assert job["timeoutS"] == 7
        assert await said(http, "T/Other") == b"other\n"
        shown = await cli(service, "status", "T/Edited")
        assert "apps/defaults.toml:2: unknown key" in shown
        assert "apps/defaults.toml:3: max_running must be" in shown

        site.unlink()
        await job_when(http, "T/Edited", timeoutS=0, fault=False)


async def test_app_says_what_it_is_and_a_mistake_in_that_stops_no_job(service: Service) -> None:
    file = service.apps.root / "T" / "app.toml"
    async with service.http() as http:

        async def app_when(**fields: object) -> dict[str, Any]:
            async def look() -> dict[str, Any] | None:
                (app,) = (await http.get("/apps"))["items"]
                found: dict[str, Any] = app
                return found if all(app[name] == value for name, value in fields.items()) else None

            return await eventually_answered(look, f"the app with {fields}")

        app = await app_when(name="T", version="", fault=None)
        assert app["jobs"] == ["T/Edited", "T/Other", "T/Running"]

        file.write_text('name = "Test app"\nversion = "1.2"\ndescription = "for tests"\n')
        await app_when(name="Test app", version="1.2", description="for tests")
        assert (await http.get("/jobs/T/Other"))["appName"] == "Test app 1.2"
        assert "Test app 1.2" in await cli(service, "jobs")
        assert await cli(service, "apps") == (
            "APP  NAME      VERSION  JOBS  DESCRIPTION\nT    Test app  1.2      3     for tests\n"
        )

        file.write_text('nme = "Test app"\n')
        fault = {"file": "apps/T/app.toml", "line": 1, "key": "nme", "more": []}
        reason = 'unknown key "nme"; did you mean "name"?'
        await app_when(name="Test app", fault=fault | {"reason": reason})
        assert await said(http, "T/Other") == b"other\n"
        assert f"apps/T/app.toml:1: {reason}" in await cli(service, "apps")


JOBS = 500


def git(place: Path, *words: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@localhost")
    subprocess.run(["git", *identity, *words], cwd=place, check=True, stdout=subprocess.DEVNULL)


def committed_twice(apps: Apps) -> None:
    """Two versions of many jobs, of which the first is checked out."""
    git(apps.root, "init", "-q")
    for version in ("one", "two"):
        for number in range(JOBS):
            apps.shell(f"G/J{number}", f"echo {version}", description=version)
        if version == "two":
            apps.definition("G/J0").unlink()
            apps.folder("G/J0").rename(apps.folder("G/Gone"))
            apps.shell("H/Added", "echo two", description="two")
        git(apps.root, "add", "-A")
        git(apps.root, "commit", "-qm", version)
        git(apps.root, "tag", version)
    git(apps.root, "checkout", "-q", "one")


@pytest.mark.skipif(shutil.which("git") is None, reason="takes git")
async def test_checkout_that_changes_500_jobs_is_in_force_as_one_set(tmp_path: Path) -> None:
    with running_service(tmp_path, committed_twice) as service:
        async with service.http() as http:
            await asyncio.to_thread(git, service.apps.root, "checkout", "-q", "two")
            await job_when(http, "H/Added", description="two", fault=False)
            for number in (1, JOBS - 1):
                assert (await http.get(f"/jobs/G/J{number}"))["description"] == "two"
            assert (await http.call("GET", "/jobs/G/J0")).status == 404
        decisions = [
            Counter(type(event).__name__ for event in record.events)
            for record in records_of(service.data)
            if any(isinstance(event, JobChanged | JobRemoved) for event in record.events)
        ]
        assert decisions == [Counter(JobChanged=JOBS - 1, JobRemoved=1, JobDefined=1)]


def records_of(data: Path) -> Iterator[Record]:
    for path in sorted((data / "Journal").glob("*.log")):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.strip(b"\0\n"):
                yield decode_line(line)


async def test_app_whose_folder_is_moved_has_its_new_name_and_revision(service: Service) -> None:
    async with service.http() as http:
        service.apps.shell("Here/Job", "echo moved")
        before = await job_when(http, "Here/Job", fault=False)
        (service.apps.root / "Here").rename(service.apps.root / "There")
        after = await job_when(http, "There/Job", fault=False)
        assert (await http.call("GET", "/jobs/Here/Job")).status == 404
        assert await said(http, "There/Job") == b"moved\n"
        [execution] = await http.executions("There/Job")
        assert execution["revision"] == after["revision"] != before["revision"]
