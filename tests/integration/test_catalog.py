"""The catalog on a real disk: what is found, what is reported of broken files, and when."""

import asyncio
import errno
import os
import shutil
from collections.abc import AsyncIterator
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import watchfiles
from asyncinotify import Inotify, Mask
from watchfiles._rust_notify import RustNotify

from bus.commands import ApplyCatalog, Definition
from handlers.catalog import definition_files, watch
from handlers.catalog import folder_watch as doorbell
from handlers.catalog.definition_files import DefinitionFiles
from handlers.catalog.layers import SIZE_MAX
from handlers.catalog.regular_files import content_of
from handlers.catalog.watch import CatalogWatch
from tests.service import eventually

GOOD = 'command = ["./run.sh"]\n'
BROKEN = "command = [\n"
NOT_UTF8 = os.fsdecode(b"caf\xe9")


def scan(apps: Path) -> tuple[Definition, ...]:
    return DefinitionFiles(apps).scan()


def define(apps: Path, job_id: str, text: str = GOOD) -> Path:
    app, job = job_id.split("/")
    folder = apps / app / "jobs" / job
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "job.toml"
    file.write_text(text)
    return file


def by_id(definitions: tuple[Definition, ...]) -> dict[str, Definition]:
    return {definition.job_id: definition for definition in definitions}


def reason_of(definition: Definition) -> str:
    assert definition.fault is not None
    assert definition.spec is None
    return definition.fault.reason


def test_scan_finds_the_jobs_of_all_apps_by_id(tmp_path: Path) -> None:
    for job_id in ("B/b", "A/z", "A/a"):
        define(tmp_path, job_id)

    found = scan(tmp_path)

    assert [d.job_id for d in found] == ["A/a", "A/z", "B/b"]
    spec = found[0].spec
    assert spec is not None
    assert spec.directory == str(tmp_path / "A" / "jobs" / "a")


def test_scan_of_a_missing_folder_finds_nothing(tmp_path: Path) -> None:
    assert scan(tmp_path / "apps") == ()


def test_one_broken_file_hides_no_other(tmp_path: Path) -> None:
    define(tmp_path, "A/broken", BROKEN)
    define(tmp_path, "A/good")

    found = by_id(scan(tmp_path))

    assert found["A/good"].spec is not None
    fault = found["A/broken"].fault
    assert fault is not None
    assert fault.file == f"{tmp_path.name}/A/jobs/broken/job.toml"
    assert fault.line == 1
    assert "the list that begins in line 1 is not closed" in fault.reason


def test_a_folder_that_cannot_be_an_id_is_a_fault(tmp_path: Path) -> None:
    define(tmp_path, "A/two words")
    define(tmp_path, "-A/job")

    found = by_id(scan(tmp_path))

    assert "cannot be an id" in reason_of(found["A/two words"])
    assert "folder of the app" in reason_of(found["-A/job"])


def test_a_name_that_is_not_utf8_is_a_fault_that_can_be_encoded(tmp_path: Path) -> None:
    define(tmp_path, f"A/{NOT_UTF8}")

    (definition,) = scan(tmp_path)

    assert definition.job_id == "A/caf\ufffd"
    assert definition.fault is not None
    definition.fault.file.encode()


def test_hidden_folders_and_folders_without_a_definition_are_no_jobs(tmp_path: Path) -> None:
    define(tmp_path, ".git/hooks")
    define(tmp_path, "A/.draft")
    (tmp_path / "A" / "jobs" / "empty").mkdir(parents=True)
    (tmp_path / "B").mkdir()
    (tmp_path / "README").write_text("no app")

    assert scan(tmp_path) == ()


def test_links_in_a_circle_lead_nowhere(tmp_path: Path) -> None:
    define(tmp_path, "A/job")
    (tmp_path / "A" / "jobs" / "loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "A" / "jobs" / "job" / "again").symlink_to(".")

    assert [d.job_id for d in scan(tmp_path)] == ["A/job"]


def test_a_linked_app_is_read(tmp_path: Path) -> None:
    define(tmp_path / "releases" / "1", "A/job")
    (tmp_path / "apps").mkdir()
    (tmp_path / "apps" / "A").symlink_to(tmp_path / "releases" / "1" / "A")

    assert [d.job_id for d in scan(tmp_path / "apps")] == ["A/job"]


def test_a_pipe_in_place_of_a_definition_is_a_fault_and_hangs_nothing(tmp_path: Path) -> None:
    file = define(tmp_path, "A/job")
    file.unlink()
    os.mkfifo(file)

    (definition,) = scan(tmp_path)

    assert "no regular file" in reason_of(definition)


def test_a_folder_in_place_of_a_definition_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "A" / "jobs" / "job" / "job.toml").mkdir(parents=True)

    (definition,) = scan(tmp_path)

    assert "cannot be read" in reason_of(definition)


def test_an_endless_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    file = define(tmp_path, "A/job")
    with file.open("wb") as sparse:
        sparse.truncate(1 << 40)

    (definition,) = scan(tmp_path)

    assert reason_of(definition) == f"is larger than {SIZE_MAX // 1024} KiB"


def test_a_locked_app_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    define(tmp_path, "A/job")
    define(tmp_path, "B/job")
    scandir = os.scandir

    def locked(path: str) -> object:  # permissions alone do not stop root, as whom tests may run
        if path == str(tmp_path / "A" / "jobs"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    found = by_id(scan(tmp_path))

    assert reason_of(found["A/*"]) == "cannot be listed: Permission denied"
    assert found["B/job"].spec is not None


def test_the_revision_changes_with_the_content_only(tmp_path: Path) -> None:
    file = define(tmp_path, "A/job")
    (before,) = scan(tmp_path)
    os.utime(file, (1, 1))
    (touched,) = scan(tmp_path)
    file.write_text(GOOD + "# a word\n")
    (after,) = scan(tmp_path)

    assert touched == before
    assert after.revision != before.revision


def test_a_changed_file_of_equal_size_and_time_is_read_again(tmp_path: Path) -> None:
    files = DefinitionFiles(tmp_path)
    file = define(tmp_path, "A/job", GOOD + "timeout_s = 1\n")
    os.utime(file, (1, 1))
    files.scan()
    define(tmp_path, "A/job", GOOD + "timeout_s = 2\n")
    os.utime(file, (1, 1))

    (definition,) = files.scan()

    assert definition.spec is not None
    assert definition.spec.timeout_s == 2


def test_a_look_that_is_not_thorough_reads_what_was_changed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(definition_files, "SETTLED_NS", 0)
    files = DefinitionFiles(tmp_path)
    for name in ("A/changed", "A/put", "A/same", "B/other"):
        define(tmp_path, name)
    put = define(tmp_path, "A/new", GOOD + "timeout_s = 2\n")
    files.scan()
    read: list[str] = []

    def noted(path: str, size_max: int) -> bytes:
        if os.path.exists(path):  # noqa: PTH110
            read.append(path)
        return content_of(path, size_max)

    monkeypatch.setattr(definition_files, "content_of", noted)
    assert files.scan(thorough=False) == files.scan(thorough=False)
    assert read == []

    changed = define(tmp_path, "A/changed", GOOD + "timeout_s = 1\n")
    put.replace(tmp_path / "A" / "jobs" / "put" / "job.toml")
    (tmp_path / "B" / "defaults.toml").write_text("timeout_s = 3\n")
    found = by_id(files.scan(thorough=False))

    assert {job: each.spec.timeout_s for job, each in found.items() if each.spec} == {
        "A/changed": 1,
        "A/put": 2,
        "A/same": 0,
        "B/other": 3,
    }
    assert len(read) == 4
    assert str(changed) in read
    read.clear()
    files.scan()
    assert len(read) == 5


def test_a_file_that_was_changed_a_moment_ago_is_read_whatever_its_times_are(
    tmp_path: Path,
) -> None:
    files = DefinitionFiles(tmp_path)
    file = define(tmp_path, "A/job", GOOD + "timeout_s = 1\n")
    before = file.stat()
    files.scan()
    with file.open("r+") as opened:
        opened.write(GOOD + "timeout_s = 2\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    (definition,) = files.scan(thorough=False)

    assert definition.spec is not None
    assert definition.spec.timeout_s == 2


def test_two_jobs_that_are_one_folder_are_both_there_at_every_look(tmp_path: Path) -> None:
    file = define(tmp_path, "A/one")
    (file.parents[1] / "two").symlink_to("one")
    files = DefinitionFiles(tmp_path)
    for thorough in (True, True, False):
        found = files.scan(thorough=thorough)
        assert [each.job_id for each in found] == ["A/one", "A/two"]


class Reports:
    """Collects reports; a test waits for the one it claims will come."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Definition]] = []
        self._more = asyncio.Event()

    def __call__(self, report: object) -> None:
        assert isinstance(report, ApplyCatalog)
        self.seen.append(by_id(report.definitions))
        self._more.set()

    async def until(
        self, *, valid: AbstractSet[str], broken: AbstractSet[str] = frozenset()
    ) -> None:
        """The last report has exactly these jobs."""
        async with asyncio.timeout(20):
            while not self._is_now(valid, broken):
                self._more.clear()
                await self._more.wait()

    def _is_now(self, valid: AbstractSet[str], broken: AbstractSet[str]) -> bool:
        if not self.seen:
            return False
        last = self.seen[-1].values()
        return {d.job_id for d in last if d.spec} == valid and {
            d.job_id for d in last if d.fault
        } == broken


@asynccontextmanager
async def watching(apps: Path) -> AsyncIterator[Reports]:
    reports = Reports()
    watch = CatalogWatch(apps, reports)
    running = asyncio.create_task(watch.run(), name="catalog")
    try:
        yield reports
    finally:
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()


async def notices(file: Path, reports: Reports) -> None:
    """The only job's file is watched: the first look comes with new watches, the next by notice."""
    job_id = f"{file.parts[-4]}/{file.parts[-2]}"
    for _ in range(2):
        file.write_text(BROKEN)
        await reports.until(valid=set(), broken={job_id})
        file.write_text(GOOD)
        await reports.until(valid={job_id})


@pytest.fixture(autouse=True)
def quick_bell(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bell with less patience, so that the tests need less of it."""
    monkeypatch.setattr(doorbell, "STEP_MS", 20)
    monkeypatch.setattr(doorbell, "DEBOUNCE_MS", 60)
    monkeypatch.setattr(doorbell, "REST_S", 0.02)
    monkeypatch.setattr(doorbell, "UNWATCHED_LOOK_S", 0.1)


@pytest.fixture
def no_slow_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the doorbell can bring a change in time."""
    monkeypatch.setattr(watch, "SLOW_LOOK_S", 3600.0)


async def test_the_first_report_comes_even_when_nothing_is_defined(tmp_path: Path) -> None:
    async with watching(tmp_path) as reports:
        await reports.until(valid=set())
    assert reports.seen == [{}]


@pytest.mark.usefixtures("no_slow_look")
async def test_as_many_folders_are_watched_as_the_system_permits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorbell, "FEW_FOLDERS", 2)
    file = define(tmp_path, "A/a")
    for name in "bcdefgh":
        define(tmp_path, f"A/{name}")
    notify = RustNotify
    tried = []

    def limited(paths: list[str], *rest: object) -> object:
        tried.append(len(paths))
        if len(paths) > 6:
            raise OSError("OS file watch limit reached. about [...]")
        return notify(paths, *rest)  # type: ignore[arg-type]  # as awatch calls it

    monkeypatch.setattr(watchfiles.main, "RustNotify", limited)
    async with watching(tmp_path) as reports:
        everything = {f"A/{name}" for name in "abcdefgh"}
        await reports.until(valid=everything)
        await eventually(lambda: len(tried) >= 2, "fewer are watched")
        file.write_text(BROKEN)
        await reports.until(valid=everything - {"A/a"}, broken={"A/a"})
    assert tried[:2] == [11, 5]


@pytest.mark.usefixtures("no_slow_look")
async def test_a_save_is_announced_by_the_folder_watch(tmp_path: Path) -> None:
    file = define(tmp_path, "A/job")
    async with watching(tmp_path) as reports:
        await reports.until(valid={"A/job"})
        file.write_text(BROKEN)
        await reports.until(valid=set(), broken={"A/job"})
        file.with_name("job.toml.new").write_text(GOOD)
        file.with_name("job.toml.new").rename(file)
        await reports.until(valid={"A/job"})
        file.unlink()
        await reports.until(valid=set())


async def test_what_is_written_over_several_looks_is_reported_as_one_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "FRESH_S", 3600.0)  # however late the looks come
    monkeypatch.setattr(watch, "SETTLE_LOOKS_MAX", 3)
    last = define(tmp_path, "Z/last")
    async with watching(tmp_path) as reports:
        await reports.until(valid={"Z/last"})
        with Inotify() as looks:
            looks.add_watch(last, Mask.CLOSE_NOWRITE)  # a look reads the jobs by their names
            define(tmp_path, "A/first")
            async with asyncio.timeout(20):
                await looks.get()
            define(tmp_path, "A/second")
        await reports.until(valid={"Z/last", "A/first", "A/second"})
    assert len(reports.seen) == 2


@pytest.mark.usefixtures("no_slow_look")
async def test_new_apps_and_folders_made_again_are_noticed(tmp_path: Path) -> None:
    async with watching(tmp_path) as reports:
        await reports.until(valid=set())
        file = define(tmp_path, "New/job")
        await reports.until(valid={"New/job"})
        await notices(file, reports)
        file.unlink()
        file.parent.rmdir()
        define(tmp_path, "New/job")
        await notices(file, reports)


async def test_an_apps_folder_that_comes_later_is_noticed(tmp_path: Path) -> None:
    apps = tmp_path / "deep" / "apps"
    async with watching(apps) as reports:
        await reports.until(valid=set())
        define(apps, "A/job")
        await reports.until(valid={"A/job"})


async def test_nothing_is_reported_when_nothing_changed(tmp_path: Path) -> None:
    file = define(tmp_path, "A/one")
    async with watching(tmp_path) as reports:
        await reports.until(valid={"A/one"})
        (file.parent / "scratch").write_text("a job writes into its folder")
        os.utime(file)
        define(tmp_path, "A/two")  # the report of this one comes after looks at the above
        await reports.until(valid={"A/one", "A/two"})
    assert len(reports.seen) == 2


@pytest.mark.usefixtures("no_slow_look")
async def test_a_name_that_is_no_text_does_not_end_the_watch(tmp_path: Path) -> None:
    file = define(tmp_path, "A/one")
    async with watching(tmp_path) as reports:
        await reports.until(valid={"A/one"})
        await notices(file, reports)
        (file.parent / NOT_UTF8).touch()
        await reports.until(valid={"A/one"})
        await notices(file, reports)


async def test_a_watcher_that_cannot_be_had_leaves_the_slow_look_and_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no more inotify watches")

    monkeypatch.setattr(watchfiles.main, "RustNotify", refused)
    async with watching(tmp_path) as reports:
        await reports.until(valid=set())
        defined = set()
        for job in ("A/one", "A/two", "A/three"):
            define(tmp_path, job)
            defined.add(job)
            await reports.until(valid=defined)
    assert caplog.text.count("raise fs.inotify.max_user_watches") == 1


async def test_a_failed_look_keeps_the_catalog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    define(tmp_path, "A/one")
    scandir = os.scandir
    failed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def failing(path: str) -> object:
        loop.call_soon_threadsafe(failed.set)
        raise OSError(errno.EMFILE, "too many open files")

    async with watching(tmp_path) as reports:
        await reports.until(valid={"A/one"})
        monkeypatch.setattr(os, "scandir", failing)
        define(tmp_path, "A/two")
        async with asyncio.timeout(20):
            await failed.wait()
        monkeypatch.setattr(os, "scandir", scandir)
        define(tmp_path, "A/three")
        await reports.until(valid={"A/one", "A/two", "A/three"})
    assert all("A/one" in seen for seen in reports.seen)


async def test_release_that_a_link_leads_to_is_in_force_without_the_slow_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links at each place of the way: to the apps, to an app, to a job."""
    monkeypatch.setattr(watch, "SLOW_LOOK_S", 3600.0)
    apps = tmp_path / "apps"
    for name in ("a", "b"):
        for place in ("root/App/jobs/Job", "app/jobs/Job", "job"):
            folder = tmp_path / name / place
            folder.mkdir(parents=True)
            (folder / "job.toml").write_text(f'command = ["{name}"]\n')
    root = tmp_path / "a" / "root"
    swaps = [(apps, "root"), (root / "App2", "app"), (root / "App" / "jobs" / "J2", "job")]
    for link, what in swaps:
        link.symlink_to(tmp_path / "a" / what)
    reports: list[ApplyCatalog] = []
    catalog = CatalogWatch(apps, lambda report: reports.append(report))
    catalog.first()
    # Seen by the look that follows when the watches stand.
    (tmp_path / "a/root/App/jobs/Job/job.toml").write_text('command = ["changed"]\n')
    task = asyncio.create_task(catalog.run(), name="watch")
    try:
        await eventually(lambda: reports, "the watches stand")
        for link, what in reversed(swaps):
            before = len(reports)
            draft = link.with_name("draft")
            draft.symlink_to(tmp_path / "b" / what)
            draft.rename(link)
            await eventually(lambda before=before: reports[before:], f"{link} is seen")  # type: ignore[misc]
    finally:
        task.cancel()
        await asyncio.wait([task])


def publish(volume: Path, version: str, files: dict[str, str]) -> None:
    """A version of the volume is in force by one rename, and the last one is gone: so does the
    kubelet with a ConfigMap. What is named in the volume leads there over `..data`."""
    folder = volume / f"..2026_11_29_12_00_{version}"
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    draft, data = volume / "..data_tmp", volume / "..data"
    last = data.readlink() if data.is_symlink() else None
    draft.symlink_to(folder.name)
    draft.rename(data)
    for top in {name.partition("/")[0] for name in files}:
        if not (volume / top).is_symlink():
            (volume / top).symlink_to(f"..data/{top}")
    if last is not None:
        shutil.rmtree(volume / last)


@pytest.mark.usefixtures("no_slow_look")
@pytest.mark.parametrize(
    ("volume", "name"),
    [
        ("apps/A/jobs/job", "job.toml"),
        ("apps/A/jobs", "job/job.toml"),
        ("apps", "A/jobs/job/job.toml"),
        ("elsewhere", "job.toml"),
    ],
)
async def test_definition_behind_links_that_are_switched_is_noticed(
    tmp_path: Path, volume: str, name: str
) -> None:
    mounted = tmp_path / volume
    mounted.mkdir(parents=True)
    publish(mounted, "1", {name: GOOD, f"{name}.other": "none of ours"})
    if volume == "elsewhere":
        place = tmp_path / "apps" / "A" / "jobs" / "job"
        place.mkdir(parents=True)
        (place / "job.toml").symlink_to(mounted / "job.toml")
    async with watching(tmp_path / "apps") as reports:
        await reports.until(valid={"A/job"})
        for version, text in (("2", BROKEN), ("3", GOOD), ("4", BROKEN), ("5", GOOD)):
            publish(mounted, version, {name: text})
            if text == GOOD:
                await reports.until(valid={"A/job"})
            else:
                await reports.until(valid=set(), broken={"A/job"})


@pytest.mark.usefixtures("no_slow_look")
async def test_file_that_a_definition_links_to_is_watched_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    real = tmp_path / "files" / "nightly.toml"
    real.write_text(GOOD)
    folder = tmp_path / "apps" / "A" / "jobs" / "job"
    folder.mkdir(parents=True)
    (folder / "job.toml").symlink_to("../../../../files/nightly.toml")
    async with watching(tmp_path / "apps") as reports:
        await reports.until(valid={"A/job"})
        real.write_text(BROKEN)
        await reports.until(valid=set(), broken={"A/job"})
        real.unlink()
        await reports.until(valid=set(), broken={"A/job"})
        real.write_text(GOOD)
        await reports.until(valid={"A/job"})


@pytest.mark.parametrize(
    ("path", "job_id", "words"),
    [
        ("A/jobs/J/Job.toml", "A/J", "rename it to job.toml"),
        ("A/jobs/J/job.tml", "A/J", "rename it to job.toml"),
        ("A/jobs/J/job.toml.txt", "A/J", "rename it to job.toml"),
        ("A/jobs/J/jobs.toml", "A/J", "rename it to job.toml"),
        ("A/jobs/J/job.yaml", "A/J", "written in TOML, in a file job.toml"),
        ("A/jobs/J/job.yml", "A/J", "written in TOML"),
        ("A/jobs/J/job.json", "A/J", "written in TOML"),
        ("A/Flat/job.toml", "A/Flat", "move the folder Flat to jobs/Flat"),
        ("A/Flat/Job.toml", "A/Flat", "rename it to job.toml"),
        ("A/Flat/job.json", "A/Flat", "move the folder Flat to jobs/Flat"),
        ("jobs/J/job.toml", "jobs/J", "is in no app: move the folder jobs/J to APP/jobs/J"),
        ("A/jobs/Group/J/job.toml", "A/Group", "lies too deep: move the folder J up, to jobs/J"),
        ("A/Jobs/J/job.toml", "A/J", "rename the folder Jobs to jobs"),
        ("A/job/J/job.toml", "A/J", "rename the folder job to jobs"),
        ("A/job.toml", "A/*", "is in no folder of a job"),
        ("A/jobs/job.toml", "A/*", "is in no folder of a job"),
    ],
)
def test_what_nearly_is_a_job_is_a_fault_that_says_what_would_be_right(
    tmp_path: Path, path: str, job_id: str, words: str
) -> None:
    define(tmp_path, "A/right")
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(GOOD)

    found = by_id(scan(tmp_path))

    assert set(found) == {"A/right", job_id}
    assert words in reason_of(found[job_id])
    fault = found[job_id].fault
    assert fault is not None
    assert fault.file == f"{tmp_path.name}/{path}"


def test_what_nearly_is_a_job_hides_none_that_is(tmp_path: Path) -> None:
    define(tmp_path, "A/J")
    for path in ("A/J/job.toml", "A/jobs/J/Job.toml", "A/Jobs/J/job.toml"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(BROKEN)

    (definition,) = scan(tmp_path)

    assert definition.spec is not None


def test_a_file_that_gets_its_right_name_is_a_job_at_once(tmp_path: Path) -> None:
    file = define(tmp_path, "A/J").rename(tmp_path / "A" / "jobs" / "J" / "Job.toml")
    files = DefinitionFiles(tmp_path)
    assert files.scan()[0].spec is None

    file.rename(file.with_name("job.toml"))

    assert files.scan()[0].spec is not None


def test_folders_that_hold_other_things_are_no_jobs(tmp_path: Path) -> None:
    define(tmp_path, "A/J")
    for path in (
        "A/lib/README.md",
        "A/jobs/shared/lib.sh",
        "A/data/2026/x.json",
        "A/.git/job.toml",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")

    assert [d.job_id for d in scan(tmp_path)] == ["A/J"]
