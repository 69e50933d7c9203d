"""What is done for a supervised execution: the outputs of its state machine, beside reports to the
owner (`bus.commands`). Records only, no IO."""

from enum import Enum

import msgspec

from bus.commands import Report
from bus.model import StopRequest
from handlers.supervision.record import CheckResult, ShimState


class Timer(Enum):
    """What a supervised execution waits for; each is set at most once at a time."""

    RECONCILE = "reconcile"
    WRITE = "write"
    WAKE = "wake"
    PROGRESS = "progress"
    READY = "ready"


class ReadFiles(msgspec.Struct, frozen=True):
    """Find out from the files what became of it; answered by `FilesRead`."""


class ReadProvisions(msgspec.Struct, frozen=True):
    """Read what the call takes beside the definition; answered by `ProvisionsRead` or
    `CallFailed`."""

    generation: int


class AskSpawner(msgspec.Struct, frozen=True):
    """Request a shim under the claim of that generation; answered by `ShimForked`, `ForkRefused`,
    `RequestLost` or `CallFailed`."""

    generation: int


class FollowShim(msgspec.Struct, frozen=True):
    """Notice the end of this shim; answered by `ShimFollowed` or `ShimMissing`."""

    state: ShimState


class UnfollowShim(msgspec.Struct, frozen=True):
    """The end of the shim is not of interest any more."""


class WriteControl(msgspec.Struct, frozen=True):
    """Make the order durable where the shim looks; answered by `ControlTried`."""

    order: StopRequest


class WakeShim(msgspec.Struct, frozen=True):
    """Have the shim look at its files now; answered by `WakeRefused` if its socket is full.

    `order` goes with it: a shim may have lost its folder. `address` is what the shim said of its
    socket.
    """

    address: str
    order: StopRequest | None


class WatchProgress(msgspec.Struct, frozen=True):
    """Notice when the program writes its progress file: `ProgressWritten`."""


class ProbeReadiness(msgspec.Struct, frozen=True):
    """Find out when the program is ready, as its definition says: `ReadinessSeen`."""


class SayReady(msgspec.Struct, frozen=True):
    """Have the shim take the program for ready. `address` as in `WakeShim`."""

    address: str


class CheckHealth(msgspec.Struct, frozen=True):
    """Find out from now on whether the program is well; it is ready since then."""

    ready_ms: int


class NoteCheck(msgspec.Struct, frozen=True):
    """The shim has made a check, which came to this."""

    result: CheckResult


class TakeOrphans(msgspec.Struct, frozen=True):
    """Watch the tree whose shim is dead. `state` is None if no file describes it: then its members
    carry the marker."""

    state: ShimState | None
    stop_signal: int


class OrderOrphans(msgspec.Struct, frozen=True):
    """Stop the tree whose shim is dead."""

    order: StopRequest


class WarnOfCopy(msgspec.Struct, frozen=True):
    """Log it if the execution runs in the directory that this one is a copy of."""

    state: ShimState | None


class Wait(msgspec.Struct, frozen=True):
    """`TimePassed(timer)` comes after that time; replaces an earlier wait of the same timer."""

    timer: Timer
    delay_s: float


class NoteGrowth(msgspec.Struct, frozen=True):
    """There may be more output than readers know of."""


class Forget(msgspec.Struct, frozen=True):
    """The execution leaves supervision: shim, progress file, orphans and timers are let go."""


OfProgram = WatchProgress | ProbeReadiness | SayReady | CheckHealth | NoteCheck
"""What is done to know how the program is."""

Action = (
    ReadFiles
    | ReadProvisions
    | AskSpawner
    | FollowShim
    | UnfollowShim
    | WriteControl
    | WakeShim
    | OfProgram
    | TakeOrphans
    | OrderOrphans
    | WarnOfCopy
    | Wait
    | NoteGrowth
    | Forget
)

Output = Report | Action
