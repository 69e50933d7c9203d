"""Who may start next: slots of jobs and of groups, paused queues, start limits. Pure.

An execution needs a slot of its job and one of each group that the definition in force names; it
takes them with its start and holds them until it has ended (`Unknown` holds them, too). What is
asked at a moment is asked of one `Room`, so that the starts of one decision cannot take a slot
twice.

*Order.* Within a job as its queue says. Between the jobs of a group by place, see `lines`: arrival,
where a point of priority is worth a fixed wait. What takes the place of an execution that has just
ended goes first: a restart keeps its slots.

*Nothing stays free that somebody could use.* What waits for several groups and finds one full does
not keep others from the rest, until it is overdue: then slots are kept for it as they become free,
so that it waits no longer than the longest run of those that hold them.

*Never more.* A limit that was lowered below what runs ends nothing: nothing starts until enough has
ended.
"""

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import msgspec

from bus.groups import OVERDUE_MS, StartLimitSpec
from bus.job_definition import Job, JobSpec
from bus.model import Execution
from handlers.decisions.decision import Decision, SpawnExecution
from handlers.decisions.delays import is_delayed_start, is_due, unattended_spec
from handlers.decisions.lines import place_of
from handlers.decisions.readable_table import ReadableTable
from handlers.decisions.retries import start_of


class Soon(msgspec.Struct, frozen=True, kw_only=True):
    """What the decision that is being made changes, where the table still has it as it was.

    `freed` is an execution that ends, `without` are waiting ones that do; `jobs` and `limits` (of
    groups) are about to be in force; the queues of `resumed_jobs` and `resumed_groups` go on.
    """

    freed: Execution | None = None
    without: Collection[str] = ()
    jobs: Mapping[str, Job] = {}
    limits: Mapping[str, int] = {}
    resumed_jobs: Collection[str] = ()
    resumed_groups: Collection[str] = ()
    after_maintenance: bool = False


NOW = Soon()


def next_to_start(
    table: ReadableTable,
    jobs: Iterable[str],
    now_ms: int,
    *,
    groups: Iterable[str] = (),
    soon: Soon = NOW,
    is_low: bool = False,
) -> list[Execution]:
    """The queued executions of `jobs`, and of those that wait for `groups`, that may start now.

    With `is_low` nothing new starts; what takes the place of another needs no more than that did.
    """
    if table.maintenance is not None and not soon.after_maintenance:
        return []
    room = Room(table, now_ms, soon)
    of_groups = (job_id for group in groups for job_id in table.lines.jobs_before(group))
    names = dict.fromkeys(map(table.name_now, (*jobs, *of_groups)))
    found = (_JobQueue(table, job_id, room, is_low=is_low) for job_id in names)
    heap = [queue.entry() for queue in found if queue.waiting]
    heapq.heapify(heap)
    started: list[Execution] = []
    while heap:
        *_, queue = heapq.heappop(heap)
        execution = queue.first_that_may_start()
        if execution is None:
            continue
        started.append(execution)
        room.take(execution)
        if queue.waiting:
            heapq.heappush(heap, queue.entry())
    return started


def starts(
    table: ReadableTable, executions: Iterable[Execution], jobs: Mapping[str, Job] | None = None
) -> Decision:
    """The starts of queued executions; `jobs` are entries of the catalog about to be in force."""
    taken = list(executions)
    return Decision(
        tuple(
            start_of(table, each, (jobs or {}).get(table.name_now(each.job_id))) for each in taken
        ),
        tuple(SpawnExecution(execution.id) for execution in taken),
    )


def is_held_back(table: ReadableTable, job_id: str, now_ms: int) -> bool:
    """Whether a new execution of the job would have to wait although a slot of the job is free:
    for a slot of a group, or because a queue is paused."""
    room = Room(table, now_ms, NOW)
    spec = room.spec(job_id)
    if spec is None:
        return False
    if room.is_paused(job_id, spec) or not room.has_slots(spec.groups):
        return True
    room.keep_for_overdue(spec.groups)
    return not room.has_slots(spec.groups)


def limited_until_ms(
    limit: StartLimitSpec | None, starts_ms: Iterable[int], now_ms: int
) -> int | None:
    """When the job may start again; None if it may now. Times that lie ahead are of before the
    clock was set back: how long ago they were is unknown, and they do not count."""
    if limit is None:
        return None
    within_ms = int(limit.within_s * 1000)
    recent = [at_ms for at_ms in starts_ms if now_ms - within_ms < at_ms <= now_ms]
    return recent[-limit.count] + within_ms if len(recent) >= limit.count else None


class Room:
    """What is free while one decision is made. `take` and `keep` note what it gives away."""

    def __init__(self, table: ReadableTable, now_ms: int, soon: Soon) -> None:
        self.table = table
        self.now_ms = now_ms
        self.soon = soon
        self._of_jobs: Counter[str] = Counter()
        self._of_groups: Counter[str] = Counter()

    def job(self, job_id: str) -> Job | None:
        return self.soon.jobs.get(job_id) or self.table.job(job_id)

    def spec(self, job_id: str) -> JobSpec | None:
        job = self.job(job_id)
        return job.spec if job is not None else None

    def busy(self, job_id: str) -> set[str]:
        """What holds a slot of the job."""
        freed = self.soon.freed
        return {e.id for e in self.table.in_slots(job_id) if freed is None or e.id != freed.id}

    def has_slot_of(self, job_id: str, spec: JobSpec | None, busy: int) -> bool:
        taken = self._of_jobs[job_id]
        if busy + taken >= (spec.max_running if spec is not None else 1):
            return False
        if spec is None or spec.start_limit is None:
            return True
        newest = (*self.table.queue_of(job_id).starts_ms, *([self.now_ms] * taken))
        return limited_until_ms(spec.start_limit, newest, self.now_ms) is None

    def has_slots(self, groups: Iterable[str]) -> bool:
        return all(self._is_free(group) for group in groups)

    def is_paused(self, job_id: str, spec: JobSpec | None) -> bool:
        soon, table = self.soon, self.table
        if job_id not in soon.resumed_jobs and table.queue_of(job_id).paused is not None:
            return True
        found = (table.group(name) for name in (spec.groups if spec is not None else ()))
        return any(
            group is not None and group.paused is not None and group.name not in soon.resumed_groups
            for group in found
        )

    def take(self, execution: Execution) -> None:
        """The execution gets its slots."""
        name = self.table.name_now(execution.job_id)
        self._of_jobs[name] += 1
        spec = self.spec(name) or self.table.spec_of(execution)
        self._of_groups.update(spec.groups if spec is not None else ())

    def keep(self, execution: Execution, groups: Iterable[str]) -> None:
        """Free slots of these groups are kept for one that waits for the others, if it is due."""
        if self.now_ms - execution.queued_ms >= OVERDUE_MS:
            self._of_groups.update(group for group in groups if self._is_free(group))

    def keep_for_overdue(self, groups: Iterable[str]) -> None:
        """The same for all that wait for these groups and could start otherwise."""
        found = (job_id for group in groups for job_id in self.table.lines.jobs_before(group))
        names = set(map(self.table.name_now, found))
        queues = (_JobQueue(self.table, job_id, self, is_low=False) for job_id in names)
        for *_, queue in sorted(queue.entry() for queue in queues if queue.waiting):
            queue.first_that_may_start()

    def _is_free(self, name: str) -> bool:
        group = self.table.group(name)
        limit = self.soon.limits.get(name, group.max_running if group is not None else None)
        if limit is None:
            return True  # never defined: the job that names it is faulty, and said to be
        freed = self.soon.freed
        held = len(self.table.in_group(name)) - (freed is not None and name in freed.groups)
        return held + self._of_groups[name] < limit


class _JobQueue:
    """What of one job waits and is due, in the order in which it starts."""

    def __init__(self, table: ReadableTable, job_id: str, room: Room, *, is_low: bool) -> None:
        self._room = room
        self._job_id = job_id
        self._busy = room.busy(job_id)
        is_not_to_start = unattended_spec(room.job(job_id)) is None
        is_doubted = table.doubt is not None  # then no moment is known to have come
        self.waiting = [
            each
            for each in table.queued(job_id)
            if each.id not in room.soon.without
            and each.replaces not in self._busy
            and is_due(each, room.now_ms)
            and not (is_low and each.replaces is None and each.previous is None)
            and not (is_delayed_start(each) and (is_doubted or is_not_to_start))
        ]
        known = room.spec(job_id)
        self._spec = known or (table.spec_of(self.waiting[0]) if self.waiting else None)

    def entry(self) -> tuple[bool, tuple[int, int, str], str, "_JobQueue"]:
        """Its rank among the jobs: that of the one that has waited longest."""
        spec = self._spec or JobSpec(command=())
        is_new = self.waiting[0].replaces is None
        return is_new, min(place_of(each, spec) for each in self.waiting), self._job_id, self

    def first_that_may_start(self) -> Execution | None:
        """The first that may start, taken out; None if none of them may."""
        room, spec = self._room, self._spec
        if not room.has_slot_of(self._job_id, spec, len(self._busy)):
            return None
        is_paused = room.is_paused(self._job_id, spec)
        groups = spec.groups if spec is not None else ()
        for execution in self.waiting:
            if is_paused and execution.replaces is None:
                continue
            if not room.has_slots(groups):
                room.keep(execution, groups)
                return None
            self.waiting.remove(execution)
            return execution
        return None
