"""Which state may follow which: two tables and one question. No IO, no clock."""

from bus.model import CommandStatus as C
from bus.model import ExecutionStatus as E

_ENDS_AFTER_START = frozenset({E.SUCCEEDED, E.FAILED, E.STOPPED, E.TIMED_OUT, E.LOST})

EXECUTION_TRANSITIONS: dict[E, frozenset[E]] = {
    E.QUEUED: frozenset({E.STARTING, E.CANCELLED, E.SKIPPED, E.LOST}),
    E.STARTING: frozenset({E.RUNNING, E.STOPPING, E.UNKNOWN}) | _ENDS_AFTER_START,
    E.RUNNING: frozenset({E.STOPPING, E.UNKNOWN}) | _ENDS_AFTER_START,
    E.STOPPING: frozenset({E.UNKNOWN}) | _ENDS_AFTER_START,
    E.UNKNOWN: frozenset({E.RUNNING, E.STOPPING}) | _ENDS_AFTER_START,
}
"""From a state to those that may follow; a state that is no key is final."""

COMMAND_TRANSITIONS: dict[C, frozenset[C]] = {
    C.PENDING: frozenset({C.RUNNING, C.COMPLETED, C.FAILED, C.REJECTED, C.EXPIRED, C.CANCELLED}),
    C.RUNNING: frozenset({C.COMPLETED, C.FAILED, C.EXPIRED, C.CANCELLED}),
}


def may_follow(before: E, after: E) -> bool:
    """Whether an execution may go from `before` to `after`."""
    return after in EXECUTION_TRANSITIONS.get(before, frozenset())


def command_may_follow(before: C, after: C) -> bool:
    """Whether a command may go from `before` to `after`."""
    return after in COMMAND_TRANSITIONS.get(before, frozenset())
