"""What a shim is to do, and the words that it shares with the service. Stdlib only, no IO."""

import json
from typing import Any, NamedTuple

FORMAT = 1
"""Of `process.json`, `control`, `exit.json` and the doorbell's datagrams."""

TIME_MS_MAX = 253_402_300_800_000
"""The end of the year 9999: no time is written or believed from then on."""

WAKE = b"CONTROL=1"
"""The datagram that makes a shim look at `control` and at the progress file at once."""

SERVICE_SOCKET = "bell"
"""The name of the service's socket, in the folder where also those of the shims are."""

ORDER = "ORDER"
"""Beside it the order itself, as `control` has it: a program can take that file from its shim."""

READY_SEEN = "READY_SEEN"
"""Beside it `1`: the service has found out that the program is ready."""

PROBED_READINESS = "probe"
"""`Assignment.ready` of a program that is ready when the service says so."""

CHECK = "CHECK"
"""Beside it a number: the check of `Assignment.health` that the service wants made."""

FROM_SERVICE = (ORDER, READY_SEEN, CHECK)
"""Words that only our account may say."""
OWN_FOLDER = "own"
"""In the folder of an execution what a program of another account may write."""

CLAIMED_BY_SERVICE = b"service\n"
"""The whole content of a claim that the recovery of a service won: that generation never runs."""


class ShimAccount(NamedTuple):
    """The account that a definition names, as the program gets it; `name` is for sentences."""

    name: str
    uid: int
    gid: int
    groups: list[int]


class Assignment(NamedTuple):
    """One execution as the shim sees it. Paths are absolute; `stop_signal` is a number.

    `sockets` is the folder of the sockets: of the service's, and of the shim's own under the name
    of the execution.

    `generation` names the claim that decides: 0 is `claim`, n is `claim.n`. A recovery that wins
    generation n has the job spawned as generation n + 1. `masks` are the secrets that stand in
    `env`: an assignment that has some is written nowhere.
    """

    execution_id: str
    folder: str
    argv: list[str]
    cwd: str
    env: dict[str, str]
    sockets: str
    generation: int = 0
    max_bytes: int = 268_435_456
    ready: str = "spawn"
    timeout_s: float = 0.0
    start_timeout_s: float = 90.0
    watchdog_s: float = 0.0
    stop_signal: int = 15
    stop_to: str = "main"
    stop_grace_s: float = 10.0
    leftover: str = "stop"
    look_s: float = 6.0
    cgroup: str | None = None
    nice: int | None = None
    cpu_s: int | None = None
    memory_bytes: int | None = None
    umask: int = 0o022
    open_files: int | None = None
    open_files_default: int | None = None
    masks: list[str] | None = None
    instance: str = ""
    job_id: str = ""
    health: list[str] | None = None
    health_timeout_s: float = 5.0
    artifact_files_max: int = 1000
    artifact_bytes_max: int = 1 << 30
    account: ShimAccount | None = None
    stdin_file: str | None = None
    stdin_text: str | None = None
    cpu_weight: int | None = None
    pids: int | None = None
    oom_score_adj: int | None = None


class StopOrder(NamedTuple):
    """An order to end, as it stands in `control`; `grace_s` counts from `at_ms`."""

    reason: str
    by: str
    at_ms: int
    grace_s: float
    kill: bool = False
    command_id: str | None = None

    @classmethod
    def from_text(cls, text: str) -> "StopOrder | None":
        """The order in the content of a `control`; None if that is none."""
        try:
            return cls.from_json(json.loads(text))
        except (ValueError, RecursionError):
            return None

    @classmethod
    def from_json(cls, content: Any) -> "StopOrder | None":
        """The order in a decoded `control`; None if that is none."""
        try:
            order = cls(
                reason=str(content["reason"]),
                by=str(content["by"]),
                at_ms=int(content["at_ms"]),
                grace_s=float(content["grace_s"]),
                kill=bool(content.get("kill", False)),
                command_id=content.get("command_id"),
            )
        # JSON has numbers that no float holds, and Python reads `Infinity` and `NaN` as such.
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            return None
        is_time = 0 <= order.grace_s < float("inf") and 0 <= order.at_ms < TIME_MS_MAX
        return order if is_time else None


def claim_name(generation: int) -> str:
    """The file that decides about this generation."""
    return "claim" if generation == 0 else f"claim.{generation}"
