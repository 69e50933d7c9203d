"""Which connection is closed over the limit: first those without a credential, then idle ones."""

from transports.http.web.connections import Connections, connections_max


class Open:
    def __init__(self, *, is_idle: bool = True) -> None:
        self.is_idle = is_idle
        self.is_dropped = False

    def drop(self) -> None:
        self.is_dropped = True


def opened(held: Connections, count: int, *, is_idle: bool = True) -> list[Open]:
    made = [Open(is_idle=is_idle) for _ in range(count)]
    for one in made:
        held.add(one)
    return made


def test_there_are_never_more_than_allowed_whatever_comes() -> None:
    held = Connections(10)
    made = opened(held, 1000)
    assert len(held) == 10
    assert [one.is_dropped for one in made] == [True] * 990 + [False] * 10


def test_a_proven_client_stays_while_unproven_ones_come() -> None:
    held = Connections(10)
    known = opened(held, 3)
    for one in known:
        held.prove(one)
    opened(held, 1000)
    assert len(held) == 10
    assert not any(one.is_dropped for one in known)


def test_a_newcomer_gets_the_place_of_an_idle_one_and_none_of_one_at_work() -> None:
    held = Connections(3)
    busy, idle, late = [*opened(held, 1, is_idle=False), *opened(held, 1), *opened(held, 1)]
    for one in (busy, idle, late):
        held.prove(one)
    [new] = opened(held, 1)
    assert (busy.is_dropped, idle.is_dropped, late.is_dropped, new.is_dropped) == (
        False, True, False, False
    )  # fmt: skip


def test_no_client_at_work_is_closed_for_a_newcomer() -> None:
    held = Connections(2)
    busy = opened(held, 2, is_idle=False)
    for one in busy:
        held.prove(one)
    [new] = opened(held, 1)
    assert new.is_dropped
    assert list(held) == busy


def test_one_that_left_is_not_proven_any_more() -> None:
    held = Connections(2)
    [gone] = opened(held, 1)
    held.remove(gone)
    held.prove(gone)
    assert len(held) == 0


def test_a_quarter_of_the_descriptors_stays_free() -> None:
    assert connections_max(1024, 1000) == 640
    assert connections_max(65_536, 1000) == 3_000
    assert connections_max(65_536, 5_000) == 11_000
