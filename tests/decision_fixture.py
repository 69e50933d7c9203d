"""A table with the pure decisions around it, driven by hand: the owner without a disk."""

from collections.abc import Callable, Iterator
from itertools import count

from msgspec.structs import replace

from bus.commands import (
    ApplyCatalog,
    Command,
    Definition,
    Report,
    ReportEnded,
    ReportRunning,
)
from bus.envelope import SYSTEM, Envelope, seal
from bus.errors import ErrorCode, Refused
from bus.events import AnyEvent, Published
from bus.job_definition import JobSpec
from bus.model import CommandRecord, Execution, ExecutionStatus, ExitRecord, Principal, Reason
from bus.ports import Policy
from bus.schedules import Bar, ScheduleSpec
from handlers.decisions.chains import with_chains
from handlers.decisions.decision import Context, Decision, Effect
from handlers.decisions.refusals import refusal
from handlers.decisions.registry import decide
from handlers.decisions.table import JobTable
from tests.fakes import ManualClock

OPERATOR = Principal(user_id="olga", roles=("operator",), via="http")
VIEWER = Principal(user_id="vera", roles=("viewer",), via="http")
ROLELESS = Principal(user_id="sam", roles=(), via="http")


class Decider:
    """Every decision is applied at once; `events` and `effects` keep everything that came of it."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.table = JobTable()
        self.clock = ManualClock()
        self.policy = policy or Policy()
        self.events: list[AnyEvent] = []
        self.effects: list[Effect] = []
        self.log: list[Published] = []
        self.undecided: Callable[[str], Envelope | None] = lambda command_id: None
        self.bar: Callable[[str, ScheduleSpec, int], Bar | None] = lambda *_: None
        self._ids: Iterator[int] = count(1)

    def define(self, job_id: str = "Demo/Job", **settings: object) -> None:
        spec = JobSpec(command=("true",), **settings)  # type: ignore[arg-type]
        revision = f"r{next(self._ids)}"
        known = [
            Definition(job_id=j.id, spec=j.spec, revision=j.revision) for j in self.table.jobs()
        ]
        others = tuple(d for d in known if d.job_id != job_id)
        new = Definition(job_id=job_id, spec=spec, revision=revision)
        self.report(ApplyCatalog(definitions=(*others, new)))

    def rename(self, job_id: str, new_id: str) -> None:
        """The folder of the job was moved, and its definition says so."""
        known = {j.id: j for j in self.table.jobs()}
        spec = known.pop(job_id).spec
        assert spec is not None
        moved = Definition(
            job_id=new_id, spec=replace(spec, formerly=(job_id,)), revision=f"r{next(self._ids)}"
        )
        others = (Definition(job_id=j.id, spec=j.spec, revision=j.revision) for j in known.values())
        self.report(ApplyCatalog(definitions=(*others, moved)))

    def send(
        self,
        command: Command,
        principal: Principal = OPERATOR,
        *,
        expires_ms: int | None = None,
    ) -> CommandRecord:
        """What the owner makes of the command; refusals become records as they do there."""
        number = next(self._ids)
        envelope = seal(
            command,
            principal,
            now_ms=self.clock.now_ms(),
            command_id=f"00000000-0000-7000-8000-{number:012d}",
            expires_ms=expires_ms,
        )
        return self.take(envelope)

    def take(self, envelope: Envelope) -> CommandRecord:
        if envelope.poison:
            why = Refused(ErrorCode.POISON, envelope.poison)
            self._apply(refusal(self.table, envelope, why, self._context()), envelope)
            return self.command(envelope.id)
        try:
            decision = decide(self.table, envelope, self._context())
        except Refused as refused:
            decision = refusal(self.table, envelope, refused, self._context())
        self._apply(decision, envelope)
        return self.command(envelope.id)

    def check(self, envelope: Envelope) -> None:
        """Implements `bus.ports.Checker` as the owner does."""
        decide(self.table, envelope, self._context())

    def report(self, report: Report) -> list[AnyEvent]:
        envelope = Envelope(
            id="", command=report, principal=SYSTEM, submitted_ms=self.clock.now_ms()
        )
        before = len(self.events)
        self._apply(decide(self.table, envelope, self._context()), envelope)
        return self.events[before:]

    def runs(self, execution_id: str) -> None:
        self.report(ReportRunning(execution_id=execution_id, pid=1, started_ms=self.clock.now_ms()))

    def ends(
        self,
        execution_id: str,
        exit_code: int | None = 0,
        *,
        signal: int | None = None,
        cause: Reason | None = None,
        contained: bool = True,
    ) -> None:
        exit_ = ExitRecord(
            ended_ms=self.clock.now_ms(),
            started_ms=self.clock.now_ms(),
            exit_code=exit_code,
            signal=signal,
            cause=cause,
            contained=contained,
            survivors=() if contained else (4711,),
        )
        self.report(ReportEnded(execution_id=execution_id, exit=exit_))

    def command(self, command_id: str) -> CommandRecord:
        record = self.table.command(command_id)
        assert record is not None
        return record

    def execution(self, execution_id: str | None) -> Execution:
        assert execution_id is not None
        execution = self.table.execution(execution_id)
        assert execution is not None
        return execution

    def status(self, execution_id: str | None) -> ExecutionStatus:
        return self.execution(execution_id).status

    def _context(self) -> Context:
        return Context(
            self.clock.now_ms(),
            lambda: f"00000000-0000-7000-9000-{next(self._ids):012d}",
            self.policy,
            undecided=self.undecided,
            bar_of=self.bar,
        )

    def _apply(self, decision: Decision, envelope: Envelope) -> None:
        for part in with_chains(self.table, envelope.command, decision, self._context()):
            for event in part.events:
                published = Published(len(self.log) + 1, self.clock.now_ms(), event)
                self.table.apply(published)
                self.log.append(published)
                self.events.append(event)
            self.effects.extend(part.effects)
