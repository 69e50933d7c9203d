"""What follows when a program is found well or not well. Pure: no IO, no clock, no entropy.

It is on record as the state of a running execution. With `action = "restart"` the same decision
orders the end of one that is not well; when it has ended, `retries.follow_up` starts it again, by
the same delays and up to the same limit as after any other failure.
"""

from bus.commands import ReportHealth
from bus.events import AnyEvent, ExecutionHealth, ExecutionStopping
from bus.health import HealthAction, HealthStatus
from bus.model import ExecutionStatus, Reason, StopRequest
from handlers.decisions.decision import NOTHING, Context, Decision, StopExecution
from handlers.decisions.readable_table import ReadableTable
from handlers.decisions.stop_orders import grace_of

HEALTH = "system:health"


def health(table: ReadableTable, report: ReportHealth, context: Context) -> Decision:
    execution = table.execution(report.execution_id)
    if execution is None or execution.status is not ExecutionStatus.RUNNING:
        return NOTHING  # what is being stopped may well not answer
    before = execution.health
    if before is not None and before.status is report.status:
        return NOTHING
    events: list[AnyEvent] = [
        ExecutionHealth(execution_id=execution.id, status=report.status, message=report.message)
    ]
    spec = table.spec(execution.job_id, execution.revision)
    action = spec.health.action if spec is not None and spec.health is not None else None
    if report.status is HealthStatus.HEALTHY or action is not HealthAction.RESTART:
        return Decision(tuple(events))
    order = StopRequest(
        reason=Reason.UNHEALTHY,
        by=HEALTH,
        at_ms=context.now_ms,
        grace_s=grace_of(table, execution),
    )
    events.append(ExecutionStopping(execution_id=execution.id, stop=order))
    return Decision(tuple(events), (StopExecution(execution.id),))
