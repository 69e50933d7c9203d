"""Whether a running program is well: `[health]` of job.toml, and what is known of an execution. No
IO, no clock.
"""

from enum import StrEnum

import msgspec


class HealthAction(StrEnum):
    """What becomes of a program that is not well: it is shown, or stopped and started again."""

    MARK = "mark"
    RESTART = "restart"


class HealthSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a running program is checked: by a command beside it, or by a URL.

    It is well after `successes` good checks in a row, and not well after `failures` bad ones.
    """

    command: tuple[str, ...] = ()
    url: str = ""
    every_s: float = 30.0
    timeout_s: float = 5.0
    failures: int = 3
    successes: int = 1
    action: HealthAction = HealthAction.MARK
    start_after_s: float = 0.0


class HealthStatus(StrEnum):
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class Health(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the last checks came to; `message` is what the one said that made it so."""

    status: HealthStatus
    since_ms: int
    message: str = ""
