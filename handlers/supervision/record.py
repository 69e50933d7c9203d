"""What shims leave on disk and send, decoded; and what is written for them. No IO."""

from typing import Any

import msgspec

from bus.model import ExitRecord, Progress, StopRequest
from handlers.shim.assignment import FORMAT, TIME_MS_MAX, Assignment
from handlers.shim.result_file import BYTES_MAX as RESULT_BYTES_MAX

PID_MAX = 1 << 31
NUMBER_MAX = 1 << 63


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a check of the program's health came to; `message` is the last line that it printed."""

    number: int
    exit_code: int | None = None
    signal: int | None = None
    is_late: bool = False
    message: str = ""


class ShimState(msgspec.Struct, frozen=True, kw_only=True):
    """`process.json`, and with `exit` a datagram: the latest a shim says about its execution.

    Pids count only together with the start ticks and the boot id beside them.
    """

    execution: str
    shim: int
    shim_ticks: int = 0
    boot: str = ""
    pid: int | None = None
    ticks: int = 0
    session: int = 0
    cgroup: str | None = None
    containment: str = ""
    socket: str = ""
    started_ms: int | None = None
    ready_ms: int | None = None
    stop: StopRequest | None = None
    progress: Progress | None = None
    output_end: int = 0
    exit: ExitRecord | None = None
    instance: str = ""
    folder: str = ""
    check: CheckResult | None = None


class _Control(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    reason: str
    by: str
    at_ms: int
    grace_s: float
    kill: bool
    command_id: str | None


_state_decoder = msgspec.json.Decoder(ShimState)
_exit_decoder = msgspec.json.Decoder(ExitRecord)
_encoder = msgspec.json.Encoder()


def decode_state(data: bytes) -> ShimState | None:
    """None if it is damaged or no such thing."""
    try:
        found = _state_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    pids = (found.shim, found.pid, found.session)
    times = (found.started_ms, found.ready_ms, found.stop.at_ms if found.stop else None)
    is_sane = (
        _within(PID_MAX, *pids)
        and _within(TIME_MS_MAX, *times)
        and _within(NUMBER_MAX, found.ticks, found.shim_ticks, found.output_end)
        and (found.exit is None or _is_sane(found.exit))
    )
    return found if is_sane else None


def decode_exit(data: bytes) -> ExitRecord | None:
    """None if it is damaged: the file is written whole, so another program has touched it."""
    try:
        found = _exit_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if _is_sane(found) else None


def _is_sane(record: ExitRecord) -> bool:
    """Whether it can be passed on: it goes into the journal, where it would stay."""
    return (
        _within(TIME_MS_MAX, record.ended_ms, record.started_ms, record.ready_ms)
        and _within(PID_MAX, record.pid, record.exit_code, record.signal, *record.survivors)
        and _within(NUMBER_MAX, record.output_end, record.memory_bytes_max, record.artifacts)
        and _within(NUMBER_MAX, record.artifact_bytes, record.oom_kills)
        and 0 <= record.cpu_s < NUMBER_MAX
        and (record.result is None or _is_fit(record.result))
    )


def _is_fit(result: dict[str, Any]) -> bool:
    """Numbers and spaces may be written longer than the program wrote them."""
    try:
        return len(_encoder.encode(result)) <= 4 * RESULT_BYTES_MAX
    except RecursionError:
        return False


def _within(most: int, *values: int | None) -> bool:
    return all(value is None or 0 <= value < most for value in values)


def encode_control(order: StopRequest) -> bytes:
    """The content of `control`."""
    return _encoder.encode(
        _Control(
            version=FORMAT,
            reason=order.reason,
            by=order.by,
            at_ms=order.at_ms,
            grace_s=order.grace_s,
            kill=order.kill,
            command_id=order.command_id,
        )
    )


def encode_assignment(work: Assignment) -> bytes:
    """The content of a request to the spawner, see `handlers.shim.spawner`."""
    return work.execution_id.encode() + b"\n" + _encoder.encode(work._asdict())
