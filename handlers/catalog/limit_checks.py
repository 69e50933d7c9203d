"""What a definition may say about its account and its limits, whatever the machine is. Pure."""

import re
from collections.abc import Iterator

from bus.job_definition import UMASK, JobSpec
from bus.sizes import EXAMPLE, parse_size
from bus.wording import quoted
from handlers.catalog.problem import SECONDS_MAX, Problem, within

ID_MAX = 2**32 - 2
"""The largest number of an account or group; the one above it means none (setresuid(2))."""

MEMORY_MIN = 1 << 20
"""Less than a mebibyte holds no program: it is a number in another unit."""

_NUMBERS = {
    "cpu_s": (1, SECONDS_MAX),
    "cpu_weight": (1, 10_000),
    "pids": (1, 2**22),
    "open_files": (16, 2**30),
    "nice": (-20, 19),
    "oom_score_adj": (-1000, 1000),
}
_AT_THE_TOP = ("nice", "oom_score_adj")


def accounts_and_limits(spec: JobSpec) -> Iterator[Problem]:
    """What is wrong with `user`, `group`, `umask`, `nice`, `oom_score_adj` and `[limits]`."""
    for key, name in (("user", spec.user), ("group", spec.group)):
        if isinstance(name, str) and not name.strip():
            yield Problem((key,), f"{key} is empty; leave it out to run as the service does")
        elif isinstance(name, int):
            yield from within((key,), name, 0, ID_MAX)
    if spec.umask is not None and not re.fullmatch(UMASK, spec.umask):
        yield Problem(("umask",), f'umask must be text such as "0027", not {quoted(spec.umask)}')
    for key, (low, high) in _NUMBERS.items():
        yield from within(("limits", key), getattr(spec.limits, key), low, high)
    for key in _AT_THE_TOP:
        yield from within((key,), getattr(spec, key), *_NUMBERS[key])
        if None not in (getattr(spec, key), getattr(spec.limits, key)):
            reason = f"{key} stands at the top of the file already; keep one of both"
            yield Problem(("limits", key), reason)
    yield from _memory(spec)


def _memory(spec: JobSpec) -> Iterator[Problem]:
    yield from within(("limits", "memory_bytes"), spec.limits.memory_bytes, 1, 2**60)
    memory = spec.limits.memory
    if memory is None:
        return
    path = ("limits", "memory")
    if spec.limits.memory_bytes is not None:
        yield Problem(path, "memory_bytes is an older name of memory; keep one of both")
    size = parse_size(memory)
    if size is None:
        yield Problem(path, f"limits.memory must be {EXAMPLE}, not {quoted(str(memory))}")
    else:
        yield from within(path, size, MEMORY_MIN, 2**60)
