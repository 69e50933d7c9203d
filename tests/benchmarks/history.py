"""Makes data directories that have a past: many kept executions, or many waiting commands."""

import os
import time
import uuid

from bus.commands import GetStatus
from bus.envelope import new_uuid, seal
from bus.events import (
    CommandAccepted,
    CommandEnded,
    ExecutionEnded,
    ExecutionQueued,
    ExecutionRunning,
    ExecutionStarted,
)
from bus.layout import DataLayout
from bus.model import CommandStatus, ExecutionStatus, Outcome, Principal, Reason
from handlers.journal.format import Record
from handlers.journal.journal import Journal
from jobbus.service.instance import secret_key
from transports.directory import command_format

ALICE = Principal(user_id="alice", roles=("operator",), via="http")
JOBS = 100
_WRITE = 500


def ended_executions(layout: DataLayout, count: int, since_ms: int) -> None:
    """The journal of `count` starts of `Bench/Job…`, all ended well, and its orderly end."""
    layout.journal.mkdir(parents=True, exist_ok=True)
    journal = Journal.open(layout.journal, now_ms=since_ms).journal
    seq = 1
    records: list[Record] = []
    for number in range(count):
        at_ms = since_ms + number
        record = Record(seq=seq, at_ms=at_ms, events=_story(number, at_ms))
        records.append(record)
        seq = record.next_seq
        if len(records) == _WRITE:
            journal.append(records)
            records = []
    if records:
        journal.append(records)
    journal.close(seq, since_ms + count)


def _story(
    number: int, at_ms: int
) -> tuple[
    CommandAccepted,
    ExecutionQueued,
    ExecutionStarted,
    ExecutionRunning,
    CommandEnded,
    ExecutionEnded,
]:
    execution_id, command_id = new_uuid(at_ms), new_uuid(at_ms)
    job_id = f"Bench/Job{number % JOBS}"
    return (
        CommandAccepted(
            command_id=command_id,
            kind="start",
            user_id="alice",
            submitted_ms=at_ms,
            body_hash=uuid.uuid4().hex,
            job_id=job_id,
            roles=("operator",),
            via="http",
            execution_id=execution_id,
        ),
        ExecutionQueued(
            execution_id=execution_id,
            job_id=job_id,
            command_id=command_id,
            user_id="alice",
            revision="r1",
            variables={"Interval": 30},
        ),
        ExecutionStarted(execution_id=execution_id),
        ExecutionRunning(execution_id=execution_id, started_ms=at_ms, pid=4711),
        CommandEnded(
            command_id=command_id,
            status=CommandStatus.COMPLETED,
            outcome=Outcome.DONE,
            execution_id=execution_id,
        ),
        ExecutionEnded(
            execution_id=execution_id,
            status=ExecutionStatus.SUCCEEDED,
            reason=Reason.EXIT_CODE,
            ended_ms=at_ms + 1,
            exit_code=0,
            output_end=0,
        ),
    )


def waiting_commands(layout: DataLayout, count: int) -> None:
    """So many `status` commands lie in the queue as the service itself writes them. Not synced."""
    layout.queue_tmp.mkdir(parents=True, exist_ok=True)
    for folder in (layout.root, layout.queue, layout.queue_tmp):
        folder.chmod(0o700)
    secret = secret_key(layout)
    command = GetStatus(job_id="Bench/Job1")
    for number in range(count):
        envelope = seal(command, ALICE, now_ms=time.time_ns() // 1_000_000)
        data = command_format.encode(envelope, time.time_ns() + number, secret)
        handle = os.open(layout.queue / f"{envelope.id}.json", os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(handle, data)
        os.close(handle)
