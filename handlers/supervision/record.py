"""What shims leave on disk and ring, decoded; and what is written for them. No IO."""

import msgspec

from bus.model import ExitRecord, Progress, StopRequest
from handlers.shim.assignment import FORMAT, Assignment


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
        return _state_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def decode_exit(data: bytes) -> ExitRecord | None:
    """None if it is damaged: the file is written whole, so somebody else has touched it."""
    try:
        return _exit_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


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
    """The content of a request to the spawner."""
    return _encoder.encode(work._asdict())
