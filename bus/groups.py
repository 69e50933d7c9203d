"""Slots that jobs share, and queues that people hold: what both are. No IO, no clock.

A group is a number of slots with a name, from `[group.NAME]` of jobbus.toml; a job that names it
needs one of them to run, beside one of its own.
"""

import re

import msgspec

GROUP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
STARTS_MAX = 1000
"""Starts that a `start_limit` can count: so many are remembered of the job."""

GROUPS_MAX = 1000
"""Groups of one service."""

SLOTS_MAX = 10_000
"""Slots of one group."""

GROUPS_OF_A_JOB_MAX = 16
PRIORITY_MAX = 100
POINT_MS = 18_000
"""A point of priority is worth so long a wait: the whole range, -100 to 100, is worth one hour."""

OVERDUE_MS = 2 * PRIORITY_MAX * POINT_MS
"""What has waited so long for slots of several groups gets them as they become free, one by one:
what comes after it, whatever its priority, cannot take them from then on."""


class Pause(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A queue that is held: what waits in it stays there, until somebody or `until_ms` ends it."""

    reason: str
    by: str
    since_ms: int
    until_ms: int | None = None


class JobQueue(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What decides about a job's queue beside its definition; it outlives that.

    `starts_ms` are the newest starts, as many as `start_limit` counts.
    """

    paused: Pause | None = None
    starts_ms: tuple[int, ...] = ()


class Group(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One `[group.NAME]`. One that was taken from the settings while it is used keeps its last
    limit, and `is_defined` is false."""

    name: str
    max_running: int
    paused: Pause | None = None
    is_defined: bool = True
    version: int = 0


class StartLimitSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`start_limit` of a job: at most `count` starts, of whatever cause, within `within_s`."""

    count: int
    within_s: float
