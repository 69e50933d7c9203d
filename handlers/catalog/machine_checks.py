"""Whether this machine can give what a sound definition asks for: its account, its limits.

Blocking. Apart from the checks of the text, since the answer changes while the text does not: an
account is made, the service gets a right.
"""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

from bus.job_definition import JobSpec, LimitsSpec
from handlers.catalog.accounts import account_problems
from handlers.catalog.problem import Problem, shown
from handlers.shim.cgroup import delegation
from handlers.shim.kernel import CAP_SYS_NICE, CAP_SYS_RESOURCE, capabilities

OF_GROUPS = {"cpu_weight": "cpu", "pids": "pids"}
"""Limits that only a control group keeps, and its controller."""

_NO_LIMITS = LimitsSpec()
_RIGHTS = {CAP_SYS_NICE: "CAP_SYS_NICE", CAP_SYS_RESOURCE: "CAP_SYS_RESOURCE"}


def machine_problems(spec: JobSpec) -> Iterator[Problem]:
    """Why a sound definition cannot be in force on this machine."""
    if spec.limits == _NO_LIMITS and spec.niceness is None and spec.oom_adjustment is None:
        if spec.names_account:
            yield from account_problems(spec)
        return
    yield from account_problems(spec)
    yield from _groups(spec)
    yield from _rights(spec)


def _groups(spec: JobSpec) -> Iterator[Problem]:
    for key, controller in OF_GROUPS.items():
        if getattr(spec.limits, key) is not None and controller not in delegation().controllers:
            yield Problem(
                ("limits", key),
                f"limits.{key} cannot be kept here: it takes control groups (version 2) with the "
                f"controller {controller}, which the service was not given; its unit needs "
                "Delegate=yes and DelegateSubgroup=service (systemd 254)",
            )


def _rights(spec: JobSpec) -> Iterator[Problem]:
    """Limits above what the service may have itself."""
    nice, adjustment, files = spec.niceness, spec.oom_adjustment, spec.limits.open_files
    if nice is not None and nice < (least := _nice_min()):
        yield _beyond(spec, "nice", f"not below {least}", CAP_SYS_NICE)
    if adjustment is not None and adjustment < (least := _adjustment_min()):
        yield _beyond(spec, "oom_score_adj", f"not below {least}", CAP_SYS_RESOURCE)
    if files is not None and files > (most := _open_files_max()):
        yield _beyond(spec, "open_files", f"at most {most}", CAP_SYS_RESOURCE)


def _beyond(spec: JobSpec, key: str, bound: str, right: int) -> Problem:
    path = (key,) if getattr(spec, key, None) is not None else ("limits", key)
    if right in capabilities():
        return Problem(path, f"{shown(path)} cannot be more than the kernel gives: {bound}")
    return Problem(
        path,
        f"{shown(path)} takes the right {_RIGHTS[right]}, which root has and this service lacks; "
        f"without it, it is {bound}",
    )


def _nice_min() -> int:
    """The least that this process may give (getrlimit(2))."""
    if CAP_SYS_NICE in capabilities():
        return -20
    soft, _ = resource.getrlimit(resource.RLIMIT_NICE)
    return min(os.getpriority(os.PRIO_PROCESS, 0), 20 - soft if soft > 0 else 20)


def _adjustment_min() -> int:
    if CAP_SYS_RESOURCE in capabilities():
        return -1000
    try:
        return int(Path("/proc/self/oom_score_adj").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return -1000


def _open_files_max() -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if CAP_SYS_RESOURCE not in capabilities():
        return hard
    try:
        return int(Path("/proc/sys/fs/nr_open").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return hard
