"""What a program finds that it did not ask for, however oddly its service was started."""

import json
import os
import pwd
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.jobs import Apps
from tests.service import PATIENCE_S, ROOT, Service, eventually, kill

SHOW = """
import json, os, resource, stat
words = dict(
    line.split(":", 1) for line in open("/proc/self/status").read().splitlines() if ":" in line
)
mask = os.umask(0)
stdin = os.fstat(0)
try:
    terminal = os.open("/dev/tty", os.O_RDWR)
except OSError:
    terminal = None
print(json.dumps({
    "umask": oct(mask),
    "files": resource.getrlimit(resource.RLIMIT_NOFILE),
    "ignored": int(words["SigIgn"], 16),
    "blocked": int(words["SigBlk"], 16),
    "nice": os.getpriority(os.PRIO_PROCESS, 0),
    "oom": int(open("/proc/self/oom_score_adj").read()),
    "open": [n for n in range(256) if os.path.exists("/proc/self/fd/%d" % n)],
    "stdin": stat.S_ISCHR(stdin.st_mode) and stdin.st_rdev == os.stat("/dev/null").st_rdev,
    "leads": os.getsid(0) == os.getpid(),
    "terminal": terminal,
    "env": dict(os.environ),
}))
"""
IGNORED = (signal.SIGPIPE, signal.SIGHUP, signal.SIGTSTP, signal.SIGALRM, signal.SIGWINCH, 40)
OWN = sum(1 << (number - 1) for number in (signal.SIGPIPE, signal.SIGXFSZ, 32, 33))
"""What the interpreter of the showing program ignores by itself, and what the C library keeps."""


def oddly() -> None:
    """Between fork and exec of the service."""
    os.umask(0o077)
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR2, signal.SIGINT))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    with suppress(OSError):  # only root may
        os.setpriority(os.PRIO_PROCESS, 0, -3)
        Path("/proc/self/oom_score_adj").write_text("-500")
    os.dup2(os.open("/etc/passwd", os.O_RDONLY), 77)


@contextmanager
def odd_service(root: Path, apps: Apps, **variables: str) -> Iterator[Service]:
    """A service that was started like that; `apps` has its jobs already."""
    service = Service(root, apps)
    with service.log.open("ab") as log:
        process = subprocess.Popen(
            (
                *(sys.executable, "-W", "error", "-m", "jobbus", "serve", *service.places()),
                *("--listen", "127.0.0.1:0"),
            ),
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT), **variables},
            stdout=subprocess.PIPE,
            stderr=log,
            preexec_fn=oddly,
            close_fds=False,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        assert line.startswith("jobbus ready"), service.log.read_text()
        service.port = int(line.rpartition(":")[2])
        service.token = (service.data / "admin.token").read_text().strip()
        yield service
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
        assert not service.complaints()
    finally:
        process.kill()
        process.communicate()
        service.clear_away()


async def shown(service: Service, job_id: str) -> dict[str, Any]:
    async with service.http() as http:
        execution_id = await http.start(job_id)
        assert (await http.ended(execution_id))["status"] == "Succeeded"
        found: dict[str, Any] = json.loads(await http.output(execution_id))
        return found


async def test_program_gets_the_documented_start_whatever_its_service_was_given(
    tmp_path: Path,
) -> None:
    apps = Apps(tmp_path)
    apps.python("I/Plain", SHOW)
    apps.python("I/Own", SHOW, umask="0027", limits={"open_files": 2000, "nice": 4})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with odd_service(tmp_path, apps) as service:
        plain = await shown(service, "I/Plain")
        assert plain["umask"] == oct(0o022)
        assert plain["files"] == [min(1024, hard), hard]
        assert plain["ignored"] & ~OWN == 0, hex(plain["ignored"])
        assert plain["blocked"] == 0
        assert plain["nice"] >= 0
        assert plain["oom"] >= 0
        assert plain["open"] == [0, 1, 2]
        assert (plain["stdin"], plain["leads"], plain["terminal"]) == (True, True, None)
        own = await shown(service, "I/Own")
        assert own["umask"] == oct(0o027)
        assert own["files"] == [2000, hard]
        assert own["nice"] == 4


async def test_environment_is_that_of_the_account_and_of_no_virtual_environment(
    tmp_path: Path,
) -> None:
    own = str(Path(sys.prefix) / "bin")
    apps = Apps(tmp_path)
    apps.python("I/Plain", SHOW)
    apps.python("I/Buffered", SHOW, env={"PYTHONUNBUFFERED": ""})
    others = {"VIRTUAL_ENV": sys.prefix, "LD_LIBRARY_PATH": "/nowhere", "AWS_SECRET": "x"}
    with odd_service(tmp_path, apps, PATH=f"{own}:/usr/bin:/bin", **others) as service:
        env = (await shown(service, "I/Plain"))["env"]
        account = pwd.getpwuid(os.geteuid())
        assert (env["HOME"], env["USER"]) == (account.pw_dir, account.pw_name)
        assert (env["LOGNAME"], env["SHELL"]) == (account.pw_name, account.pw_shell)
        assert env["PYTHONUNBUFFERED"] == "1"
        own_places = [place for place in env["PATH"].split(":") if place == own]
        assert not own_places or sys.prefix == sys.base_prefix
        assert "/usr/bin" in env["PATH"].split(":")
        assert not {*others, "PYTHONPATH"} & env.keys()
        assert (await shown(service, "I/Buffered"))["env"]["PYTHONUNBUFFERED"] == ""


async def test_operator_sets_what_programs_get_and_a_reload_changes_it(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.apps.python("I/Plain", SHOW)
    config = tmp_path / "jobbus.toml"
    config.write_text('[jobs]\numask = "0007"\nopen_files = 512\n')
    try:
        service.start("--config", str(config))
        found = await shown(service, "I/Plain")
        assert (found["umask"], found["files"][0]) == (oct(0o007), 512)
        config.write_text('[jobs]\numask = "0077"\n')
        kill(service.pid, signal.SIGHUP)
        await eventually(lambda: "were read again" in service.log.read_text())
        found = await shown(service, "I/Plain")
        assert (found["umask"], found["files"][0]) == (oct(0o077), min(1024, found["files"][1]))
        config.write_text('[jobs]\numask = "rwx"\n')
        kill(service.pid, signal.SIGHUP)
        await eventually(lambda: "[jobs] umask" in service.log.read_text())
    finally:
        service.clear_away()


async def test_limit_that_cannot_be_set_is_a_fault_of_the_definition(tmp_path: Path) -> None:
    """More open files than the kernel gives to anybody."""
    apps = Apps(tmp_path)
    apps.shell("I/High", "exit 0", limits={"open_files": 2**30})
    with odd_service(tmp_path, apps) as service:
        async with service.http() as http:
            fault = (await http.get("/jobs/I/High"))["fault"]
    assert "limits.open_files" in fault["reason"]
    assert "at most" in fault["reason"]
