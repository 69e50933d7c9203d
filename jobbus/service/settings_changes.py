"""What a changed `jobbus.toml` changes in a service that runs, and what only a start can. Pure."""

from typing import Any, Final

import msgspec

from handlers.calendars.calendar_set import Written
from jobbus.service.settings import Settings

FIXED: Final = {
    "serve": (
        "data",
        "apps",
        "listen",
        "behind_proxy",
        "tls_cert",
        "tls_key",
        "allow_network_fs",
    ),
    "directory": ("group",),
    "log": ("format",),
}
"""Settings that a start alone takes, by section. The *content* of the TLS files is read again."""


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """`settings` are those to be in force from now on; `changed` and `waiting` name what differs
    from before, in force now or from the next start on."""

    settings: Settings
    changed: tuple[str, ...]
    waiting: tuple[str, ...]


def changes(before: Settings, read: Settings) -> Changes:
    """What reading the settings again comes to."""
    changed: list[str] = []
    waiting: list[str] = []
    sections: dict[str, Any] = {}
    for section in Settings.__struct_fields__:
        old, new = getattr(before, section), getattr(read, section)
        if isinstance(new, Written):
            kinds = new.spec.__struct_fields__
            changed += [k for k in kinds if getattr(old.spec, k) != getattr(new.spec, k)]
            sections[section] = new
            continue
        if isinstance(new, dict):  # its keys are names of the operator's choice
            changed += [section] if old != new else []
            sections[section] = new
            continue
        fixed = FIXED.get(section, ())
        for key in new.__struct_fields__:
            if getattr(old, key) != getattr(new, key):
                (waiting if key in fixed else changed).append(f"[{section}] {key}")
        kept = {key: getattr(old, key) for key in fixed}
        sections[section] = msgspec.structs.replace(new, **kept)
    return Changes(settings=Settings(**sections), changed=tuple(changed), waiting=tuple(waiting))
