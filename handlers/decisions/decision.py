"""What a decision is: events to record and effects to have afterwards. No IO, clock or entropy."""

from collections.abc import Callable, Iterable
from itertools import chain

import msgspec

from bus.envelope import Envelope
from bus.events import AnyEvent
from bus.ports import Policy
from bus.schedules import Bar, ScheduleSpec


class SpawnExecution(msgspec.Struct, frozen=True):
    """Start the program of this execution, which has just taken its slot."""

    execution_id: str


class StopExecution(msgspec.Struct, frozen=True):
    """Pass the execution's stop order on to its shim."""

    execution_id: str


class DeleteFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Remove what lies on disk of forgotten executions and commands.

    `spellings` are the ids of the commands as their writers spelled them, which is how their files
    are named.
    """

    execution_ids: tuple[str, ...] = ()
    command_ids: tuple[str, ...] = ()
    spellings: tuple[str, ...] = ()


Effect = SpawnExecution | StopExecution | DeleteFiles


class Decision(msgspec.Struct, frozen=True):
    """`events` are one unit: recorded together or not at all. `effects` follow after the record."""

    events: tuple[AnyEvent, ...] = ()
    effects: tuple[Effect, ...] = ()


NOTHING = Decision()


def joined(decisions: Iterable[Decision]) -> Decision:
    """All of them as one unit, in this order."""
    parts = tuple(decisions)
    return Decision(
        tuple(chain.from_iterable(part.events for part in parts)),
        tuple(chain.from_iterable(part.effects for part in parts)),
    )


class Context(msgspec.Struct, frozen=True):
    """What a pure decision may not find out by itself.

    `now_ms` is the wall time of the batch; `new_id` gives a fresh execution id and `random`
    a number from 0 to 1 at each call. `undecided` gives a command by its id that was accepted and
    has not been decided yet, if its door still knows it. `is_low`: little room is left on the disk,
    so what is queued stays there. `bar_of` says what calendars and blackouts keep a schedule from
    starting at an instant.
    """

    now_ms: int
    new_id: Callable[[], str]
    policy: Policy
    random: Callable[[], float] = lambda: 0.0
    undecided: Callable[[str], Envelope | None] = lambda command_id: None
    is_low: bool = False
    bar_of: Callable[[str, ScheduleSpec, int], Bar | None] = lambda job_id, schedule, at_ms: None
