"""The state machine of a supervised execution: single steps, and any order of inputs."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bus.commands import (
    ReportEnded,
    ReportLost,
    ReportProgress,
    ReportRunning,
    ReportSpawnFailed,
    ReportStopping,
    ReportUnknown,
)
from bus.health import HealthSpec
from bus.job_definition import JobSpec
from bus.model import (
    Execution,
    ExecutionStatus,
    ExitRecord,
    Progress,
    Reason,
    SecretRef,
    StopRequest,
)
from handlers.supervision import execution_actions as actions
from handlers.supervision import execution_inputs as inputs
from handlers.supervision.execution_actions import Timer
from handlers.supervision.execution_machine import GENERATIONS_MAX, ExecutionMachine, Phase
from handlers.supervision.record import CheckResult, ShimState
from handlers.supervision.stop_delivery import WAKES_MAX
from tests.processes import ordered_to_stop, seen, sh, starting

ID = "01a2261c-0000-4000-8000-000000000000"
NOW_MS = 1_800_000_000_000
SHIM, OTHER_SHIM = 70, 71
ENDS = (ReportEnded, ReportSpawnFailed, ReportLost)
EXIT = ExitRecord(ended_ms=NOW_MS, started_ms=NOW_MS - 5, exit_code=0)

ORDERS = [
    StopRequest(reason=Reason.USER, by="alice", at_ms=NOW_MS + n, grace_s=5.0 - n) for n in range(3)
]
LIMIT = StopRequest(reason=Reason.RUN_TIMEOUT, by="system:limits", at_ms=NOW_MS, grace_s=1.0)


def state(shim: int = SHIM, **fields: Any) -> ShimState:
    return ShimState(execution=ID, shim=shim, pid=shim + 1, **fields)


STARTED = state(started_ms=NOW_MS)
READY = state(started_ms=NOW_MS, ready_ms=NOW_MS, output_end=3, socket="/run/s")
STATES = [
    state(),
    state(OTHER_SHIM),
    STARTED,
    READY,
    state(started_ms=NOW_MS, progress=Progress(percent=50.0)),
    state(started_ms=NOW_MS, ready_ms=NOW_MS, stop=LIMIT, output_end=9),
    state(started_ms=NOW_MS, ready_ms=NOW_MS, check=CheckResult(number=3, exit_code=1)),
    state(started_ms=NOW_MS, exit=EXIT),
    state(exit=ExitRecord(ended_ms=NOW_MS, error="there is no room")),
]


class Bench:
    """One machine, and what came of its inputs."""

    def __init__(
        self, execution: Execution | None = None, spec: JobSpec | None = None, **more: Any
    ) -> None:
        self.machine = ExecutionMachine(execution or starting(ID), spec or sh("true"), **more)

    def take(self, *happened: inputs.Input) -> list[actions.Output]:
        """The outputs of the last one."""
        outputs: list[actions.Output] = []
        for each in happened:
            outputs = self.machine.take(each, NOW_MS)
        return outputs

    def running(self) -> "Bench":
        self.take(inputs.Wanted(), inputs.ShimForked(SHIM), inputs.ShimSent(SHIM, READY))
        return self


def kinds(outputs: Sequence[actions.Output]) -> list[type]:
    return [type(each) for each in outputs]


def test_a_start_asks_for_a_shim_and_reports_what_it_says_once() -> None:
    bench = Bench()
    assert bench.take(inputs.Wanted()) == [actions.AskSpawner(0)]
    assert bench.take(inputs.ShimForked(SHIM)) == []
    first = bench.take(inputs.ShimSent(SHIM, READY))
    assert kinds(first) == [actions.Wait, ReportRunning, actions.NoteGrowth]
    assert bench.take(inputs.ShimSent(SHIM, READY)) == []
    ended = bench.take(inputs.ShimSent(SHIM, msgspec.structs.replace(READY, exit=EXIT)))
    assert kinds(ended) == [actions.Forget, ReportEnded, actions.NoteGrowth]


def test_a_datagram_that_is_faster_than_the_spawner_counts_if_it_is_of_our_shim() -> None:
    for sender, expected in ((SHIM, [actions.Wait, ReportRunning, actions.NoteGrowth]), (9, [])):
        bench = Bench()
        bench.take(inputs.Wanted())
        assert bench.take(inputs.ShimSent(sender, READY)) == []
        assert kinds(bench.take(inputs.ShimForked(SHIM))) == expected


def test_a_datagram_of_another_process_says_nothing_about_an_execution() -> None:
    bench = Bench().running()
    exit_ = msgspec.structs.replace(READY, exit=EXIT)
    assert bench.take(inputs.ShimSent(OTHER_SHIM, exit_)) == []


def test_secrets_are_read_first_and_an_older_reading_asks_for_nothing() -> None:
    execution = msgspec.structs.replace(starting(ID), variables={"KEY": SecretRef(secret="key")})
    bench = Bench(execution)
    assert bench.take(inputs.Wanted()) == [actions.ReadProvisions(0)]
    assert bench.take(inputs.ProvisionsRead(0)) == [actions.AskSpawner(0)]
    never = inputs.FilesRead(inputs.NeverRan(1))
    assert bench.take(inputs.RequestLost(), never) == [actions.ReadProvisions(1)]
    assert bench.take(inputs.ProvisionsRead(0)) == []
    failed = bench.take(inputs.CallFailed(1, "the secret key is empty"))
    assert kinds(failed) == [actions.Forget, ReportSpawnFailed]
    assert bench.take(inputs.ProvisionsRead(1)) == []


def test_a_program_known_to_run_is_never_asked_for_again_whatever_the_files_say() -> None:
    """Also when the shim that was found had not yet written that the program runs."""
    bench = Bench(seen(ID))
    bench.take(inputs.FilesRead(inputs.Alive(state())))
    bench.take(inputs.ShimFollowed(state()))
    bench.take(inputs.ShimEnded())
    outputs = bench.take(inputs.FilesRead(inputs.NeverRan(1)))
    assert kinds(outputs) == [actions.UnfollowShim, actions.TakeOrphans]


def test_a_shim_that_dies_before_its_claim_is_replaced_a_few_times() -> None:
    bench = Bench()
    bench.take(inputs.Wanted())
    for generation in range(1, GENERATIONS_MAX + 1):
        bench.take(inputs.ShimForked(SHIM))
        assert bench.take(inputs.ShimEnded()) == [actions.ReadFiles()]
        assert bench.take(inputs.ShimEnded()) == []
        outputs = bench.take(inputs.FilesRead(inputs.NeverRan(generation)))
        assert outputs[-1] == actions.AskSpawner(generation)
    bench.take(inputs.ShimForked(SHIM), inputs.ShimEnded())
    over = bench.take(inputs.FilesRead(inputs.NeverRan(GENERATIONS_MAX + 1)))
    assert kinds(over) == [actions.Forget, ReportSpawnFailed]


def test_a_stop_between_two_requests_ends_it_without_a_run() -> None:
    bench = Bench()
    bench.take(inputs.Wanted(), inputs.StopOrdered(ORDERS[0]), inputs.RequestLost())
    outputs = bench.take(inputs.FilesRead(inputs.NeverRan(1)))
    assert outputs[1] == ReportEnded(
        execution_id=ID, exit=ExitRecord(ended_ms=NOW_MS, cause=Reason.USER)
    )


def test_a_sharper_order_is_written_after_the_one_that_is_being_written() -> None:
    bench = Bench().running()
    assert bench.take(inputs.StopOrdered(ORDERS[0])) == [actions.WriteControl(ORDERS[0])]
    assert bench.take(inputs.StopOrdered(ORDERS[1])) == []
    tried = inputs.ControlTried(ORDERS[0], is_written=True)
    assert bench.take(tried) == [actions.WriteControl(ORDERS[1])]
    tried = inputs.ControlTried(ORDERS[1], is_written=True)
    assert bench.take(tried) == [actions.WakeShim("/run/s", ORDERS[1])]


def test_an_order_that_cannot_be_written_is_sent_at_once_and_written_again() -> None:
    bench = Bench().running()
    bench.take(inputs.StopOrdered(ORDERS[0]))
    pauses = []
    for _ in range(3):
        wait, wake = bench.take(inputs.ControlTried(ORDERS[0], is_written=False))
        assert isinstance(wait, actions.Wait)
        assert wake == actions.WakeShim("/run/s", ORDERS[0])
        pauses.append(wait.delay_s)
        assert bench.take(inputs.TimePassed(Timer.WRITE)) == [actions.WriteControl(ORDERS[0])]
    assert pauses == sorted(set(pauses))
    bench.take(inputs.ControlTried(ORDERS[0], is_written=True))
    assert bench.take(inputs.TimePassed(Timer.WRITE)) == []


def test_a_shim_whose_socket_is_full_is_woken_again_and_not_for_ever() -> None:
    bench = Bench().running()
    bench.take(inputs.StopOrdered(ORDERS[0]))
    wakes = len(bench.take(inputs.ControlTried(ORDERS[0], is_written=True)))
    while bench.take(inputs.WakeRefused(ORDERS[0])):
        assert bench.take(inputs.TimePassed(Timer.WAKE)) == [actions.WakeShim("/run/s", ORDERS[0])]
        wakes += 1
    assert wakes == WAKES_MAX
    assert bench.take(inputs.WakeRefused(None)) == []


def test_orphans_get_the_order_in_force_also_that_of_a_limit() -> None:
    bench = Bench().running()
    orphaned = inputs.FilesRead(inputs.Orphaned(msgspec.structs.replace(READY, stop=LIMIT)))
    outputs = bench.take(inputs.ShimEnded(), orphaned)
    unfollow, report, take, order = outputs
    assert kinds([unfollow, report, take]) == [
        actions.UnfollowShim,
        ReportStopping,
        actions.TakeOrphans,
    ]
    assert order == actions.OrderOrphans(LIMIT)
    assert bench.take(inputs.StopOrdered(ORDERS[0])) == [actions.OrderOrphans(ORDERS[0])]
    assert kinds(bench.take(inputs.OrphansFound())) == [ReportUnknown]
    assert bench.take(inputs.OrphansFound()) == []
    survived = bench.take(inputs.OrphansSurvived((4, 5)))
    [ended] = [each for each in survived if isinstance(each, ReportEnded)]
    assert (ended.exit.cause, ended.exit.survivors) == (Reason.USER, (4, 5))


def test_an_end_that_a_dead_shim_sent_and_could_not_write_ends_its_orphans_once() -> None:
    bench = Bench().running()
    bench.take(inputs.ShimEnded(), inputs.FilesRead(inputs.Orphaned(READY)))
    late = msgspec.structs.replace(READY, exit=EXIT)
    assert bench.take(inputs.ShimSent(OTHER_SHIM, late)) == []
    assert kinds(bench.take(inputs.ShimSent(SHIM, late)))[:2] == [actions.Forget, ReportEnded]
    assert bench.take(inputs.OrphansGone()) == []


def test_an_execution_whose_shim_is_found_again_after_unknown_is_reported_as_running() -> None:
    unknown = msgspec.structs.replace(seen(ID), status=ExecutionStatus.UNKNOWN)
    bench = Bench(unknown)
    assert bench.take(inputs.FilesRead(inputs.Alive(READY))) == [actions.FollowShim(READY)]
    assert ReportRunning in kinds(bench.take(inputs.ShimFollowed(READY)))


def test_files_that_cannot_be_read_are_read_again_after_pauses_that_grow() -> None:
    bench = Bench(seen(ID))
    pauses = []
    for _ in range(4):
        [wait] = bench.take(inputs.FilesRead(inputs.Alive(None)))
        assert isinstance(wait, actions.Wait)
        pauses.append(wait.delay_s)
        assert bench.take(inputs.TimePassed(Timer.RECONCILE)) == [actions.ReadFiles()]
    assert pauses == sorted(set(pauses))


def test_a_start_that_the_service_died_of_is_not_made_again() -> None:
    bench = Bench(is_poison=True)
    outputs = bench.take(inputs.FilesRead(inputs.NeverRan(1)))
    assert kinds(outputs) == [actions.Forget, ReportSpawnFailed]


PROBED = sh("true", ready="tcp:80", health=HealthSpec(url="http://localhost/"))


def test_readiness_is_asked_for_once_and_said_until_the_shim_knows() -> None:
    bench = Bench(spec=PROBED)
    outputs = bench.take(inputs.Wanted(), inputs.ShimForked(SHIM), inputs.ShimSent(SHIM, STARTED))
    assert actions.ProbeReadiness() in outputs
    assert actions.ProbeReadiness() not in bench.take(inputs.ShimSent(SHIM, STARTED))
    assert bench.take(inputs.TimePassed(Timer.READY)) == []
    assert kinds(bench.take(inputs.ReadinessSeen())) == [actions.SayReady, actions.Wait]
    assert bench.take(inputs.ReadinessSeen()) == []
    assert kinds(bench.take(inputs.TimePassed(Timer.READY))) == [actions.SayReady, actions.Wait]
    outputs = bench.take(inputs.ShimSent(SHIM, READY))
    assert [each for each in kinds(outputs) if each in (ReportRunning, actions.CheckHealth)] == [
        ReportRunning,
        actions.CheckHealth,
    ]
    assert bench.take(inputs.TimePassed(Timer.READY), inputs.ReadinessSeen()) == []


def test_an_adopted_program_is_probed_or_checked_by_what_its_shim_says() -> None:
    bench = Bench(seen(ID), PROBED)
    bench.take(inputs.FilesRead(inputs.Alive(STARTED)))
    assert actions.ProbeReadiness() in bench.take(inputs.ShimFollowed(STARTED))
    bench = Bench(seen(ID), PROBED)
    bench.take(inputs.FilesRead(inputs.Alive(READY)))
    outputs = bench.take(inputs.ShimFollowed(READY))
    assert actions.CheckHealth(NOW_MS) in outputs
    assert actions.ProbeReadiness() not in outputs
    result = CheckResult(number=4, exit_code=0)
    said = msgspec.structs.replace(READY, check=result)
    assert bench.take(inputs.ShimSent(SHIM, said)) == [actions.NoteCheck(result)]
    assert bench.take(inputs.ShimSent(SHIM, said)) == []


# -- any order

executions = st.builds(
    lambda base, order, variables: msgspec.structs.replace(base, stop=order, variables=variables),
    st.sampled_from(
        [
            starting(ID),
            seen(ID),
            ordered_to_stop(seen(ID)),
            msgspec.structs.replace(seen(ID), status=ExecutionStatus.UNKNOWN),
        ]
    ),
    st.sampled_from([None, *ORDERS]),
    st.sampled_from([{}, {"KEY": SecretRef(secret="key")}]),
)
states = st.sampled_from(STATES)
orders = st.sampled_from(ORDERS)
senders = st.sampled_from([SHIM, OTHER_SHIM])
certain = st.one_of(
    st.builds(inputs.Ended, st.just(EXIT)),
    st.builds(inputs.Alive, st.none() | states),
    st.builds(inputs.Orphaned, states),
    st.builds(inputs.Elsewhere, st.none() | states),
    st.builds(inputs.Gone, st.sampled_from([Reason.NO_EXIT_RECORD, Reason.HOST_RESTART])),
)
generations = st.integers(0, GENERATIONS_MAX + 2)
anything = st.one_of(
    st.builds(inputs.Wanted),
    st.builds(inputs.FilesRead, certain | st.builds(inputs.NeverRan, generations)),
    st.builds(inputs.ProvisionsRead, generations),
    st.builds(inputs.CallFailed, generations, st.just("no")),
    st.builds(inputs.ShimForked, senders),
    st.builds(inputs.ForkRefused, st.just("no")),
    st.builds(inputs.RequestLost),
    st.builds(inputs.ShimSent, senders, states),
    st.builds(inputs.ShimFollowed, states),
    st.builds(inputs.ShimMissing),
    st.builds(inputs.ShimEnded),
    st.builds(inputs.Looked, st.none() | states, st.booleans(), st.booleans()),
    st.builds(inputs.StopOrdered, orders),
    st.builds(inputs.ControlTried, orders, st.booleans()),
    st.builds(inputs.WakeRefused, st.none() | orders),
    st.builds(inputs.ProgressWritten),
    st.builds(inputs.ReadinessSeen),
    st.builds(inputs.OrphansFound),
    st.builds(inputs.OrphansGone),
    st.builds(inputs.OrphansSurvived, st.just((5,))),
    st.builds(inputs.TimePassed, st.sampled_from(list(Timer))),
)


class Judge:
    """Sees each output and says what must never be."""

    def __init__(self, machine: ExecutionMachine) -> None:
        self.machine = machine
        self.has_ended = self.is_orphaned = self.is_unknown = False
        self.running = 0
        self.newest: dict[type, Any] = {}
        self.asked: list[type] = []

    @property
    def has_shim(self) -> bool:
        """Or will have, or may have."""
        return not (self.has_ended or self.is_orphaned)

    def take(self, happened: inputs.Input) -> list[actions.Output]:
        had_run, was_over = self.machine.has_run, self.has_ended
        outputs = self.machine.take(happened, NOW_MS)
        assert not (was_over and outputs), (happened, outputs)
        assert self.machine.has_run or not had_run
        for output in outputs:
            self._judge(output, had_run=had_run)
        assert self.has_ended == (self.machine.phase is Phase.ENDED)
        return outputs

    def _judge(self, output: actions.Output, *, had_run: bool) -> None:
        match output:
            case actions.AskSpawner():
                assert self.has_shim, output
                assert not had_run, output
            case actions.WriteControl() | actions.WakeShim() | actions.ReadFiles():
                assert self.has_shim, output
            case actions.ProbeReadiness() | actions.CheckHealth():
                assert self.has_shim, output
                assert type(output) not in self.asked, output
                self.asked.append(type(output))
            case actions.SayReady():
                assert self.has_shim, output
                assert actions.ProbeReadiness in self.asked
            case actions.TakeOrphans():
                assert self.has_shim, output
                self.is_orphaned = True
            case actions.OrderOrphans():
                assert self.is_orphaned
            case ReportEnded() | ReportSpawnFailed() | ReportLost():
                assert not self.has_ended, output
                self.has_ended = True
            case ReportUnknown():
                assert not self.is_unknown
                self.is_unknown = True
            case ReportRunning():
                self.running += 1
                assert not self.is_unknown
                assert self.running == 1
            case ReportProgress() | ReportStopping():
                assert not self.is_unknown
                assert self.newest.get(type(output)) != output, "reported twice"
                self.newest[type(output)] = output
            case _:
                pass


@settings(max_examples=150, deadline=None)
@given(execution=executions, happened=st.lists(anything, max_size=30), has_spec=st.booleans())
def test_any_inputs_in_any_order_end_it_at_most_once_and_never_run_it_twice(
    execution: Execution, happened: list[inputs.Input], has_spec: bool
) -> None:
    judge = Judge(ExecutionMachine(execution, PROBED if has_spec else None))
    for each in happened:
        judge.take(each)


class Supervision(RuleBasedStateMachine):
    """A supervisor that answers what the machine asks for, in any order, late, or with bad news."""

    def __init__(self) -> None:
        super().__init__()
        self.judge = Judge(ExecutionMachine(starting(ID), PROBED))
        self.asked: list[actions.Output] = []
        self.timers: set[Timer] = set()
        self.generations: set[int] = set()
        self.written: StopRequest | None = None
        self.given_to_orphans: StopRequest | None = None
        self.ordered: StopRequest | None = None

    @initialize(execution=executions, is_new=st.booleans(), finding=certain)
    def begin(self, execution: Execution, is_new: bool, finding: inputs.Finding) -> None:
        self.judge = Judge(ExecutionMachine(execution, PROBED))
        self.feed(inputs.Wanted() if is_new else inputs.FilesRead(finding))

    def feed(self, happened: inputs.Input) -> None:
        for output in self.judge.take(happened):
            match output:
                case actions.ReadFiles() | actions.WriteControl():
                    assert not self.asks(type(output)), "two at once"
                    self.asked.append(output)
                case actions.AskSpawner(generation=generation):
                    assert generation not in self.generations
                    self.generations.add(generation)
                    self.asked.append(output)
                case actions.ReadProvisions() | actions.FollowShim():
                    self.asked.append(output)
                case actions.OrderOrphans(order=order):
                    self.given_to_orphans = order
                case actions.Wait(timer=timer):
                    self.timers.add(timer)
                case actions.Forget():
                    self.timers.clear()
                case _:
                    pass

    def asks(self, kind: type[actions.Output]) -> bool:
        return any(isinstance(each, kind) for each in self.asked)

    def answered(self, kind: Any) -> Any:
        found = next(each for each in self.asked if isinstance(each, kind))
        self.asked.remove(found)
        return found

    def next_generation(self) -> int:
        return max(self.generations, default=0) + 1

    @precondition(lambda self: self.asks(actions.ReadFiles))
    @rule(finding=st.none() | certain)
    def files_are_read(self, finding: inputs.Finding | None) -> None:
        self.answered(actions.ReadFiles)
        self.feed(inputs.FilesRead(finding or inputs.NeverRan(self.next_generation())))

    @precondition(lambda self: self.asks(actions.ReadProvisions))
    @rule(is_there=st.booleans())
    def secrets_are_read(self, is_there: bool) -> None:
        generation = self.answered(actions.ReadProvisions).generation
        read = inputs.ProvisionsRead(generation)
        self.feed(read if is_there else inputs.CallFailed(generation, "no"))

    @precondition(lambda self: self.asks(actions.AskSpawner))
    @rule(
        answer=st.sampled_from(
            [inputs.ShimForked(SHIM), inputs.ForkRefused("no"), inputs.RequestLost()]
        )
    )
    def the_spawner_answers_or_dies(self, answer: inputs.Input) -> None:
        self.answered(actions.AskSpawner)
        self.feed(answer)

    @precondition(lambda self: self.asks(actions.FollowShim))
    @rule(is_there=st.booleans())
    def the_shim_is_looked_for(self, is_there: bool) -> None:
        found = self.answered(actions.FollowShim).state
        self.feed(inputs.ShimFollowed(found) if is_there else inputs.ShimMissing())

    @precondition(lambda self: self.asks(actions.WriteControl))
    @rule(is_written=st.booleans())
    def control_is_written(self, is_written: bool) -> None:
        order = self.answered(actions.WriteControl).order
        if is_written:
            self.written = order
        self.feed(inputs.ControlTried(order, is_written))

    @precondition(lambda self: self.timers)
    @rule(data=st.data())
    def time_passes(self, data: st.DataObject) -> None:
        timer = data.draw(st.sampled_from(sorted(self.timers, key=lambda each: each.value)))
        self.timers.remove(timer)
        self.feed(inputs.TimePassed(timer))

    @rule(order=orders)
    def a_stop_is_ordered(self, order: StopRequest) -> None:
        self.ordered, self.written = order, None
        self.feed(inputs.StopOrdered(order))

    @rule(sender=senders, said=states)
    def a_shim_sends(self, sender: int, said: ShimState) -> None:
        self.feed(inputs.ShimSent(sender, said))

    @rule(
        said=st.none() | states,
        has_exit=st.booleans(),
        is_followed=st.booleans(),
    )
    def it_is_looked_at(self, said: ShimState | None, has_exit: bool, is_followed: bool) -> None:
        self.feed(inputs.Looked(said, has_exit, is_followed))

    @rule(
        happened=st.sampled_from(
            [
                inputs.ShimEnded(),
                inputs.ProgressWritten(),
                inputs.ReadinessSeen(),
                inputs.OrphansFound(),
            ]
        )
    )
    def something_happens(self, happened: inputs.Input) -> None:
        self.feed(happened)

    @rule(order=orders)
    def the_socket_is_full(self, order: StopRequest) -> None:
        self.feed(inputs.WakeRefused(order))

    @precondition(lambda self: self.judge.is_orphaned)
    @rule(happened=st.sampled_from([inputs.OrphansGone(), inputs.OrphansSurvived((3,))]))
    def the_tree_is_over(self, happened: inputs.Input) -> None:
        self.feed(happened)

    @invariant()
    def a_stop_order_is_not_lost(self) -> None:
        assert (
            self.ordered is None
            or self.judge.has_ended
            or self.ordered in (self.written, self.given_to_orphans)
            or self.asks(actions.WriteControl)
            or Timer.WRITE in self.timers
        )

    @invariant()
    def what_is_in_doubt_will_be_decided(self) -> None:
        assert (
            self.judge.machine.phase is not Phase.IN_DOUBT
            or self.asks(actions.ReadFiles)
            or self.asks(actions.FollowShim)
            or Timer.RECONCILE in self.timers
        )

    def teardown(self) -> None:
        """When all that was asked for is answered well, the newest order is where it belongs."""
        for answer in self.good_answers():
            self.feed(answer)
        if self.ordered is not None and not self.judge.has_ended:
            assert self.ordered in (self.written, self.given_to_orphans)

    def good_answers(self) -> Iterator[inputs.Input]:
        for _ in range(20):
            if self.asks(actions.WriteControl):
                self.written = self.answered(actions.WriteControl).order
                assert self.written is not None
                yield inputs.ControlTried(self.written, is_written=True)
            elif Timer.WRITE in self.timers:
                self.timers.remove(Timer.WRITE)
                yield inputs.TimePassed(Timer.WRITE)
            else:
                return


def test_no_order_is_lost_and_no_doubt_left_whatever_answers_come_and_when() -> None:
    run_state_machine_as_test(
        Supervision,
        settings=settings(max_examples=80, stateful_step_count=30, deadline=None),
    )
