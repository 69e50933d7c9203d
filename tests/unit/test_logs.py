"""What the log of the service never holds, whoever wrote what is logged."""

import io
import logging
from collections.abc import Iterator

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
    told = log.getvalue()
    assert told.count("title") == 2
    assert not {"\x1b", "\x07", "\x9b"} & set(told)


def test_a_watcher_does_not_tell_of_each_change(log: io.StringIO) -> None:
    logging.getLogger("watchfiles.main").info("1 change detected")
    assert log.getvalue() == ""
