"""The one way in: what is refused at once, and what only the owner can know."""

import asyncio
import gc
import weakref
from typing import Any

import pytest

from bus.commands import CancelCommand, Forget, GetStatus, RestartJob, StartJob, StopJob
from bus.envelope import Envelope, seal, waiting_record
from bus.errors import BusError, ErrorCode, Refused, TransportBusy
from bus.job_definition import Overlap, RolesSpec
from bus.model import CommandStatus, ExecutionStatus, Outcome, Principal, Value
from bus.ports import Policy, Receipt
from bus.publisher import Publisher
from tests.decision_fixture import OPERATOR, ROLELESS, VIEWER, Decider
from transports.memory import MemoryTransport

JOB = "Demo/Job"
START = StartJob(job_id=JOB)
STOP = StopJob(job_id="Demo/Job")


class Door:
    """A publisher before a decider in which nothing is decided until the test says so."""

    def __init__(self, *, queue_max: int = 100, **definition: Any) -> None:
        self.decider = Decider(Policy(queue_max=queue_max))
        self.decider.define(**definition)
        self.transport = MemoryTransport(clock=self.decider.clock, known=self.decider.table.command)
        self.publisher = Publisher(self.transport, self.decider, self.decider.table)
        self.decider.undecided = self.publisher.undecided

    def sealed(self, command: StartJob | StopJob | RestartJob | CancelCommand) -> Envelope:
        return seal(command, OPERATOR, now_ms=self.decider.clock.now_ms())

    async def publish(self, command: StartJob | StopJob | RestartJob | CancelCommand) -> str:
        return (await self.publisher.publish(self.sealed(command))).command_id

    async def decide(self) -> None:
        while self.transport.waiting:
            for envelope in await self.transport.receive(1):
                self.decider.take(envelope)

    async def running(self) -> str:
        """The execution of a start that was published, decided and runs."""
        command = self.decider.command(await self._decided(START))
        assert command.execution_id is not None
        self.decider.runs(command.execution_id)
        return command.execution_id

    async def _decided(self, command: StartJob) -> str:
        command_id = await self.publish(command)
        await self.decide()
        return command_id


async def test_start_of_a_running_job_is_refused_at_once() -> None:
    door = Door()
    await door.running()
    with pytest.raises(Refused) as refused:
        await door.publish(START)
    assert refused.value.code is ErrorCode.ALREADY_RUNNING
    assert not door.transport.waiting


@pytest.mark.parametrize("order", ["stop", "stop_of_the_execution", "restart"])
async def test_start_behind_an_undecided_order_is_left_to_the_owner_and_waits(order: str) -> None:
    door = Door()
    running = await door.running()
    orders: dict[str, StopJob | RestartJob] = {
        "stop": STOP,
        "stop_of_the_execution": StopJob(execution_id=running),
        "restart": RestartJob(job_id="Demo/Job"),
    }
    await door.publish(orders[order])
    start = await door.publish(START)
    await door.decide()
    execution_id = door.decider.command(start).execution_id
    assert execution_id not in (None, running)
    assert door.decider.status(execution_id) is ExecutionStatus.QUEUED


async def test_stop_and_start_of_one_batch_are_taken_in_their_order() -> None:
    door = Door()
    running = await door.running()
    answers = await door.publisher.publish_many([door.sealed(STOP), door.sealed(START)])
    assert all(isinstance(answer, Receipt) for answer in answers), answers
    await door.decide()
    assert door.decider.status(running) is ExecutionStatus.STOPPING


async def test_start_behind_an_undecided_cancel_takes_the_place_in_the_queue() -> None:
    door = Door(queue_max=1, overlap=Overlap.QUEUE)
    await door.running()
    waiting = await door.publish(START)
    await door.decide()
    with pytest.raises(Refused) as refused:
        await door.publish(START)
    assert refused.value.code is ErrorCode.QUEUE_FULL
    await door.publish(CancelCommand(target_id=waiting))
    start = await door.publish(START)
    await door.decide()
    assert door.decider.command(waiting).status is CommandStatus.CANCELLED
    assert door.decider.command(start).status is CommandStatus.RUNNING


async def test_early_refusals_are_back_when_the_order_is_decided_or_was_never_taken() -> None:
    door = Door()
    running = await door.running()
    await door.publish(StopJob(job_id="Demo/Job"))
    await door.decide()
    door.decider.ends(running)
    await door.running()
    with pytest.raises(Refused):
        await door.publish(START)
    await door.transport.aclose()
    with pytest.raises(TransportBusy):
        await door.publish(STOP)
    with pytest.raises(Refused):
        await door.publish(START)


async def test_other_refusals_do_not_wait_for_anybody() -> None:
    door = Door(disabled=True)
    await door.publish(STOP)
    answers: list[Receipt | BusError] = list(
        await asyncio.wait_for(door.publisher.publish_many([door.sealed(START)]), 10)
    )
    assert isinstance(answers[0], Refused)
    assert answers[0].code is ErrorCode.DISABLED


async def test_command_is_known_as_undecided_until_it_is_decided() -> None:
    door = Door()
    command_id = await door.publish(START)
    waiting = door.publisher.undecided(command_id)
    assert waiting is not None
    record = waiting_record(waiting)
    assert (record.status, record.job_id, record.kind) == (CommandStatus.PENDING, JOB, "start")
    await door.decide()
    assert door.publisher.undecided(command_id) is None
    await door.transport.aclose()
    refused = door.sealed(STOP)
    with pytest.raises(TransportBusy):
        await door.publisher.publish(refused)
    assert door.publisher.undecided(refused.id) is None


async def test_command_is_taken_back_before_anybody_decided_about_it() -> None:
    door = Door()
    start = await door.publish(START)
    cancel = await door.publish(CancelCommand(target_id=start))
    await door.decide()
    assert door.decider.command(cancel).outcome is Outcome.DONE
    record = door.decider.command(start)
    assert (record.status, record.error_code) == (CommandStatus.CANCELLED, ErrorCode.CANCELLED)
    assert door.decider.effects == []


@pytest.mark.parametrize(
    ("who", "code"),
    [(ROLELESS, ErrorCode.UNKNOWN_COMMAND), (VIEWER, ErrorCode.NOT_PERMITTED)],
)
async def test_undecided_command_of_another_user_is_not_taken_back(
    who: Principal, code: ErrorCode
) -> None:
    door = Door(roles=RolesSpec(view=("operator", "viewer"), stop=("operator",)))
    start = await door.publish(START)
    now_ms = door.decider.clock.now_ms()
    with pytest.raises(Refused) as refused:
        await door.publisher.publish(seal(CancelCommand(target_id=start), who, now_ms=now_ms))
    assert refused.value.code is code


async def test_id_that_was_accepted_and_that_nothing_knows_any_more_is_not_published_again() -> (
    None
):
    door = Door()
    start = door.sealed(START)
    await door.publisher.publish(start)
    await door.transport.receive(1)
    door.transport.settle(start.id)  # it has left the queue, and no table has it
    with pytest.raises(Refused) as refused:
        await door.publisher.publish(start)
    assert refused.value.code is ErrorCode.EXPIRED
    assert "new id" in refused.value.message
    assert not door.transport.waiting


async def test_read_whose_answer_is_gone_is_asked_again_under_its_id() -> None:
    door = Door()
    read = seal(GetStatus(job_id=JOB), OPERATOR, now_ms=door.decider.clock.now_ms())
    assert not (await door.publisher.publish(read)).replayed
    assert (await door.publisher.publish(read)).replayed
    await door.decide()
    door.transport.settle(read.id)
    door.decider.report(Forget(commands=(read.id,)))
    assert not (await door.publisher.publish(read)).replayed
    assert door.transport.waiting == 1


class Noticed(dict[str, Value]):
    """Variables whose end can be noticed."""


async def test_command_that_was_decided_and_forgotten_keeps_no_later_one_in_memory() -> None:
    """A read leaves nothing in the table: what was published after it goes all the same."""
    door = Door()
    decider, variables = door.decider, Noticed()
    read = seal(GetStatus(job_id=JOB), OPERATOR, now_ms=decider.clock.now_ms())
    await door.publisher.publish(read)
    await door.decide()
    door.transport.settle(read.id)
    decider.report(Forget(commands=(read.id,)))
    assert door.publisher.undecided(read.id) is None
    noticed = weakref.ref(variables)
    start = await door.publish(StartJob(job_id=JOB, variables=variables))
    await door.decide()
    door.transport.settle(start)
    execution_id = decider.execution(decider.command(start).execution_id).id
    decider.runs(execution_id)
    decider.ends(execution_id)
    decider.report(Forget(executions=(execution_id,), commands=(start,)))
    for kept in (decider.events, decider.effects, decider.log):
        kept.clear()
    del variables
    await door.publish(STOP)
    gc.collect()
    assert noticed() is None


async def test_repeat_after_a_first_that_came_to_nothing_is_a_first() -> None:
    door = Door()
    start = door.sealed(START)
    others = [door.sealed(STOP) for _ in range(2)]
    door.transport = MemoryTransport(
        clock=door.decider.clock, known=door.decider.table.command, inbox_max=1
    )
    door.publisher = Publisher(door.transport, door.decider, door.decider.table)
    for other in others:
        await door.publisher.publish(other)
    with pytest.raises(TransportBusy):
        await door.publisher.publish(start)
    await door.decide()
    assert not (await door.publisher.publish(start)).replayed
