"""What an end sets going: the starts that `[[after]]` of its job orders. Pure.

A start is decided on the table that has taken the end in, and recorded together with it: there is
no moment at which one of them is on record without the other. Its command has an id that is made of
the execution and the place of the `[[after]]`, so that it is never given twice. It comes from the
service itself (`chain:App/Job`), which may start every job; what refuses a person's start for other
reasons (no such job, disabled, full, maintenance, variables that do not fit) refuses it, too, and
is recorded as a command that was rejected and at the execution that has ended.

An end after which a retry is ordered sets nothing going: the last attempt does. Definitions whose
chains lead in a circle are refused, and `HOPS_MAX` ends what comes about nevertheless, by versions
of definitions that were never in force together.
"""

from collections import deque
from collections.abc import Iterator, Sequence

import msgspec
from msgspec.structs import replace

from bus.commands import AnyCommand, ReportLost, StartJob
from bus.envelope import Envelope, chain_of, derived_uuid, seal
from bus.errors import ErrorCode, Refused
from bus.events import (
    AnyEvent,
    CommandAccepted,
    CommandEnded,
    ExecutionCaused,
    ExecutionEnded,
    ExecutionQueued,
)
from bus.job_definition import AfterSpec
from bus.model import Caused, Execution, Principal, Value
from handlers.catalog.handed_on import handed_on
from handlers.decisions.decision import NOTHING, Context, Decision
from handlers.decisions.readable_table import ReadableTable
from handlers.decisions.refusals import refusal
from handlers.decisions.registry import decide
from handlers.decisions.retries import RETRY

HOPS_MAX = 16
"""So many starts may follow one from the other."""


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """One start that the end of `execution` orders."""

    execution: Execution
    index: int
    after: AfterSpec


def with_chains(
    table: ReadableTable, command: AnyCommand, decision: Decision, context: Context
) -> Iterator[Decision]:
    """The decision, and what its ends set going: one unit.

    Each is to be applied before the next is asked for.
    """
    yield decision
    ahead = deque(links(table, command, decision.events))
    while ahead:
        start = follow(table, ahead.popleft(), context)
        yield start
        ahead.extend(links(table, command, start.events))


def links(table: ReadableTable, command: AnyCommand, events: Sequence[AnyEvent]) -> Iterator[Link]:
    """What the ends among `events` order, which the table has taken in and `command` led to.

    The definition in force counts, as for retries. What ended in a directory that this one is a
    copy of sets nothing going: it may still run there.
    """
    ends = [event for event in events if isinstance(event, ExecutionEnded)]
    if not ends or (isinstance(command, ReportLost) and command.elsewhere):
        return
    retried = {e.previous for e in events if isinstance(e, ExecutionQueued) and e.cause == RETRY}
    for event in ends:
        if event.execution_id in retried:
            continue
        execution = table.execution(event.execution_id)
        job = table.job(table.name_now(execution.job_id)) if execution is not None else None
        if execution is None or job is None or job.spec is None:
            continue
        for index, after in enumerate(job.spec.after):
            if event.status in after.on:
                yield Link(execution=execution, index=index, after=after)


def follow(table: ReadableTable, link: Link, context: Context) -> Decision:
    """The start of the other job, or why there is none; nothing if it was decided before."""
    first = link.execution
    envelope = seal(
        StartJob(job_id=table.name_now(link.after.start), variables=_variables(link)),
        Principal(user_id=chain_of(first.job_id), via="system"),
        now_ms=context.now_ms,
        command_id=derived_uuid("chain", first.id, str(link.index)),
        traceparent=first.traceparent,
    )
    if first.hops >= HOPS_MAX:
        why = f"{HOPS_MAX} jobs have started one after the other: the chain ends here"
        decision = refusal(table, envelope, Refused(ErrorCode.CHAIN_TOO_LONG, why), context)
    else:
        decision = _decided(table, envelope, context)
    if not decision.events:
        return NOTHING
    events = tuple(_as_caused(event, first) for event in decision.events)
    return Decision((*events, _recorded(table, link, envelope.id, events)), decision.effects)


def _variables(link: Link) -> dict[str, Value]:
    result = msgspec.json.decode(link.execution.result)
    return handed_on(link.after, link.execution.variables, result)


def _decided(table: ReadableTable, envelope: Envelope, context: Context) -> Decision:
    try:
        return decide(table, envelope, context)
    except Refused as refused:
        return refusal(table, envelope, refused, context)


def _as_caused(event: AnyEvent, first: Execution) -> AnyEvent:
    if isinstance(event, ExecutionQueued):
        return replace(event, caused_by=first.id, hops=first.hops + 1)
    return event


def _recorded(
    table: ReadableTable, link: Link, command_id: str, events: Sequence[AnyEvent]
) -> ExecutionCaused:
    """What stands at the execution that has ended."""
    accepted = next(e for e in events if isinstance(e, CommandAccepted))
    ends = (e for e in events if isinstance(e, CommandEnded) and e.command_id == command_id)
    ended = next(ends, None)
    job_id, started = link.execution.job_id, table.name_now(link.after.start)
    is_there = table.job(started) is not None
    caused = Caused(
        job_id=started,
        command_id=command_id,
        execution_id=accepted.execution_id,
        error_code=ended.error_code if ended is not None else None,
        error=ended.error if ended is not None else None,
        is_hidden=is_there and not table.is_seen_with(job_id, started),
    )
    return ExecutionCaused(execution_id=link.execution.id, by=accepted.user_id, caused=caused)
