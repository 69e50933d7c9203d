"""Service, spawner and all shims die within 30 ms of one another, when one of them comes to a call.

At that call it freezes (`Plan.action` is `freeze`), so that the point is exact while the others go
on for the moment until their turn comes. Programs live on, as orphans.
"""

import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.service import Service, children_of, kill

WITHIN_S = 0.03
LOOK_S = 0.001


@contextmanager
def all_killed_at(mark: Path, service: Service, seed: int) -> Iterator[None]:
    """Inside the block: as soon as the mark of a strike is there, all of them are killed, in an
    order and with pauses that hang on the seed."""
    is_over = threading.Event()

    def watch() -> None:
        pid = 0
        while not is_over.wait(LOOK_S):
            with suppress(AssertionError):
                pid = service.pid  # kept: it is not known while its end is waited for
            if pid and mark.exists():
                _kill_all(pid, random.Random(seed))
                return

    killer = threading.Thread(target=watch, name="killer")
    killer.start()
    try:
        yield
    finally:
        is_over.set()
        killer.join()


def _kill_all(service: int, chance: random.Random) -> None:
    spawners = children_of(service)
    victims = [service, *spawners, *(shim for each in spawners for shim in children_of(each))]
    chance.shuffle(victims)
    moments = sorted(chance.uniform(0, WITHIN_S) for _ in victims)
    begun_s = time.monotonic()
    for moment_s, victim in zip(moments, victims, strict=True):
        time.sleep(max(0.0, begun_s + moment_s - time.monotonic()))
        kill(victim, signal.SIGKILL)
    # Who was forked meanwhile has no parent any more that would report it.
    late = [pid for each in spawners for pid in children_of(each) if pid not in victims]
    for pid in late:
        kill(pid, signal.SIGKILL)
