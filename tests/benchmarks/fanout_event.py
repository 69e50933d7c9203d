"""The event that all fan-outs send: a real progress change, padded and stamped; and core 0."""

import os
import resource
import time

import msgspec

from bus.changes import ChangeEncoder
from bus.events import ExecutionProgress, Published
from bus.feed import Frame
from bus.model import Progress
from tests.gateway_fixture import EPOCH, BackendTable

_ENCODER = ChangeEncoder("bench", EPOCH)
STAMP_SIZE = 21


def stamp() -> str:
    """What the reader looks for: two signs and the monotonic nanoseconds of now."""
    return f"@@{time.monotonic_ns():019d}"


def progress_frame(seq: int, execution_id: str, table: BackendTable) -> Frame:
    """The frame of a progress report made now."""
    progress = Progress(percent=42.0, message=stamp())
    table.by_execution[execution_id] = msgspec.structs.replace(
        table.by_execution[execution_id], progress=progress, version=seq
    )
    event = ExecutionProgress(execution_id=execution_id, progress=progress)
    frame = _ENCODER.frame(Published(seq, time.time_ns() // 1_000_000, event), table)
    assert frame is not None
    return frame


def take_core_0() -> None:
    """Servers run on one core and the reader on the other, whichever serves."""
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, {0})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
