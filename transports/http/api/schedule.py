"""`/schedule`: what runs by itself in the time to come, of all jobs."""

import heapq
from collections.abc import Iterable, Iterator
from typing import Annotated

from aiohttp import web
from msgspec import Meta

from bus.clock import from_rfc3339, rfc3339
from bus.model import Execution, ExecutionStatus, Principal
from bus.views import PlannedView, waits_until_ms
from transports.http.access.caller import principal_of
from transports.http.access.visibility import Visibility
from transports.http.api import bodies
from transports.http.ports import GatewayPorts
from transports.http.web.answers import json_response
from transports.http.web.operation import JSON, READ, Operation, Parameter
from transports.http.web.parameters import JOB
from transports.http.web.query import Query

HOURS = 24
HOURS_MAX = 366 * 24
ITEMS = 200
ITEMS_MAX = 1_000
_HOUR_MS = 3_600_000


class ScheduleRoutes:
    def __init__(self, ports: GatewayPorts, visibility: Visibility) -> None:
        self._ports = ports
        self._visibility = visibility

    async def list(self, request: web.Request) -> web.Response:
        query = Query(request)
        hours = query.number("hours", low=1, high=HOURS_MAX) or HOURS
        limit = query.number("limit", low=1, high=ITEMS_MAX) or ITEMS
        names = query.texts("job")
        principal = principal_of(request)
        jobs = [
            job
            for job in self._ports.table.jobs()
            if (not names or job.id in names) and self._visibility.of_job(principal, job)
        ]
        until_ms = self._ports.clock.now_ms() + hours * _HOUR_MS
        schedules = self._ports.schedules
        by_rule = await schedules.planned(jobs, until_ms, limit + 1) if schedules else []
        by_hand = self._delayed(principal, names, until_ms)
        found = list(heapq.merge(by_rule, sorted(by_hand, key=_moment), key=_moment))
        body = {
            "items": found[:limit],
            "until": rfc3339(until_ms),
            "more": len(found) > limit,
        }
        return json_response(body)

    def _delayed(
        self, principal: Principal, names: Iterable[str], until_ms: int
    ) -> Iterator[PlannedView]:
        """Starts that wait for a moment of their own."""
        for execution in self._ports.table.live_executions():
            if execution.status is not ExecutionStatus.QUEUED:
                continue
            at_ms = waits_until_ms(execution)
            if at_ms is None or at_ms > until_ms or (names and execution.job_id not in names):
                continue
            if self._visibility.of_execution(principal, execution):
                yield _planned(execution, at_ms)


def _planned(execution: Execution, at_ms: int) -> PlannedView:
    return PlannedView(
        job_id=execution.job_id,
        schedule=None,
        at=rfc3339(at_ms),
        starts=True,
        note=f"asked for by {execution.user_id}",
        execution_id=execution.id,
    )


def _moment(view: PlannedView) -> int:
    return from_rfc3339(view.at)


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/v1/schedule",
        id="getSchedule",
        handler=ScheduleRoutes.list,
        summary="What runs by itself in the next hours, of all jobs that you may see",
        parameters=(
            Parameter(
                name="hours",
                about="How far to look ahead; without it a day.",
                type=Annotated[int, Meta(ge=1, le=HOURS_MAX)],
            ),
            JOB,
            Parameter(
                name="limit",
                about="Items at most; without it 200.",
                type=Annotated[int, Meta(ge=1, le=ITEMS_MAX)],
            ),
        ),
        answers={200: ((JSON, bodies.Agenda),)},
        refuses=READ,
    ),
)
