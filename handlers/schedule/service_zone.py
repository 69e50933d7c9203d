"""The time zone in which the service lives: that of schedules that name none; and where the rules
of all zones come from. Blocking."""

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from zoneinfo import TZPATH, ZoneInfo

from tzdata import IANA_VERSION

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


class ZoneData(NamedTuple):
    """Which rules of zones are in use: `source` is a folder of the machine, or `package`."""

    version: str
    source: str


def zone_data() -> ZoneData:
    """`zoneinfo` takes those of the machine where it has any, else those of the package."""
    for folder in map(Path, TZPATH):
        if (folder / "Etc" / "UTC").is_file():
            return ZoneData(_version_in(folder), str(folder))
    return ZoneData(IANA_VERSION, "package")


def _version_in(folder: Path) -> str:
    """The release, as the tables say that Debian and others put beside the zones."""
    with suppress(OSError):
        for name in ("tzdata.zi", "+VERSION"):
            with suppress(FileNotFoundError), (folder / name).open(encoding="utf-8") as file:
                return file.readline().removeprefix("# version ").strip()
    return "unknown"
