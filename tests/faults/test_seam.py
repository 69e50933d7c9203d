"""The seam misses no call that decides what survives: the kernel sees the same ones.

All sweeps below `tests/faults` stand on this: they go through the calls that the seam announces.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.counterparts import missing, needs
from tests.faults.load import Load, SeamService, define
from tests.faults.seam import ROOT, Plan
from tests.service import Running

KINDS = {
    **dict.fromkeys(("open", "openat", "creat", "openat2"), "open"),
    **dict.fromkeys(("write", "pwrite", "pwrite64", "writev", "pwritev", "pwritev2"), "write"),
    **dict.fromkeys(("sendfile", "copy_file_range", "splice"), "copy"),
    **dict.fromkeys(("fsync", "fdatasync"), "sync"),
    **dict.fromkeys(("syncfs", "sync"), "sync all"),
    **dict.fromkeys(("truncate", "ftruncate"), "truncate"),
    **dict.fromkeys(("fallocate", "posix_fallocate"), "allocate"),
    **dict.fromkeys(("link", "linkat", "symlink", "symlinkat"), "link"),
    **dict.fromkeys(("rename", "renameat", "renameat2", "replace"), "rename"),
    **dict.fromkeys(("unlink", "unlinkat", "remove", "rmdir"), "unlink"),
    **dict.fromkeys(("mkdir", "mkdirat"), "mkdir"),
}
"""What one thing is called by the kernel and by Python."""

CALL = re.compile(r"^(\w+)\((.*)\) += +(-?\d+)")
WRITING = re.compile("O_WRONLY|O_RDWR|O_CREAT|O_TRUNC")
PATH = re.compile(r'<(/[^<>]*)>|"([^"]*)"')

Seen = Counter[tuple[str, str]]
"""How often something was done to a name."""


class TracedService(SeamService):
    """A service below strace, which keeps a file for each of its processes and threads."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.traces = root / "traces"
        self.traces.mkdir(parents=True)
        self.plan = Plan(root=str(self.data), action="record", log=str(root / "calls"))

    def _run(self, *arguments: str) -> Running:
        assert self.plan is not None
        names = ",".join(f"?{name}" for name in KINDS)
        trace = ("-ff", "-y", "-qq", "-o", str(self.traces / "of"), "-e", f"trace={names}")
        seam = (sys.executable, "-m", "tests.faults.seam", self.plan.encode(), "serve")
        where = ("--data", str(self.data), "--apps", str(self.apps.root))
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [needs("strace"), *trace, *seam, *where, *arguments],
                cwd=ROOT,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        os.kill(json.loads((self.data / "instance.json").read_bytes())["pid"], number)
        return self._wait()


@pytest.mark.exhaustive
@pytest.mark.timeout(300)
def test_the_kernel_sees_no_call_that_the_seam_does_not(tmp_path: Path) -> None:
    service = TracedService(tmp_path / "node")
    define(service.apps)
    load = Load(service, drops=False)
    try:
        if not service.try_start():
            missing(f"strace may not trace here: {service.log.read_text(encoding='utf-8')}")
        assert load.run()
        assert service.end() == 0
    finally:
        service.clear_away()
    of_kernel = Counter(_of_kernel(service.traces, str(service.data)))
    of_seam = Counter(_of_seam(tmp_path / "node" / "calls"))
    assert sum(of_seam.values()) > 150
    assert of_kernel - of_seam == Counter(), "the seam did not see these"
    assert of_seam - of_kernel == Counter(), "the kernel did not see these"


def _of_kernel(traces: Path, data: str) -> Iterator[tuple[str, str]]:
    lines = (line for path in traces.iterdir() for line in path.read_text("utf-8").splitlines())
    for found in filter(None, map(CALL.match, lines)):
        kind, arguments, result = KINDS[found[1]], found[2], int(found[3])
        if result < 0 or (kind == "open" and not WRITING.search(arguments)):
            continue
        paths = [place or name for place, name in PATH.findall(arguments)]
        if kind == "write":
            paths = paths[:1]  # what follows is content
        if any((path + "/").startswith(f"{data}/") for path in paths):
            yield from _comparable(kind, paths[-1])


def _of_seam(log: Path) -> Iterator[tuple[str, str]]:
    for line in map(json.loads, log.read_text(encoding="utf-8").splitlines()):
        if line["op"] != "note":
            yield from _comparable(KINDS[line["op"]], line["paths"][-1])


def _comparable(kind: str, path: str) -> Iterator[tuple[str, str]]:
    name = Path(path).name
    if name != "progress":  # programs write into it, and they do not go through the seam
        yield kind, name
