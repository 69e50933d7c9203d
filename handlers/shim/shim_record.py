"""What a shim puts on record: who it is, how far it is, how it ended. Stdlib only, blocking."""

import contextlib
import errno
import os
import time
from collections.abc import Callable
from typing import Any

from handlers.shim.artifact_files import Left
from handlers.shim.assignment import FORMAT, Assignment, StopOrder
from handlers.shim.files import HELD_BYTES, NO_ROOM, Folder, encode
from handlers.shim.pipes import now_ms
from handlers.shim.process_tree import process
from handlers.shim.progress_words import JobProgress
from handlers.shim.result_file import Result
from handlers.shim.tree import Tree

EXIT_RETRY_S = 2.0
EXIT_REFUSALS_MAX = 5
PASSES = NO_ROOM | {errno.ENOMEM}
"""Lack of these is waited out."""


class Record:
    """The content of `process.json`, of the doorbell's datagrams and of `exit.json`."""

    def __init__(self, work: Assignment, boot: str, folder: Folder) -> None:
        own = process(os.getpid())
        self._folder = folder
        self._facts: dict[str, Any] = {
            "version": FORMAT,
            "execution": work.execution_id,
            "instance": work.instance,
            "folder": folder.mark,
            "shim": os.getpid(),
            "shim_ticks": 0 if own is None else own.ticks,
            "boot": boot,
        }
        self.started_ms: int | None = None
        self.ready_ms: int | None = None

    def take(self, pid: int, tree: Tree, socket: str) -> None:
        """The program has a process."""
        self._facts.update(
            pid=pid,
            ticks=tree.main_ticks,
            session=pid,
            cgroup=tree.group_folder,
            containment=tree.level,
            socket=socket,
        )

    def state(
        self, stop: StopOrder | None, progress: JobProgress, output_end: int
    ) -> dict[str, Any]:
        """The latest, as `process.json` and the datagrams have it."""
        return {
            **self._facts,
            "started_ms": self.started_ms,
            "ready_ms": self.ready_ms,
            "stop": None if stop is None else stop._asdict(),
            "progress": progress or None,
            "output_end": output_end,
        }

    def write(self, state: dict[str, Any]) -> None:
        """`process.json` holds `state`, if the disk takes it."""
        # On a full disk the lock still says that we live, and the datagrams say the rest.
        with contextlib.suppress(OSError):
            self._folder.write_whole("process.json", state, durable=False)

    def exit_content(
        self,
        tree: Tree,
        *,
        survivors: list[int],
        cause: str | None,
        error: str | None,
        progress: JobProgress,
        output_end: int,
        result: Result,
        left: Left,
    ) -> dict[str, Any]:
        """How it ended, as `exit.json` has it."""
        code, number = tree.exit_of_main()
        ran = self.started_ms is not None
        return {
            "version": FORMAT,
            "execution": self._facts["execution"],
            "started_ms": self.started_ms,
            "ended_ms": now_ms(),
            "pid": self._facts.get("pid") if ran else None,
            "exit_code": code if ran else None,
            "signal": number if ran else None,
            "cause": cause or tree.oom_cause(number),
            "error": error,
            "contained": not survivors,
            "survivors": survivors,
            "containment": tree.level if "pid" in self._facts else "",
            "output_end": output_end,
            "cpu_s": round(tree.cpu_s, 3),
            "memory_bytes_max": tree.memory_bytes_max,
            "progress": progress or None,
            "ready_ms": self.ready_ms,
            "core_dumped": tree.core_dumped and ran,
            "oom_kills": tree.ooms,
            "result": result.content,
            "result_note": result.note,
            "artifacts": left.files,
            "artifact_bytes": left.size_bytes,
            "artifacts_note": left.note,
        }

    def write_exit(self, content: dict[str, Any], send: Callable[[], bool]) -> bool:
        """The record is durable, and `send`, called as soon as it stood there, has returned True.

        The service, which receives it, syncs its journal while the name is synced here. Room for it
        has been held since the start; without, a full disk is waited for: without the record the
        end would be a guess. Other errors will not pass: then it is only sent, and not waited for.
        """
        is_sent: bool | None = None
        refusals = 0
        while refusals < EXIT_REFUSALS_MAX:
            try:
                if is_sent is None:
                    self._put_exit(content)
                    is_sent = send()
                self._folder.settle_names()
            except FileNotFoundError:
                break  # the whole folder was removed
            except OSError as error:
                refusals += error.errno not in PASSES
                time.sleep(EXIT_RETRY_S)
            else:
                return is_sent
        if is_sent is None:
            send()
        return False  # what kept the record from being written may keep the next one, too

    def _put_exit(self, content: dict[str, Any]) -> None:
        """`exit.json` is there, and durable once its name is.

        Raises:
            OSError: it is not.
        """
        if len(encode(content)) > HELD_BYTES:
            try:
                self._folder.write_whole("exit.json", content, durable=True)
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                content = without_details(content)
            else:
                self._folder.drop_room()
                return
        try:
            self._folder.write_held("exit.json", content)
        except OSError:  # the program has taken what was held, or it is written for a second time
            self._folder.write_whole("exit.json", content, durable=True)


def without_details(content: dict[str, Any]) -> dict[str, Any]:
    """The exit record where there is no room for more; if the service lives, it receives all."""
    smaller = {**content, "progress": None, "result": None}
    if content["result"] is not None:
        smaller["result_note"] = "the result was not kept: the disk was full"
    return smaller
