"""How an execution ended, in the words that all interfaces use. Pure.

The command line, the page, events and records use these sentences, so that people need not derive
them from a state, a reason, a code and a signal, which can say different things: a program that was
ended by its time limit may have exited with 0.
"""

import signal

from bus.model import Execution, ExecutionStatus, Reason

SHOWN_MAX = 10
CODE_FAILED = 1
CODE_TIMED_OUT = 124
"""As timeout(1) has it."""


def ending(execution: Execution) -> str:
    """A sentence without its full stop, e.g. `failed: exit code 3`; empty until it has ended."""
    match execution.status:
        case ExecutionStatus.SUCCEEDED:
            return "succeeded" + (f": {_exit(execution)}" if execution.exit_code else "")
        case ExecutionStatus.FAILED:
            return f"failed: {_failure(execution)}"
        case ExecutionStatus.TIMED_OUT:
            return _timeout(execution)
        case ExecutionStatus.STOPPED:
            return _stopped(execution)
        case ExecutionStatus.CANCELLED:
            return "cancelled while it waited" + _CANCELLED.get(execution.reason, "")
        case ExecutionStatus.SKIPPED:
            return "skipped" + _SKIPPED.get(execution.reason, "") + _why(execution)
        case ExecutionStatus.LOST:
            return "lost: how it ended is unknown" + _LOST.get(execution.reason, "")
        case _:
            return ""


def exit_code_of(status: str, exit_code: int | None, number: int | None) -> int:
    """The code of a process that ends as the execution did: 0 only for one that succeeded.

    Its own code where it has one, 128 + n for a signal, 124 for a time limit, else 1.
    """
    if status == ExecutionStatus.SUCCEEDED:
        return exit_code or 0
    if status == ExecutionStatus.TIMED_OUT:
        return CODE_TIMED_OUT
    return exit_code or (128 + number if number else CODE_FAILED)


def duration(seconds: float) -> str:
    """E.g. `0.3 s`, `45 s`, `30 min`, `1 h 5 min`."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return _both(whole // 60, "min", whole % 60, "s")
    if whole < 86_400:
        return _both(whole // 3600, "h", whole % 3600 // 60, "min")
    return _both(whole // 86_400, "d", whole % 86_400 // 3600, "h")


_CANCELLED: dict[Reason | None, str] = {
    Reason.SUPERSEDED: ": a later stop, start or restart overtook it",
    Reason.EXPIRED: ": it expired before it could start",
}
_SKIPPED: dict[Reason | None, str] = {
    Reason.OVERLAP: ": another execution was running",
    Reason.MISSED: ": its time had passed",
    Reason.DISABLED: ": the job was disabled or removed",
}
_LOST: dict[Reason | None, str] = {
    Reason.HOST_RESTART: " since the machine restarted",
    Reason.NO_EXIT_RECORD: ": what watched it left no record",
    Reason.NODE_LOST: " since its node was lost",
}
_ORDERED: dict[Reason | None, str] = {
    Reason.POLICY: ": a policy of the job asked for it",
    Reason.REPLACED: ": another execution took its place",
    Reason.SHUTDOWN: ": the service was shutting down",
}


def _failure(execution: Execution) -> str:
    match execution.reason:
        case Reason.SPAWN_ERROR:
            return "could not start" + (f": {execution.error}" if execution.error else "")
        case Reason.STOP_INCOMPLETE:
            left = ", ".join(map(str, execution.survivors[:SHOWN_MAX]))
            what = "not all of it could be stopped" + (f", left are {left}" if left else "")
        case Reason.NOT_READY:
            what = f"it was not ready when it ended: {_exit(execution)}"
        case Reason.UNHEALTHY:
            said = execution.health.message if execution.health is not None else ""
            what = "it was not well" + (f": {said}" if said else "")
        case Reason.WATCHDOG:
            what = "it gave no sign of life in time (watchdog)"
        case Reason.OOM:
            what = "out of memory"
        case _:
            what = _exit(execution)
    return what + _why(execution)


def _timeout(execution: Execution) -> str:
    begin_ms = execution.start_ms
    end_ms = execution.stop.at_ms if execution.stop is not None else execution.end_ms
    passed = ""
    if begin_ms is not None and end_ms is not None:
        passed = f" after {duration((end_ms - begin_ms) / 1000)}"
    unready = " before it was ready" if execution.reason is Reason.START_TIMEOUT else ""
    return f"timed out{passed}{unready}{_why(execution)}"


def _stopped(execution: Execution) -> str:
    by = f" by {execution.stop.by}" if execution.stop is not None else ""
    return f"stopped{by}{_ORDERED.get(execution.reason, '')}{_why(execution)}"


def _why(execution: Execution) -> str:
    return f"; {execution.error}" if execution.error else ""


def _exit(execution: Execution) -> str:
    if execution.signal is not None:
        name = signal.strsignal(execution.signal)
        dumped = ", core dumped" if execution.core_dumped else ""
        return f"signal {execution.signal}" + (f" ({name.lower()})" if name else "") + dumped
    return f"exit code {execution.exit_code}" if execution.exit_code is not None else "no exit code"


def _both(many: int, unit: str, few: int, smaller: str) -> str:
    return f"{many} {unit}" + (f" {few} {smaller}" if few else "")
