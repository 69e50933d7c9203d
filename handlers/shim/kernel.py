"""Linux calls that the standard library lacks. Stdlib only; elsewhere they do nothing.

The warm spawner and the shims import this, so it stays light.
"""

import ctypes
import os
import signal
import struct
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_SYNC_FILE_RANGE_WRITE = 2

_SYS_CLONE3 = 435
_CLONE_INTO_CGROUP = 0x2_0000_0000
_SIGCHLD = int(signal.SIGCHLD)
_CLONE_ARGS = struct.Struct("=11Q")  # struct clone_args of linux/sched.h, 88 bytes

CAP_CHOWN, CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SYS_NICE, CAP_SYS_RESOURCE = 0, 5, 6, 7, 23, 24
"""Numbers of capabilities(7)."""

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
if _libc is not None:
    # Declared once, so that a call in a fork makes few objects and so copies few pages.
    _prctl = _libc.prctl
    _prctl.argtypes = (ctypes.c_int, ctypes.c_void_p, *(ctypes.c_ulong,) * 3)
    _syscall = _libc.syscall
    _syscall.argtypes = (ctypes.c_long, ctypes.c_char_p, ctypes.c_size_t)
    _syscall.restype = ctypes.c_long
    _sync_file_range = _libc.sync_file_range
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def capabilities() -> frozenset[int]:
    """The rights beyond those of a usual account that this process has now (proc(5))."""
    try:
        with open("/proc/self/status") as file:  # noqa: PTH123 - lean start
            words = [line.split()[1] for line in file if line.startswith("CapEff:")]
    except OSError:
        words = []
    bits = int(words[0], 16) if words else 0
    return frozenset(number for number in range(64) if bits >> number & 1)


def become_subreaper() -> bool:
    """Orphans below this process become its children from now on; False where there is no way."""
    return _libc is not None and _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def die_with_parent() -> None:
    """The calling process is killed when its parent dies; forgotten if it changes its account."""
    if _libc is not None:
        _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def set_name(name: bytes) -> None:
    """The calling thread is called `name`, of which the kernel keeps 15 bytes."""
    if _libc is not None:
        _prctl(_PR_SET_NAME, name[:15], 0, 0, 0)


def start_write_back(descriptor: int, offset: int, length: int) -> None:
    """The kernel begins to write that range to the disk; the call does not wait for it.

    A job's output would otherwise pile up as dirty pages, for which every `syncfs` waits.
    """
    if _libc is not None:
        _sync_file_range(descriptor, offset, length, _SYNC_FILE_RANGE_WRITE)


def fork_into(group: int) -> int:
    """As `os.fork`; the child is in the control group behind the descriptor from the beginning.

    Moving it there afterwards costs 10 ms and more: the kernel waits for a grace period (RCU) in
    which no process on the machine can fork. For a child of one thread that executes a program
    soon: nothing is run that was registered for forks.

    Raises:
        OSError: the kernel (before 5.7) or a filter does not know how, or the group is refused.
    """
    if _libc is None:
        raise OSError("no control groups here")
    content = _CLONE_ARGS.pack(_CLONE_INTO_CGROUP, 0, 0, 0, _SIGCHLD, 0, 0, 0, 0, 0, group)
    pid: int = _syscall(_SYS_CLONE3, content, _CLONE_ARGS.size)
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return pid
