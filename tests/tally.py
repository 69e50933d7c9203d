"""Counts of what sweeps tried and of what was wrong; `tests/conftest.py` prints them at the end."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum


class Kind(StrEnum):
    """What `pytest -m exhaustive` reports the numbers of."""

    KILL_POINTS = "kill points"
    SIMULTANEOUS = "simultaneous deaths"
    POWER_CUTS = "power cuts"
    INJECTED_ERRORS = "injected errors"
    FUZZ_INPUTS = "fuzz inputs"
    HOSTILE = "hostile cases"
    PERMISSIONS = "cells of the truth table"
    SCHEMA = "requests by the document"
    EXHAUSTED = "exhausted resources"
    STREAMED_CHANGES = "streamed changes"
    SCHEDULES = "decisions of schedules"


class Tally:
    """Of one test. A violation is a trial with something wrong, however much of it is."""

    def __init__(self) -> None:
        self._tried: Counter[tuple[Kind, str]] = Counter()
        self._wrong: Counter[tuple[Kind, str]] = Counter()

    def add(self, kind: Kind, of: str, tried: int = 1, wrong: int = 0) -> None:
        self._tried[kind, of] += tried
        self._wrong[kind, of] += wrong

    @contextmanager
    def trial(self, kind: Kind, of: str) -> Iterator[None]:
        """One more was tried; what is raised in the block is a violation."""
        wrong = 1
        try:
            yield
            wrong = 0
        finally:
            self.add(kind, of, 1, wrong)

    def lines(self) -> list[tuple[str, str, int, int]]:
        """Kind, part, tried, wrong: of plain types, for they travel between processes."""
        return [
            (kind.value, of, tried, self._wrong[kind, of])
            for (kind, of), tried in self._tried.items()
        ]
