"""The lines before groups of slots: what waits for each of them, in order. No IO, no clock.

The order is by arrival, and a point of priority is worth a fixed time of waiting. So it is the same
at every moment, however much time has passed: ageing costs nothing, and what is in a line is
passed only by those that came less than an hour later.
"""

from bisect import bisect_left, insort

from bus.groups import POINT_MS
from bus.job_definition import JobSpec
from bus.model import Execution

Place = tuple[int, int, str]
"""A place in a line: when it counts as having come, the number of its record, the execution."""


class Lines:
    """`_lines` has the places of each group in order, `_jobs` how many each job has there,
    `_placed` the groups and the place of each execution. The table alone adds and takes out."""

    def __init__(self) -> None:
        self._lines: dict[str, list[Place]] = {}
        self._jobs: dict[str, dict[str, int]] = {}
        self._placed: dict[str, tuple[tuple[str, ...], Place]] = {}

    def jobs_before(self, group: str) -> list[str]:
        """Jobs of which something waits for the group."""
        return list(self._jobs.get(group, ()))

    def length(self, group: str) -> int:
        return len(self._lines.get(group, ()))

    def position(self, group: str, execution_id: str) -> int:
        """How many wait for the group up to this one, itself counted; 0 if it does not."""
        placed = self._placed.get(execution_id)
        if placed is None or group not in placed[0]:
            return 0
        return bisect_left(self._lines[group], placed[1]) + 1

    def add(self, execution: Execution, spec: JobSpec | None) -> None:
        """The execution waits for slots of the groups that `spec` names."""
        if spec is None or not spec.groups:
            return
        place = place_of(execution, spec)
        self._placed[execution.id] = (spec.groups, place)
        for group in spec.groups:
            insort(self._lines.setdefault(group, []), place)
            jobs = self._jobs.setdefault(group, {})
            jobs[execution.job_id] = jobs.get(execution.job_id, 0) + 1

    def take_out(self, execution: Execution) -> None:
        """The execution waits no more, or as somebody else from now on."""
        groups, place = self._placed.pop(execution.id, ((), (0, 0, "")))
        for group in groups:
            line, jobs = self._lines[group], self._jobs[group]
            del line[bisect_left(line, place)]
            jobs[execution.job_id] -= 1
            if not jobs[execution.job_id]:
                del jobs[execution.job_id]
            if not line:
                del self._lines[group], self._jobs[group]

    def copy(self) -> "Lines":
        copied = Lines()
        copied._lines = {group: line.copy() for group, line in self._lines.items()}
        copied._jobs = {group: jobs.copy() for group, jobs in self._jobs.items()}
        copied._placed = self._placed.copy()
        return copied


def place_of(execution: Execution, spec: JobSpec) -> Place:
    came_ms = execution.arrival_ms - spec.priority * POINT_MS
    return came_ms, execution.version, execution.id
