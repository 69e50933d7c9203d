"""A reader at a terminal: a folder, a shell with a screen, and the commands of a page, in order.

Only the port differs from what the page shows, so that pages can be read side by side.
"""

import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.counterparts import missing, needs
from tests.pages import Block
from tests.service import PATIENCE_S, children_of, kill, processes_of

PORT_SHOWN = "8765"
COMMAND_S = 120.0
CHANGED = ("etc", "opt", "srv", "var")
"""Folders of the system that a page may change: each is covered, and the change goes with it."""

_CODES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[=>78])")


class PageShell:
    """`screen` holds what the last block printed, without codes for the terminal.

    Each block is a script that one bash reads (`source`), so variables last from block to block and
    an unset one is an error, as is a command that fails. What goes on runs in a bash of its own.
    """

    def __init__(self, folder: Path, around: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.screen = ""
        self.port = str(_free_port())
        self._count = 0
        self._beside: list[_Screen] = []
        self._main = self._open(*around, "bash", "--noprofile", "--norc", "-s")

    def run(self, block: Block) -> None:
        """The block's commands have run, or are up, as its mark says."""
        script = self._script(block)
        if block.mark == "after ctrl-c":
            while self._beside:
                self._beside.pop().close()
        if block.mark == "goes on":
            self._begin_beside(script, block)
        elif block.mark == "until":
            self._stop_after_words(script, block)
        else:
            self._finish(script, block)

    def save(self, block: Block, name: str) -> None:
        """The block is a file of the reader."""
        path = self._place() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._here(block.text), encoding="utf-8")

    def close(self) -> None:
        """Nothing is left that a block started."""
        for screen in (*self._beside, self._main):
            screen.close()
        deadline_s = time.monotonic() + PATIENCE_S
        while left := [pid for pid in processes_of(self.folder) if pid != os.getpid()]:
            assert time.monotonic() < deadline_s, f"cannot be killed: {left}"
            for pid in left:
                kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    def _finish(self, script: Path, block: Block) -> None:
        expected = int(block.value) if block.mark == "fails" else 0
        end = f"=={self._count}=="
        # `source` in a subshell would lose its variables: a failure ends the whole shell instead,
        # but for one that the page announces.
        body = f"source {script} </dev/null" if expected == 0 else f"( source {script} ) </dev/null"
        guard = "" if expected == 0 else " || code=$?"
        self._main.type(f"code=0; set -euo pipefail; {body}{guard}; echo {end}$code\n")
        ended = self._main.read_until(re.compile(rf"{end}(\d+)\r?\n"), COMMAND_S)
        self.screen = self._main.text
        assert ended is not None, f"{block.place} failed:\n{block.text}\n{self.screen}"
        assert int(ended[1]) == expected, f"{block.place}: exit code {ended[1]}\n{self.screen}"

    def _begin_beside(self, script: Path, block: Block) -> None:
        screen = self._open("bash", "--noprofile", "--norc", "-euo", "pipefail", str(script))
        self._beside.append(screen)
        found = screen.read_until(re.compile(re.escape(block.value)), COMMAND_S)
        self.screen = screen.text
        assert found is not None, f"{block.place} never printed {block.value!r}:\n{self.screen}"

    def _stop_after_words(self, script: Path, block: Block) -> None:
        # A subshell has the variables of the page; it is stopped from outside, as by a person.
        self._main.type(f"set -euo pipefail; ( source {script} ) </dev/null & echo ==pid==$!\n")
        begun = self._main.read_until(re.compile(r"==pid==(\d+)\r?\n"), COMMAND_S)
        assert begun is not None, self._main.text
        found = self._main.read_until(re.compile(re.escape(block.value)), COMMAND_S)
        self.screen = self._main.text
        pid = int(begun[1])
        for each in (*children_of(pid), pid):
            kill(each, signal.SIGTERM)
        self._main.type("wait $! 2>/dev/null || true\n")
        assert found is not None, f"{block.place} never printed {block.value!r}:\n{self.screen}"

    def _script(self, block: Block) -> Path:
        self._count += 1
        script = self.folder / f".block-{self._count}.sh"
        script.write_text(self._here(block.text), encoding="utf-8")
        return script

    def _place(self) -> Path:
        """Where the reader is: `cd` counts."""
        return Path(f"/proc/{self._main.pid}/cwd").resolve()

    def _here(self, text: str) -> str:
        return text.replace(PORT_SHOWN, self.port)

    def _open(self, *command: str) -> "_Screen":
        kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
        own = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "TERM": "xterm-256color",
            "NO_COLOR": "1",
            "COLUMNS": "100",
            "LC_ALL": "C.UTF-8",
            "JOBBUS_SERVE_LISTEN": f"127.0.0.1:{self.port}",
        }
        place = self._place() if self._beside or self._count else self.folder
        return _Screen(command, place, kept | own)


def own_machine(folder: Path) -> tuple[str, ...]:
    """The words before a command that runs it as root of a machine that looks like this one.

    What is written to `CHANGED` is written to memory. `/opt/jobbus` has the program already.
    """
    script = folder / ".machine.sh"
    cover = folder / ".cover"
    cover.mkdir()
    program = Path(sys.executable).parent / "jobbus"
    covers = "\n".join(
        f"mkdir -p {cover}/{name} {cover}/{name}.work; mount -t overlay overlay -o "
        f"lowerdir=/{name},upperdir={cover}/{name},workdir={cover}/{name}.work /{name}"
        for name in CHANGED
    )
    script.write_text(
        f"set -eu\nmount -t tmpfs tmpfs {cover}\n{covers}\nmkdir -p /opt/jobbus/bin\n"
        f'ln -s {program} /opt/jobbus/bin/jobbus\nexec "$@"\n',
        encoding="utf-8",
    )
    around = (needs("unshare"), "--mount", "--propagation", "private", "bash", str(script))
    tried = subprocess.run([*around, "true"], capture_output=True, text=True, check=False)
    return around if tried.returncode == 0 else missing(f"no file system over /etc: {tried.stderr}")


class _Screen:
    """A process at a terminal of its own; `text` is what came since it was last typed to."""

    def __init__(self, command: tuple[str, ...], folder: Path, environment: dict[str, str]) -> None:
        self.text = ""
        self._pending = b""
        self._at, screen = pty.openpty()
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=screen,
            stderr=screen,
            start_new_session=True,
        )
        os.close(screen)

    @property
    def pid(self) -> int:
        return self._process.pid

    def type(self, line: str) -> None:
        assert self._process.stdin is not None
        self.text = ""
        with suppress(BrokenPipeError):  # the shell has ended; reading says so
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()

    def read_until(self, wanted: re.Pattern[str], most_s: float) -> re.Match[str] | None:
        """Where `wanted` first stands; None if everything ended, or time passed, before."""
        deadline_s = time.monotonic() + most_s
        while True:
            if found := wanted.search(self.text):
                return found
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not select.select([self._at], [], [], left_s)[0]:
                return None
            try:
                self._pending += os.read(self._at, 65536)
            except OSError:  # EIO: no process holds the other side any more
                return None
            self.text += _CODES.sub("", self._pending.decode("utf-8", "replace"))
            self._pending = b""

    def close(self) -> None:
        """Interrupted as by Ctrl-C, then asked, then killed; everything it started goes with it."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5.0)
                break
        if self._process.stdin is not None:
            self._process.stdin.close()
        os.close(self._at)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port
