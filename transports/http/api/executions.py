"""`/executions`: list, look at, stop, run again, forget."""

from collections.abc import Iterable

import msgspec
from aiohttp import web

from bus.commands import Command, DeleteExecution
from bus.model import Execution, ExecutionStatus
from bus.views import ExecutionView, execution_view
from transports.http.access.caller import principal_of
from transports.http.access.visibility import Visibility, visible_execution
from transports.http.api import bodies
from transports.http.api.command_bodies import decode_command
from transports.http.api.longpoll import LongPoll
from transports.http.api.publishing import Publishing
from transports.http.ports import GatewayPorts
from transports.http.web.answers import conditional
from transports.http.web.body import Fields, read_fields, refuse_unknown
from transports.http.web.operation import JSON, PUBLISH, READ, Handler, Operation, Parameter
from transports.http.web.paging import Cursors, Page, Place, page_response
from transports.http.web.parameters import (
    BEGINNING,
    CURSOR,
    IF_NONE_MATCH,
    JOB,
    KEY,
    LIMIT,
    LONG_POLL,
    USER,
    WAIT,
    id_of,
    several,
)
from transports.http.web.problems import Problem, bad_parameter
from transports.http.web.query import Query

_STATUSES = tuple(status.value for status in ExecutionStatus)


class ExecutionRoutes:
    def __init__(
        self,
        ports: GatewayPorts,
        publishing: Publishing,
        visibility: Visibility,
        polls: LongPoll,
    ) -> None:
        self._ports = ports
        self._publishing = publishing
        self._polls = polls
        self._visibility = visibility
        self._cursors = Cursors(ports.secret)

    async def list(self, request: web.Request) -> web.Response:
        query = Query(request)
        begins = query.beginning_of_id("id")
        principal = principal_of(request)
        jobs, users, statuses = query.texts("job"), query.texts("user"), query.texts("status")
        names: set[str] = set()
        if statuses.difference(_STATUSES):
            raise bad_parameter("status", f"must be one of {', '.join(_STATUSES)}")

        def wanted(execution: Execution) -> bool:
            return (
                execution.id.startswith(begins)
                and (not jobs or execution.job_id in names)
                and (not users or execution.user_id in users)
                and (not statuses or execution.status in statuses)
                and self._visibility.of_execution(principal, execution)
            )

        after = self._cursors.parse(query.text("cursor"))
        limit = query.number("limit", low=1, high=500) or 50

        def respond() -> web.Response:
            nonlocal names
            names = {name for job in jobs for name in self._ports.table.names_of(job)}
            page = Page.of(
                self._newest_first(jobs),
                wanted,
                key=lambda execution: Place(execution.queued_ms, execution.id),
                after=after,
                limit=limit,
            )
            items = [execution_body(self._ports, execution) for execution in page.items]
            following = self._cursors.text(page.next) if page.next is not None else None
            return page_response(request, items, following, self._ports.feed)

        return await self._polls.answer(request, respond)

    async def show(self, request: web.Request) -> web.Response:
        Query(request)

        def respond() -> web.Response:
            execution = visible_execution(request, self._visibility)
            return conditional(request, execution_body(self._ports, execution))

        return await self._polls.answer(request, respond)

    async def stop(self, request: web.Request) -> web.Response:
        Query(request)
        execution = visible_execution(request, self._visibility)
        fields = await read_fields(request, empty=True)
        if "command" in fields or "jobId" in fields or "executionId" in fields:
            raise Problem(422, "validation", "the path says what to stop; send graceS and kill")
        return await self._published(request, _named("stop", execution, fields))

    async def retry(self, request: web.Request) -> web.Response:
        """The job of an ended execution is started again with its variables."""
        Query(request)
        execution = visible_execution(request, self._visibility)
        fields = await read_fields(request, empty=True)
        refuse_unknown(fields, ("notBefore",))
        return await self._published(request, _named("retry", execution, fields))

    async def delete(self, request: web.Request) -> web.Response:
        """An ended execution is forgotten, its output removed."""
        Query(request)
        execution = visible_execution(request, self._visibility)
        refuse_unknown(await read_fields(request, empty=True), ())
        return await self._published(request, DeleteExecution(execution_id=execution.id))

    async def _published(self, request: web.Request, command: Command) -> web.Response:
        receipt = await self._publishing.publish(request, command)
        return await self._publishing.answer(request, receipt)

    def _newest_first(self, jobs: frozenset[str]) -> Iterable[Execution]:
        """The fewest executions that hold all of `jobs`."""
        if len(jobs) == 1:
            return self._ports.table.executions_of(next(iter(jobs)))
        return self._ports.table.executions()


def _named(word: str, execution: Execution, fields: Fields) -> Command:
    """The command about the execution that the path names; the rest of it stands in the body."""
    named = {
        "command": msgspec.Raw(msgspec.json.encode(word)),
        "executionId": msgspec.Raw(msgspec.json.encode(execution.id)),
    }
    return decode_command(fields | named, ())


def execution_body(ports: GatewayPorts, execution: Execution) -> dict[str, object]:
    """An execution as it is answered, with its links."""
    view = execution_view(execution, ports.waiting_for(execution))
    names = zip(ExecutionView.__struct_fields__, view.__struct_encode_fields__, strict=True)
    at = f"/api/v1/executions/{execution.id}"
    links = {"self": at, "output": f"{at}/output", "stream": f"{at}/stream"}
    return {wire: getattr(view, name) for name, wire in names} | {"links": links}


def _order(
    method: str, path: str, id: str, handler: Handler, summary: str, body: type
) -> Operation:
    return Operation(
        method=method,
        path=path,
        id=id,
        handler=handler,
        summary=summary,
        parameters=(id_of("execution"), WAIT, KEY),
        body=((JSON, body),),
        body_required=False,
        answers=bodies.PUBLISHED,
        refuses=PUBLISH,
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/v1/executions",
        id="listExecutions",
        handler=ExecutionRoutes.list,
        summary="The executions that you may see, newest first",
        parameters=(
            BEGINNING,
            JOB,
            USER,
            Parameter(name="status", about="States; any will do.", type=several(ExecutionStatus)),
            LIMIT,
            CURSOR,
            IF_NONE_MATCH,
        ),
        answers={200: ((JSON, bodies.ExecutionPage),), 304: ()},
        refuses=READ,
    ),
    Operation(
        method="GET",
        path="/api/v1/executions/{id}",
        id="getExecution",
        handler=ExecutionRoutes.show,
        summary="One execution",
        parameters=(id_of("execution"), *LONG_POLL),
        answers={200: ((JSON, bodies.Execution),), 304: ()},
        refuses=READ | {404},
    ),
    _order(
        "POST",
        "/api/v1/executions/{id}/stop",
        "stopExecution",
        ExecutionRoutes.stop,
        "Stop it",
        bodies.StopOptions,
    ),
    _order(
        "POST",
        "/api/v1/executions/{id}/retry",
        "retryExecution",
        ExecutionRoutes.retry,
        "Start the job of an ended one again, with its variables",
        bodies.RetryOptions,
    ),
    _order(
        "DELETE",
        "/api/v1/executions/{id}",
        "deleteExecution",
        ExecutionRoutes.delete,
        "Forget an ended one",
        bodies.Empty,
    ),
)
