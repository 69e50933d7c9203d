"""What the supervisor remembers of one execution that it watches. No IO."""

from bus.jobs import JobSpec
from bus.model import Execution, Progress, StopRequest
from bus.recurring import Backoff
from handlers.supervision.record import ShimState

RETRY_S = 0.05
RETRY_S_MAX = 5.0


class Watched:
    """One live execution. `told_…` keep each report to once per run of the service.

    The roster alone writes `pidfd`, orders `is_ordering`, settling `is_settling`, `pauses` and
    `generation`, hearing and its news what a shim has said. Where an earlier shim is found again or
    a fresh one is needed, settling says by `shim` whom to listen to.
    """

    __slots__ = (
        "early",
        "execution",
        "generation",
        "is_copied",
        "is_ordering",
        "is_poison",
        "is_settling",
        "output_end",
        "pauses",
        "pidfd",
        "progress",
        "ran",
        "shim",
        "socket",
        "spec",
        "stop",
        "told_running",
        "told_stop",
    )

    def __init__(self, execution: Execution, spec: JobSpec | None) -> None:
        self.execution = execution
        self.spec = spec
        self.generation = 0
        self.shim = 0
        """The shim's pid; 0 until it is known."""
        self.pidfd: int | None = None
        self.socket = ""
        self.early: tuple[int, ShimState] | None = None
        """A ring, with its sender, that came before the shim's pid was known."""
        self.stop: StopRequest | None = execution.stop
        """The order in force, also a limit's; written by the supervisor and by its shim's news."""
        self.is_ordering = False
        self.is_settling = False
        self.is_copied = False
        """Whether it was begun before this data directory was copied, perhaps by the original."""
        self.pauses = Backoff(RETRY_S, RETRY_S_MAX)
        """How soon it is asked about again when its files could give no answer."""
        self.is_poison = False
        """Whether starts of the service died when it was to be spawned."""
        self.ran = False
        """Whether the program is known to have been executed."""
        self.told_running = False
        self.told_stop = False
        self.progress: Progress | None = execution.progress
        self.output_end = 0
