"""What `ps`, `top` and `systemd-cgls` show of our processes. Stdlib only; for Linux.

The name is set by prctl(2). The command line is what the kernel reads from the memory that held the
arguments when the process was executed: the title is written there. A last byte that is not NUL
makes the kernel show the text up to the first NUL instead of all arguments (`get_mm_cmdline`).
"""

import contextlib
import ctypes
import os

from handlers.shim.kernel import set_name

TITLE_BYTES = 512
"""So long is the memory of a process that we execute ourselves: its last argument is filled up."""

SHORT_ID = 8
"""So much of an execution's id is shown."""

_area: list[tuple[int, int]] = []
"""First address and length of the memory of the arguments; found once, the same after a fork."""


def show_title(title: str) -> None:
    """The process goes by `title`, as far as its memory for that goes; `ps -e` and `top` show what
    stands before the second space."""
    content = title.encode("utf-8", "replace")
    if not _area:
        _area.append(_find_area())
    start, length = _area[0]
    if length:
        shown = content[: length - 2] + b"\0"
        ctypes.memmove(start, shown, len(shown))
    set_name(b" ".join(content.split(b" ", 2)[:2]))


def title_of_shim(job_id: str, execution_id: str) -> str:
    return f"jobbus: shim {job_id} {execution_id[:SHORT_ID]}"


def room_for_title(arguments: list[str]) -> list[str]:
    """The arguments of a program that will show a title, with one more that makes room for it."""
    taken = sum(len(os.fsencode(each)) + 1 for each in arguments)
    return [*arguments, " " * max(1, TITLE_BYTES - taken - 1)]


def _find_area() -> tuple[int, int]:
    """Looked for where the kernel says (proc(5)), and taken only if the arguments stand there."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = _read("/proc/self/stat").rpartition(b")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        arguments = _read("/proc/self/cmdline")
        if 2 < end - start == len(arguments) and _memory(start, end - start) == arguments:
            ctypes.memmove(start, bytes(end - start - 1) + b".", end - start)
            return start, end - start
    return 0, 0


def _read(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123 - lean start
        return file.read()


def _memory(start: int, length: int) -> bytes:
    with open("/proc/self/mem", "rb", buffering=0) as file:  # noqa: PTH123
        return os.pread(file.fileno(), length, start)
