"""What supervises the service: systemd with its way of stopping, or a container's first process.

Blocking; nothing here changes anything.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from jobbus.doctor.findings import Finding, warning

_ASK_S = 5.0


def unit_of(pid: int) -> tuple[str, bool] | None:
    """The systemd service that a process belongs to, and whether a user's manager runs it."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        path = line.split(":", 2)[-1]
        services = [part for part in path.split("/") if part.endswith(".service")]
        own = [part for part in services if not part.startswith("user@")]
        if own:
            return own[-1], len(services) > len(own)
    return None


def look_at_unit(pid: int) -> Iterator[Finding]:
    """Whether an end of this service would end its executions with it."""
    if pid == 1:
        yield warning(
            "unit",
            "the service is process 1 of its container: when it ends, all executions end with it; "
            "start the container with an init (docker run --init) and see docs/install.md",
        )
    found = unit_of(pid)
    if found is not None:
        yield from _look_at_properties(found[0], _properties(*found))


def _look_at_properties(unit: str, properties: dict[str, str]) -> list[Finding]:
    mode = properties.get("KillMode", "process")
    if mode in ("process", "none"):
        return []
    return [
        warning(
            "unit",
            f"{unit} has KillMode={mode}: stopping or restarting the service kills all its "
            f"executions; set KillMode=process (systemctl edit {unit}, or take the unit that "
            "jobbus doctor --unit prints)",
        )
    ]


def _properties(unit: str, of_user: bool) -> dict[str, str]:
    """What systemd says about the unit; nothing where it cannot be asked."""
    command = ["systemctl", *(["--user"] if of_user else []), "show", "-p", "KillMode", "--", unit]
    try:
        answer = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_ASK_S,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    pairs = (line.partition("=") for line in answer.stdout.splitlines())
    return {name: value for name, _, value in pairs}
