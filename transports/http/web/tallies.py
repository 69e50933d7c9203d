"""Counters and histograms as plain numbers, cheap beside what they count; no text, no IO."""

from bisect import bisect_left

Labels = tuple[str, ...]


class Tally:
    """How often, by the values of its labels."""

    def __init__(self, name: str, about: str, labels: Labels) -> None:
        self.name = name
        self.about = about
        self.labels = labels
        self.counts: dict[Labels, int] = {}

    def add(self, *values: str, times: int = 1) -> None:
        self.counts[values] = self.counts.get(values, 0) + times


class Histogram:
    """How much or how long, by the values of its labels: counts of what was at most so much."""

    def __init__(self, name: str, about: str, labels: Labels, bounds: tuple[float, ...]) -> None:
        self.name = name
        self.about = about
        self.labels = labels
        self.bounds = bounds
        self.slots: dict[Labels, list[int]] = {}
        """One count a bound, each without those of smaller bounds, and one for what was more."""
        self.sums: dict[Labels, float] = {}

    def add(self, measured: float, *values: str, times: int = 1) -> None:
        slots = self.slots.get(values)
        if slots is None:
            slots = self.slots[values] = [0] * (len(self.bounds) + 1)
        slots[bisect_left(self.bounds, measured)] += times
        self.sums[values] = self.sums.get(values, 0.0) + measured * times
