"""An act on a data directory that no service serves now. Blocking; the caller holds the lock."""

import os
import pwd
import time

from bus.audit import NOTE, AuditEntry, cut
from bus.clock import rfc3339
from bus.layout import DataLayout
from handlers.audit.segments import AuditSegments


def note_offline(layout: DataLayout, action: str, **detail: str) -> None:
    """The act stands in the audit, durably, as one of this account."""
    segments = AuditSegments(layout.audit)
    now_ms = time.time_ns() // 1_000_000
    entry = AuditEntry(
        seq=segments.last_seq,
        at=rfc3339(now_ms),
        kind=NOTE,
        actor=_account(),
        via="cli",
        action=action,
        status="Completed",
        detail={name: cut(text) for name, text in detail.items() if text},
    )
    segments.append([entry], now_ms)
    segments.close()


def _account() -> str:
    """The name of the account, not what the environment calls it."""
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"
