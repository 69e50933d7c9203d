"""How old an order to end is: by the wall clock as it comes, by the time that runs since then."""

import time
from types import SimpleNamespace
from typing import cast

import pytest

from handlers.shim import stopping
from handlers.shim.assignment import Assignment, StopOrder
from handlers.shim.stopping import Stopping
from handlers.shim.tree import Tree

WORK = cast("Assignment", SimpleNamespace(leftover="stop", stop_signal=15, stop_to="main"))


class Living:
    """A tree that goes on living."""

    main_status = None

    def is_empty(self) -> bool:
        return False

    def signal_main(self, number: int, *, whole_group: bool) -> None:
        """The program does not mind."""


def test_an_order_read_again_after_the_clock_was_set_keeps_its_grace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_ms = 1_769_450_400_000
    order = StopOrder("user", "alice", at_ms, 60.0)
    ending = Stopping(WORK, cast("Tree", Living()))
    monkeypatch.setattr(stopping, "now_ms", lambda: at_ms + 1000)
    ending.obey(order)
    monkeypatch.setattr(stopping, "now_ms", lambda: at_ms + 3 * 3_600_000)
    ending.obey(order)
    ending.climb(time.monotonic())
    assert ending.deadline_s is not None
    assert ending.deadline_s - time.monotonic() > 50  # of its 60 s, one second old when it came
