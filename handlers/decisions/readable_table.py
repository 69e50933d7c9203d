"""The job table as decisions see it: its maps and what can be asked of them. No IO, no clock.

Nothing here changes it; that is `handlers.decisions.table`, and only the owner and a replay do it.
"""

from collections.abc import Iterable, Iterator, Mapping
from heapq import merge

from bus.groups import Group, JobQueue
from bus.job_definition import Job, JobSpec, RolesSpec
from bus.model import HOLDS_SLOT, CommandRecord, Execution, ForgottenCommand, Maintenance
from bus.schedules import ClockDoubt, ScheduleState
from bus.views import GroupView, group_view
from handlers.decisions.kept_commands import Holdings
from handlers.decisions.lines import Lines
from handlers.decisions.remembered import Remembered


class ReadableTable:
    """Implements `bus.ports.TableReader`, together with `JobTable`; the records it gives out are
    frozen. Only `JobTable`, which takes events in, writes its maps."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._specs: dict[tuple[str, str], JobSpec] = {}
        self._executions: dict[str, Execution] = {}
        self._commands: dict[str, CommandRecord] = {}
        self.remembered = Remembered()
        # Ended commands in the table: whose ids are to be remembered, and those without an effect.
        self.with_effect = Holdings()
        self.without_effect = Holdings()
        self.horizon_ms = 0
        """As it was recorded; see `horizon_at`."""
        self.maintenance: Maintenance | None = None
        self.doubt: ClockDoubt | None = None
        """Why nothing is decided of schedules, if it is not."""
        # Of removed jobs too: a definition that is saved again may be gone for a moment.
        self._schedules: dict[str, dict[str, ScheduleState]] = {}
        self._stopped_ns: dict[str, int] = {}
        # Of removed jobs: what they hid stays hidden while their executions are shown.
        self._last_roles: dict[str, RolesSpec] = {}
        # Ways to executions, by their job, and from these to the commands that wait for them.
        self._by_job: dict[str, dict[str, None]] = {}
        self._live: dict[str, None] = {}
        self._live_by_job: dict[str, dict[str, None]] = {}
        self._queues: dict[str, list[str]] = {}
        self._groups: dict[str, Group] = {}
        # Ways from groups to what holds their slots, and to what waits for them.
        self._holders: dict[str, dict[str, None]] = {}
        self.lines = Lines()
        # Of removed jobs, until they are back: a pause and the newest starts.
        self._last_queues: dict[str, JobQueue] = {}
        # The clock that queues go by, and what the machine's said when it was last moved.
        self._arrival_ms = self._arrived_at_ms = 0
        self._waiting: dict[str, dict[str, None]] = {}
        # Of former names of jobs, those that they have now: as the definitions in force say.
        self._renamed: dict[str, str] = {}

    def job(self, job_id: str) -> Job | None:
        return self._jobs.get(job_id)

    def jobs(self) -> Iterable[Job]:
        return [self._jobs[job_id] for job_id in sorted(self._jobs)]

    def name_now(self, job_id: str) -> str:
        """The name that the job has now, if it was renamed; else the same."""
        return self._renamed.get(job_id, job_id) if job_id not in self._jobs else job_id

    def names_of(self, job_id: str) -> tuple[str, ...]:
        """The name of a job with those that it had before, under which its history is."""
        job = self._jobs.get(job_id)
        if job is None or job.spec is None or not job.spec.formerly:
            return (job_id,)
        return (job_id, *(name for name in job.spec.formerly if self.name_now(name) == job_id))

    def roles(self, job_id: str) -> RolesSpec | None:
        job = self._jobs.get(self.name_now(job_id))
        if job is not None and job.spec is not None:
            return job.spec.roles
        return self._last_roles.get(job_id)

    def is_seen_with(self, job_id: str, other: str) -> bool:
        """Whether everybody who may view the job may view the other one, by the lists of both."""
        if job_id == other:
            return True
        roles, of_other = self.roles(job_id), self.roles(other)
        view = roles.view if roles is not None else None
        view_of_other = of_other.view if of_other is not None else None
        if view is None or view_of_other is None:
            return view is view_of_other
        return set(view) <= set(view_of_other)

    def schedules_of(self, job_id: str) -> Mapping[str, ScheduleState]:
        """What is known of the job's schedules, by name; of those that it had, too."""
        return self._schedules.get(job_id, {})

    def schedules(self) -> Iterator[tuple[str, str, ScheduleState]]:
        """All of them, with job and name."""
        for job_id, states in self._schedules.items():
            for name, state in states.items():
                yield job_id, name, state

    def execution(self, execution_id: str) -> Execution | None:
        return self._executions.get(execution_id)

    def executions(self) -> Iterator[Execution]:
        return reversed(self._executions.values())

    def executions_of(self, job_id: str) -> Iterator[Execution]:
        parts = [
            (self._executions[i] for i in reversed(self._by_job.get(name, {})))
            for name in self.names_of(job_id)
        ]
        return parts[0] if len(parts) == 1 else merge(*parts, key=_age, reverse=True)

    def live_executions(self) -> Iterable[Execution]:
        return [self._executions[i] for i in self._live]

    def command(self, command_id: str) -> CommandRecord | None:
        return self._commands.get(command_id)

    def forgotten(self, command_id: str) -> ForgottenCommand | None:
        return self.remembered.find(command_id)

    def ids_of(self, user_id: str) -> int:
        """How many commands with an effect of this principal are known, forgotten ones too."""
        return self.with_effect.of(user_id).count + self.remembered.count_of(user_id)

    @property
    def ids_in_all(self) -> int:
        """The same of all."""
        return self.with_effect.in_all.count + len(self.remembered)

    def horizon_at(self, now_ms: int) -> int:
        """Commands submitted then or before may be forgotten ones.

        One that lies ahead was left by a clock that did: it says nothing.
        """
        return self.horizon_ms if self.horizon_ms <= now_ms else 0

    def commands(self) -> Iterator[CommandRecord]:
        return reversed(self._commands.values())

    def unfinished_commands(self) -> list[CommandRecord]:
        """Commands that wait for an execution."""
        ids = {i for waiting in self._waiting.values() for i in waiting}
        return [self._commands[i] for i in ids]

    def live_of(self, job_id: str) -> list[Execution]:
        """The job's executions that are not final, oldest first."""
        names = self.names_of(job_id)
        found = [self._executions[i] for name in names for i in self._live_by_job.get(name, ())]
        return found if len(names) == 1 else sorted(found, key=_age)

    def in_slots(self, job_id: str) -> list[Execution]:
        """The executions that hold one of the job's slots, oldest first."""
        return [e for e in self.live_of(job_id) if e.status in HOLDS_SLOT]

    def group(self, name: str) -> Group | None:
        return self._groups.get(name)

    def groups(self) -> Iterable[Group]:
        return [self._groups[name] for name in sorted(self._groups)]

    def group_view(self, name: str) -> GroupView | None:
        """See `bus.ports.TableReader`."""
        group = self._groups.get(name)
        if group is None:
            return None
        return group_view(group, len(self._holders.get(name, ())), self.lines.length(name))

    def in_group(self, name: str) -> list[Execution]:
        """The executions that hold one of the group's slots, those that took it first before."""
        return [self._executions[i] for i in self._holders.get(name, ())]

    def is_used(self, group: str) -> bool:
        """Whether a job names the group, or something waits for it or holds a slot of it."""
        if group in self._holders or self.lines.length(group):
            return True
        return any(group in job.spec.groups for job in self._jobs.values() if job.spec)

    def queue_of(self, job_id: str) -> JobQueue:
        """What decides about the job's queue beside its definition."""
        job = self._jobs.get(self.name_now(job_id))
        return job.queue if job is not None else self._last_queues.get(job_id, JobQueue())

    def paused_jobs(self) -> list[str]:
        """Jobs whose queue is held, removed ones too."""
        held = [job.id for job in self._jobs.values() if job.queue.paused is not None]
        return held + [i for i, queue in self._last_queues.items() if queue.paused is not None]

    def waiting_jobs(self) -> list[str]:
        """Jobs of which something waits, under the names that they have now."""
        return list(dict.fromkeys(map(self.name_now, self._queues)))

    def spec_of(self, execution: Execution) -> JobSpec | None:
        """The definition that says when a queued execution may start: the one in force; of a job
        that was removed, its own."""
        job = self._jobs.get(self.name_now(execution.job_id))
        if job is not None and job.spec is not None:
            return job.spec
        return self.spec(execution.job_id, execution.revision)

    def slots_of(self, job_id: str) -> int:
        """How many executions of the job may run at a time; one if its definition is gone."""
        job = self._jobs.get(job_id)
        return job.spec.max_running if job is not None and job.spec is not None else 1

    def queued(self, job_id: str) -> list[Execution]:
        """The job's waiting executions in the order in which they will start."""
        former_first = reversed(self.names_of(job_id))
        return [self._executions[i] for name in former_first for i in self._queues.get(name, ())]

    def spec(self, job_id: str, revision: str) -> JobSpec | None:
        """The definition an execution was made with, which need not be in force any more."""
        found = self._specs.get((job_id, revision))
        return found or self._specs.get((self.name_now(job_id), revision))

    def stopped_ns(self, job_id: str) -> int:
        """When the newest stop of the whole job was accepted; 0 if there was none."""
        return self._stopped_ns.get(job_id, 0)

    @property
    def newest_stop_ns(self) -> int:
        """The largest of `stopped_ns`."""
        return max(self._stopped_ns.values(), default=0)

    def commands_waiting_for(self, execution_id: str) -> list[CommandRecord]:
        """Commands that are not final and wait for this execution to run or to end."""
        return [self._commands[i] for i in self._waiting.get(execution_id, ())]


def _age(execution: Execution) -> tuple[int, str]:
    return execution.queued_ms, execution.id
