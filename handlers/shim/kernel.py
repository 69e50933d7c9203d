"""Linux calls that the standard library lacks. Stdlib only; elsewhere they do nothing.

The warm spawner and the shims import this, so it stays light.
"""

import ctypes
import sys

_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_SYNC_FILE_RANGE_WRITE = 2

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def become_subreaper() -> bool:
    """Orphans below this process become its children from now on; False where there is no way."""
    return _libc is not None and _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def name_process(name: str) -> None:
    """`ps` and `top` show `name` (15 bytes at most)."""
    if _libc is not None:
        _libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def start_write_back(descriptor: int, offset: int, length: int) -> None:
    """The kernel begins to write that range to the disk; nobody waits for it.

    A job's output would otherwise pile up as dirty pages, for which every `syncfs` waits.
    """
    if _libc is not None:
        _libc.sync_file_range(
            descriptor,
            ctypes.c_int64(offset),
            ctypes.c_int64(length),
            ctypes.c_uint(_SYNC_FILE_RANGE_WRITE),
        )
