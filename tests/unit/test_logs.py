"""What the log of the service never holds, whatever is logged."""

import io
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from jobbus.service.logs import configure_logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(params=[Terminal, io.StringIO], ids=["terminal", "file"])
def log(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    out: io.StringIO = request.param()
    configure_logs("info", out)
    yield out
    root.handlers[:], level = before
    root.setLevel(level)


def test_a_log_has_no_codes_of_others_for_a_terminal(
    log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    configure_logs("info", log)
    hostile = "x\x1b]0;title\x07\x9b31m.json"
    logging.getLogger("jobbus.test").warning("rejected %s", hostile)
    structlog.get_logger("jobbus.test").warning("refused", reason=hostile)
    written = log.getvalue()
    assert written.count("title") == 2
    assert not {"\x1b", "\x07", "\x9b"} & set(written)


def test_a_watcher_does_not_log_each_change(log: io.StringIO) -> None:
    logging.getLogger("watchfiles.main").info("1 change detected")
    assert log.getvalue() == ""


def test_lines_go_to_the_journal_in_its_form_where_it_reads(
    log: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd names the stream that it reads by device and inode, systemd.exec(5)."""
    with (tmp_path / "stderr").open("w+") as out:
        found = os.fstat(out.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        configure_logs("debug", out)
        jobs = structlog.get_logger("jobbus.jobs")
        jobs.warning("A/B failed: exit code 3", job="A/B", execution="e-1", why="two words", n=3)
        jobs.debug("quiet")
        try:
            int("no\nnumber")
        except ValueError:
            jobs.exception("broken")
        monkeypatch.setenv("JOURNAL_STREAM", "1:1")
        configure_logs("info", out)
        jobs.info("not for the journal")
        out.seek(0)
        lines = out.read().splitlines()
    assert lines[0] == '<4>A/B failed: exit code 3 execution=e-1 why="two words" n=3'
    assert lines[1] == "<7>quiet"
    assert lines[2] == "<3>broken"
    assert {line[:3] for line in lines[3:-1]} == {"<3>"}
    assert lines[-1].startswith("{")


def test_text_has_the_time_and_the_level_and_each_fact_once(log: io.StringIO) -> None:
    configure_logs("info", log, form="text")
    structlog.get_logger("jobbus.jobs").info("A/B started", job="A/B", token="x", pid=7)
    assert re.fullmatch(r"20\S+Z info    A/B started token=\[hidden\] pid=7\n", log.getvalue()), (
        log.getvalue()
    )
