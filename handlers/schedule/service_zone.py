"""The time zone in which the service lives: that of schedules that name none. Blocking."""

import os
from pathlib import Path
from zoneinfo import ZoneInfo

LOCALTIME = Path("/etc/localtime")
NAMED = Path("/etc/timezone")


def service_zone() -> str:
    """The name of the zone that `TZ` names, or else the machine; "UTC" where it has none."""
    for name in (os.environ.get("TZ", "").removeprefix(":"), _linked(), _written()):
        if name and _is_zone(name):
            return name
    return "UTC"


def _linked() -> str:
    try:
        return os.path.realpath(LOCALTIME, strict=True).partition("zoneinfo/")[2]
    except OSError:
        return ""


def _written() -> str:
    try:
        return NAMED.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        return False
    return True
