"""Who has put in a thousand waits; who has put in one does not."""

import random

from bus.clock import SystemClock
from bus.commands import PassTime, StartJob, StopJob
from bus.dispatch import Inbox
from bus.envelope import Envelope, seal
from bus.fair_queue import FairQueue
from bus.model import Principal


def test_each_owner_has_a_turn_and_keeps_their_order() -> None:
    chance = random.Random(4)
    turns: FairQueue[tuple[str, int]] = FairQueue()
    put = [(chance.choice("aaaaaaabc"), number) for number in range(500)]
    for owner, number in put:
        turns.append(owner, (owner, number))
    taken = [turns.take() for _ in range(len(turns))]
    for owner in "abc":
        assert [each for each in taken if each[0] == owner] == [e for e in put if e[0] == owner]
    last_of_c = max(at for at, (owner, _) in enumerate(taken) if owner == "c")
    assert last_of_c < 3 * sum(owner == "c" for owner, _ in put)


def test_what_is_put_back_is_next() -> None:
    turns: FairQueue[int] = FairQueue()
    for number in range(4):
        turns.append("a", number)
    turns.append("b", 10)
    first, second = turns.take(), turns.take()
    turns.put_back("b", second)
    turns.put_back("a", first)
    assert [turns.take() for _ in range(len(turns))] == [0, 10, 1, 2, 3]


async def test_a_start_is_in_the_next_batch_and_a_stop_first_however_many_wait() -> None:
    clock = SystemClock()
    inbox = Inbox(clock)
    inbox.put([sealed("greedy", StartJob(job_id="A/B")) for _ in range(1000)])
    inbox.put([sealed("modest", StartJob(job_id="A/B")), sealed("admin", StopJob(job_id="A/B"))])
    batch = [envelope.principal.user_id for envelope in await inbox.take(10)]
    assert (batch[0], batch.index("modest")) == ("admin", 2)


async def test_a_stop_waits_for_no_flood_of_reports() -> None:
    inbox = Inbox(SystemClock())
    for _ in range(1000):
        inbox.report(PassTime())
    inbox.put([sealed("admin", StopJob(job_id="A/B"))])
    assert "admin" in [envelope.principal.user_id for envelope in await inbox.take(2)]


def sealed(user: str, command: StartJob | StopJob) -> Envelope:
    principal = Principal(user_id=user, roles=("operator",), via="http")
    return seal(command, principal, now_ms=SystemClock().now_ms())
