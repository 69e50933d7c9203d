"""What can happen to a supervised execution: the inputs of its state machine. Records, no IO."""

import msgspec

from bus.model import ExitRecord, Reason, StopRequest
from handlers.supervision.execution_actions import Timer
from handlers.supervision.record import ShimState

# -- findings: what the files of an execution and /proc say became of it


class NeverRan(msgspec.Struct, frozen=True):
    """We hold the claim: no shim ever ran the program, and none can under a lower generation."""

    generation: int


class Alive(msgspec.Struct, frozen=True):
    """A shim holds the lock; `state` is None while it has not said who it is."""

    state: ShimState | None


class Ended(msgspec.Struct, frozen=True):
    exit: ExitRecord


class Orphaned(msgspec.Struct, frozen=True):
    """The shim is dead without a record; its tree may still live."""

    state: ShimState


class Gone(msgspec.Struct, frozen=True):
    """No file says how it ended."""

    reason: Reason


class Elsewhere(msgspec.Struct, frozen=True):
    """The files are copies, and so is `state`: only the original knows what became of it."""

    state: ShimState | None


Finding = Elsewhere | NeverRan | Alive | Ended | Orphaned | Gone

# -- inputs


class Wanted(msgspec.Struct, frozen=True):
    """The owner wants the program started."""


class FilesRead(msgspec.Struct, frozen=True):
    """The answer to `ReadFiles`, or what the start of the service found."""

    finding: Finding


class ProvisionsRead(msgspec.Struct, frozen=True):
    """The answer to `ReadProvisions`. What was read stays outside of the machine."""

    generation: int


class CallFailed(msgspec.Struct, frozen=True):
    """No request can be made: a provision cannot be had, or the program call is impossible."""

    generation: int
    error: str


class ShimForked(msgspec.Struct, frozen=True):
    """The spawner gave the work to the shim `pid`."""

    pid: int


class ForkRefused(msgspec.Struct, frozen=True):
    """The spawner could fork no shim."""

    error: str


class RequestLost(msgspec.Struct, frozen=True):
    """The spawner died before it answered; the work may have been carried out."""


class ShimSent(msgspec.Struct, frozen=True):
    """A datagram, with the pid of its sender as the kernel says."""

    sender: int
    state: ShimState


class ShimFollowed(msgspec.Struct, frozen=True):
    """The answer to `FollowShim`: the shim of `state` lives."""

    state: ShimState


class ShimMissing(msgspec.Struct, frozen=True):
    """The answer to `FollowShim`: there is no such process any more."""


class ShimEnded(msgspec.Struct, frozen=True):
    """The process of the shim that is followed has ended."""


class Looked(msgspec.Struct, frozen=True):
    """What the slow look found: the shim's state file, and whether there is an exit record.

    `is_followed`: the end of the shim's process will be noticed.
    """

    state: ShimState | None
    has_exit: bool
    is_followed: bool


class StopOrdered(msgspec.Struct, frozen=True):
    """The owner wants the tree gone; comes again when the order gets sharper."""

    order: StopRequest


class ControlTried(msgspec.Struct, frozen=True):
    """The answer to `WriteControl`."""

    order: StopRequest
    is_written: bool


class WakeRefused(msgspec.Struct, frozen=True):
    """The shim's socket was full."""

    order: StopRequest | None


class ProgressWritten(msgspec.Struct, frozen=True):
    """The program has written to its progress file."""


class ReadinessSeen(msgspec.Struct, frozen=True):
    """The answer to `ProbeReadiness`: the program is ready."""


class OrphansFound(msgspec.Struct, frozen=True):
    """Members of the tree without a shim live, or may live."""


class OrphansGone(msgspec.Struct, frozen=True):
    """No member of the tree without a shim lives."""


class OrphansSurvived(msgspec.Struct, frozen=True):
    """The stop has done what it can, and these outlived its KILL."""

    survivors: tuple[int, ...]


class TimePassed(msgspec.Struct, frozen=True):
    """What `Wait` asked for."""

    timer: Timer


Answer = ProvisionsRead | CallFailed | ShimForked | ForkRefused | RequestLost
OfShim = ShimSent | ShimFollowed | ShimMissing | ShimEnded | Looked
OfStop = StopOrdered | ControlTried | WakeRefused
OfOrphans = OrphansFound | OrphansGone | OrphansSurvived
OfProgram = ProgressWritten | ReadinessSeen
Input = Wanted | FilesRead | Answer | OfShim | OfStop | OfProgram | OfOrphans | TimePassed
