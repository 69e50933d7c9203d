import random

import pytest

from transports.http.web.memory_budget import Budget, Lease, Memory

KIB = 1024


def test_the_sum_is_bounded_over_all_holders() -> None:
    budget = Budget(total=100 * KIB, share=25 * KIB, floor=KIB)
    leases = [Lease(budget, f"owner{n % 10}") for n in range(1000)]
    for lease in leases:
        while lease.grow(700):
            pass
    assert 100 * KIB - 2 * 700 < budget.held <= 100 * KIB
    assert all(lease.size <= 26 * KIB for lease in leases)


def test_one_owner_leaves_room_for_another() -> None:
    budget = Budget(total=100 * KIB, share=25 * KIB, floor=KIB)
    for _ in range(200):
        Lease(budget, "greedy").grow(20 * KIB)
    assert budget.held <= 25 * KIB
    assert Lease(budget, "modest").grow(20 * KIB)


def test_what_is_small_is_never_refused() -> None:
    budget = Budget(total=10 * KIB, share=10 * KIB, floor=2 * KIB)
    assert Lease(budget, "a").grow(12 * KIB)
    for _ in range(100):
        assert Lease(budget, "a").grow(2 * KIB)
    assert not Lease(budget, "b").grow(2 * KIB + 1)
    assert (budget.refused, budget.held) == (1, 10 * KIB)


def test_a_lease_moves_whole_or_not_at_all() -> None:
    memory = Memory(proven=4 * 100 * KIB, unproven=4 * 100 * KIB)
    full, lease = Lease(memory.proven, "alice"), Lease(memory.unproven, "127.0.0.1")
    assert full.grow(100 * KIB)
    assert lease.grow(50 * KIB)
    assert not lease.move_to(memory.proven, "alice")
    assert memory.unproven.held > 0
    full.set_size(0)
    assert lease.move_to(memory.proven, "alice")
    assert memory.unproven.held == 0
    lease.set_size(0)
    assert memory.proven.held == 0


@pytest.mark.parametrize("seed", range(20))
def test_nothing_stays_counted_when_all_is_let_go(seed: int) -> None:
    chance = random.Random(seed)
    memory = Memory(proven=64 * KIB, unproven=32 * KIB)
    leases = [Lease(memory.unproven, f"peer{n}") for n in range(30)]
    for _ in range(3000):
        lease = chance.choice(leases)
        match chance.randrange(4):
            case 0 | 1:
                lease.grow(chance.randrange(9000))
            case 2:
                lease.set_size(chance.randrange(lease.size + 1))
            case _:
                lease.move_to(memory.proven, f"user{chance.randrange(5)}")
        assert 0 <= memory.proven.held <= 64 * KIB
        assert 0 <= memory.unproven.held <= 32 * KIB
    for lease in leases:
        lease.set_size(0)
    assert (memory.proven.held, memory.unproven.held) == (0, 0)
    assert not memory.proven._by_owner
    assert not memory.unproven._by_owner
