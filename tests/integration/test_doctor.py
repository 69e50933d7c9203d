"""`jobbus doctor`: what it finds, what it repairs, and that looking changes nothing."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bus.envelope import new_uuid
from bus.errors import DataDirectoryError
from bus.layout import DataLayout
from jobbus.doctor import place, unit
from jobbus.doctor.examination import Report, begin_new_epoch, examine
from jobbus.doctor.findings import Level
from jobbus.service.instance import read_instance
from tests.jobs import Apps
from tests.service import ROOT, Service, running_service

LONG_AGO_S = time.time() - 90_000


def define(apps: Apps) -> None:
    apps.shell("T/Brief", "echo done")


async def use(service: Service) -> None:
    async with service.http() as http:
        for _ in range(3):
            await http.ended(await http.start("T/Brief"))


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data directory whose service has run three executions and has ended in order."""
    with running_service(tmp_path_factory.mktemp("used"), define) as service:
        asyncio.run(use(service))
        assert service.end() == 0
        yield service.data


@pytest.fixture
def data(used: Path, tmp_path: Path) -> DataLayout:
    """The same directory once more. The journal's files are the very same: a copy is refused."""
    root = tmp_path / "data"
    shutil.copytree(used, root, ignore=shutil.ignore_patterns("Journal"))
    (root / "Journal").mkdir(mode=0o700)
    for path in (used / "Journal").iterdir():
        if path.suffix == ".log":
            os.link(path, root / "Journal" / path.name)
        elif path.is_file():
            shutil.copy2(path, root / "Journal")
    return DataLayout(root)


def found(report: Report, check: str) -> list[str]:
    return [finding.text for finding in report.findings if finding.check == check]


def tree_of(root: Path) -> dict[str, tuple[int, int, int]]:
    """All files with what changes when they are touched."""
    return {
        str(path.relative_to(root)): (s.st_mtime_ns, s.st_size, s.st_mode)
        for path in sorted(root.rglob("*"))
        if path.is_file()
        for s in [path.lstat()]
    }


def own_segment(data: DataLayout) -> Path:
    """The last segment, apart from the one it was linked from."""
    segment = sorted(data.journal.glob("*.log"))[-1]
    content = segment.read_bytes()
    segment.unlink()
    segment.write_bytes(content)
    return segment


def test_a_directory_in_order_has_no_faults_and_looking_changes_nothing(data: DataLayout) -> None:
    before = tree_of(data.root)
    report = examine(data.root)
    assert [f for f in report.findings if f.level is not Level.NOTE] == []
    assert report.is_well
    assert tree_of(data.root) == before


def test_a_torn_end_is_no_fault_and_is_left_to_the_next_start(data: DataLayout) -> None:
    segment = own_segment(data)
    content = segment.read_bytes().rstrip(b"\0")
    segment.write_bytes(content[:-20])
    report = examine(data.root)
    assert any("never acknowledged" in text for text in found(report, "journal"))
    assert any("did not end in order" in text for text in found(report, "journal"))


def test_damage_before_the_end_is_reported_and_nothing_is_touched(data: DataLayout) -> None:
    segment = own_segment(data)
    content = bytearray(segment.read_bytes())
    content[200] ^= 0xFF
    segment.write_bytes(content)
    before = tree_of(data.journal)
    report = examine(data.root, repair=True)
    [fault] = [f for f in report.findings if f.level is Level.ERROR]
    assert (fault.check, fault.repaired) == ("journal", False)
    assert "damaged at byte" in fault.text
    assert tree_of(data.journal) == before


def test_a_copied_journal_is_distinguished_from_the_original(data: DataLayout) -> None:
    own_segment(data)
    [text] = found(examine(data.root), "epoch")
    assert "is a copy" in text


@pytest.mark.parametrize("content", [None, b"{"], ids=["missing", "damaged"])
def test_a_lost_epoch_is_reported_and_not_set_aside(
    data: DataLayout, content: bytes | None
) -> None:
    path = data.journal / "epoch.json"
    path.unlink() if content is None else path.write_bytes(content)
    before = tree_of(data.journal)
    assert any("new epoch" in text for text in found(examine(data.root), "epoch"))
    assert tree_of(data.journal) == before


def test_a_missing_segment_is_reported(data: DataLayout) -> None:
    sorted(data.journal.glob("*.log"))[-1].unlink()
    assert any("is missing" in text for text in found(examine(data.root), "journal"))


def test_open_secrets_and_a_writable_directory_are_closed(data: DataLayout) -> None:
    data.admin_token.chmod(0o644)
    data.root.chmod(0o777)
    report = examine(data.root)
    assert len(found(report, "modes")) == 2
    assert all("chmod" in text for text in found(report, "modes"))
    assert examine(data.root, repair=True).is_well
    assert data.admin_token.stat().st_mode & 0o777 == 0o600
    assert data.root.stat().st_mode & 0o022 == 0
    assert found(examine(data.root), "modes") == []


def test_missing_and_wrong_projections_are_written_again(data: DataLayout) -> None:
    [first, second, *_] = sorted(data.status.glob("*.json"))
    [result, *_] = sorted(data.results.glob("*.json"))
    right = second.read_bytes()
    first.unlink()
    second.write_bytes(b"{}")
    result.unlink()
    [text] = found(examine(data.root), "projections")
    assert text.startswith("3 status and result files")
    assert examine(data.root, repair=True).is_well
    assert (first.exists(), second.read_bytes(), result.exists()) == (True, right, True)
    assert found(examine(data.root), "projections") == []


def test_left_over_files_are_removed_and_those_of_others_are_not(data: DataLayout) -> None:
    stray = new_uuid(time.time_ns() // 1_000_000)
    (data.output / stray).mkdir()
    (data.output / "mine").mkdir()
    (data.status / f"{stray}.json").write_text("{}")
    passing = data.queue_tmp / "half-written"
    passing.write_text("{")
    os.utime(passing, (LONG_AGO_S, LONG_AGO_S))
    fresh = data.queue_tmp / "being-written"
    fresh.write_text("{")
    report = examine(data.root)
    assert [len(found(report, c)) for c in ("outputs", "status_files", "stale")] == [1, 1, 1]
    assert examine(data.root, repair=True).is_well
    assert not (data.output / stray).exists()
    assert not (data.status / f"{stray}.json").exists()
    assert (passing.exists(), fresh.exists()) == (False, True)
    assert (data.output / "mine").exists()


def test_evidence_of_a_lost_past_is_never_taken_for_left_over(data: DataLayout) -> None:
    old = new_uuid(1_000_000)
    (data.output / old).mkdir()
    (data.journal / "evidence-before").write_text(f"{time.time_ns() // 1_000_000}\n")
    damaged = data.journal / "00000000000000000001.log.damaged"
    damaged.write_text("x")
    report = examine(data.root, repair=True)
    assert report.is_well
    assert len(found(report, "evidence")) == 2
    assert (data.output / old).exists()
    assert damaged.exists()


def test_lost_output_is_reported(data: DataLayout) -> None:
    [folder, *_] = sorted(path for path in data.output.iterdir() if path.is_dir())
    shutil.rmtree(folder)
    report = examine(data.root, repair=True)
    assert any(folder.name in text for text in found(report, "outputs"))
    assert not report.is_well


@pytest.mark.parametrize(
    "args",
    [("--json",), pytest.param((), marks=pytest.mark.exhaustive)],
    ids=["json", "words"],
)
def test_the_command_says_what_it_found_and_its_exit_code_whether_all_is_well(
    data: DataLayout, args: tuple[str, ...]
) -> None:
    def run(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "jobbus", "doctor", "--data", str(data.root), *more]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)

    assert run(*args).returncode == 0
    sorted(data.results.glob("*.json"))[0].unlink()
    ill = run(*args)
    assert ill.returncode == 1
    if args:
        report: dict[str, Any] = json.loads(ill.stdout)
        assert (report["running"], report["data"]) == (False, str(data.root))
        assert "projections" in [finding["check"] for finding in report["findings"]]
    else:
        assert "status and result files" in ill.stdout
    assert run("--repair", *args).returncode == 0
    assert run(*args).returncode == 0


@pytest.mark.parametrize(
    ("flag", "name", "lines"),
    [
        ("--unit", "jobbus.service", {"KillMode=process", "Delegate=yes", "Type=notify"}),
        ("--socket", "jobbus.socket", {"ListenStream=127.0.0.1:8765"}),
    ],
)
def test_the_units_that_go_with_this_version_are_printed(
    flag: str, name: str, lines: set[str]
) -> None:
    command = [sys.executable, "-m", "jobbus", "doctor", flag]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert printed.stdout == (ROOT / "examples/systemd" / name).read_text(encoding="utf-8")
    assert lines <= set(printed.stdout.splitlines())


def damage_instance(data: DataLayout) -> None:
    data.instance.write_text("{")


def remove_folder(data: DataLayout) -> None:
    shutil.rmtree(data.rejects)


def reject_something(data: DataLayout) -> None:
    for name in ("1-a.json", "1-a.reason.json"):
        (data.rejects / name).write_text("{}")


def link_the_token(data: DataLayout) -> None:
    token = data.root / "admin.token"
    token.rename(data.root / "elsewhere")
    token.symlink_to(data.root / "elsewhere")


def give_away(data: DataLayout) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    os.chown(data.status, 65534, -1)


@pytest.mark.parametrize(
    ("mess", "check", "words", "is_well"),
    [
        (damage_instance, "instance", "is damaged", False),
        (remove_folder, "folders", "the next start makes it", True),
        (reject_something, "rejects", "1 files that were no command", True),
        (link_the_token, "secrets", "not a regular file", False),
        (give_away, "owner", "another account", False),
    ],
)
def test_what_is_wrong_or_good_to_know_is_reported_in_a_sentence_and_left_alone(
    data: DataLayout,
    mess: Callable[[DataLayout], None],
    check: str,
    words: str,
    is_well: bool,
) -> None:
    mess(data)
    before = tree_of(data.root)
    report = examine(data.root)
    [text] = found(report, check)
    assert words in text
    assert report.is_well is is_well
    assert tree_of(data.root) == before


@pytest.mark.parametrize(
    ("kind", "words"), [("nfs4", "network file system"), ("fuseblk", "slower")]
)
def test_a_file_system_that_keeps_promises_badly_is_reported(
    data: DataLayout, monkeypatch: pytest.MonkeyPatch, kind: str, words: str
) -> None:
    monkeypatch.setattr(place, "file_system_of", lambda _: kind)  # what the kernel would say
    assert any(words in text for text in found(examine(data.root), "file_system"))


@pytest.mark.parametrize(("kind", "words"), [("ntfs3", "umask=077"), ("ext4", "run: chmod")])
def test_where_chmod_changes_nothing_the_mount_is_named(
    data: DataLayout, monkeypatch: pytest.MonkeyPatch, kind: str, words: str
) -> None:
    data.root.chmod(0o777)
    monkeypatch.setattr(place, "file_system_of", lambda _: kind)  # what the kernel would say
    [text] = found(examine(data.root), "modes")
    assert words in text


def test_a_disk_with_little_room_is_reported(
    data: DataLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs

    def nearly_full(path: os.PathLike[str] | str | int) -> os.statvfs_result:
        found = list(real(path))
        found[3] = found[4] = 1  # free blocks
        return os.statvfs_result(found)

    monkeypatch.setattr(os, "statvfs", nearly_full)
    report = examine(data.root)
    assert any("nothing is started" in text for text in found(report, "space"))
    assert not report.is_well


def test_a_directory_that_is_none_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(DataDirectoryError, match="no data directory"):
        examine(tmp_path / "nowhere")
    (tmp_path / "other.conf").touch()
    tmp_path.chmod(0o777)
    for repair in (False, True):
        with pytest.raises(DataDirectoryError, match="is no data directory of jobbus: no"):
            examine(tmp_path, repair=repair)
    assert [each.name for each in tmp_path.iterdir()] == ["other.conf"]
    assert tmp_path.stat().st_mode & 0o777 == 0o777
    with pytest.raises(DataDirectoryError, match="is no directory"):
        examine(tmp_path / "other.conf")


async def test_a_running_service_may_be_looked_at_but_not_repaired(tmp_path: Path) -> None:
    with running_service(tmp_path, define) as service:
        await use(service)
        report = await asyncio.to_thread(examine, service.data)
        assert report.is_well
        assert report.running
        assert any(str(service.pid) in text for text in found(report, "lock"))
        for forbidden in (lambda: examine(service.data, repair=True), _new_epoch(service.data)):
            with pytest.raises(DataDirectoryError):
                await asyncio.to_thread(forbidden)
        layout = DataLayout(service.data)
        before = read_instance(layout)
        assert service.end() == 0
        begin_new_epoch(service.data)
        assert any("asked for" in text for text in found(examine(service.data), "epoch"))
        service.start()
        after = read_instance(layout)
        assert before is not None
        assert after is not None
        assert before.epoch != after.epoch
        async with service.http() as http:
            assert len(await http.executions("T/Brief")) == 3


def _new_epoch(root: Path) -> Callable[[], object]:
    return lambda: begin_new_epoch(root)


@pytest.mark.parametrize(
    ("mode", "warned"), [("control-group", True), ("mixed", True), ("process", False), ("", False)]
)
def test_a_unit_that_would_kill_the_executions_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, warned: bool
) -> None:
    systemctl = tmp_path / "systemctl"
    answer = f"echo KillMode={mode}" if mode else "exit 1"
    systemctl.write_text(f"#!/bin/sh\n{answer}\n")
    systemctl.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(unit, "unit_of", lambda _: ("jobbus.service", False))
    findings = list(unit.look_at_unit(4711))
    assert [("KillMode=process" in finding.text) for finding in findings] == [True] * warned


def test_a_first_process_is_warned_that_all_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit, "unit_of", lambda _: None)
    [finding] = unit.look_at_unit(1)
    assert "process 1" in finding.text
