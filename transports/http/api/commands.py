"""`/commands`: publish, look up, list, cancel."""

from collections.abc import Callable

from aiohttp import web

from bus.access import ADMIN
from bus.commands import CancelCommand, Command
from bus.envelope import canonical_uuid, waiting_record
from bus.model import CommandRecord, CommandStatus, Principal
from transports.http.access.caller import principal_of
from transports.http.access.visibility import Visibility
from transports.http.api import bodies
from transports.http.api.batch import Batches, is_batch
from transports.http.api.command_bodies import command_of_fields
from transports.http.api.longpoll import LongPoll
from transports.http.api.publishing import Publishing, command_body, request_of
from transports.http.ports import GatewayPorts
from transports.http.web.answers import conditional
from transports.http.web.body import read_fields, refuse_unknown
from transports.http.web.headers import preferred_wait_s
from transports.http.web.operation import JSON, NDJSON, PUBLISH, READ, Operation, Parameter
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
from transports.http.web.problems import Problem, bad_parameter, not_found
from transports.http.web.query import Query

_STATUSES = tuple(status.value for status in CommandStatus)


class CommandRoutes:
    def __init__(
        self,
        ports: GatewayPorts,
        publishing: Publishing,
        visibility: Visibility,
        polls: LongPoll,
        count: Callable[[Principal], None],
    ) -> None:
        self._ports = ports
        self._publishing = publishing
        self._batches = Batches(ports, publishing.id_of, count)
        self._polls = polls
        self._visibility = visibility
        self._cursors = Cursors(ports.secret)

    async def publish(self, request: web.Request) -> web.Response:
        Query(request)
        if is_batch(request):
            return await self._batches.publish(request)
        command, *beside = command_of_fields(
            await read_fields(request, most=request.client_max_size)
        )
        receipt = await self._publishing.publish(request, command, request_of(*beside))
        return await self._publishing.answer(request, receipt)

    async def list(self, request: web.Request) -> web.Response:
        query = Query(request)
        begins = query.beginning_of_id("id")
        principal = principal_of(request)
        jobs, users = query.texts("job"), query.texts("user")
        statuses = query.texts("status")
        if statuses.difference(_STATUSES):
            raise bad_parameter("status", f"must be one of {', '.join(_STATUSES)}")
        cursor = self._cursors.parse(query.text("cursor"))
        limit = query.number("limit", low=1, high=500) or 50

        def wanted(record: CommandRecord) -> bool:
            return (
                record.id.startswith(begins)
                and (not jobs or record.job_id in jobs)
                and (not users or record.user_id in users)
                and (not statuses or record.status in statuses)
                and self._visibility.of_command(principal, record)
            )

        page = Page.of(
            self._ports.table.commands(),
            wanted,
            key=lambda record: Place(record.submitted_ms, record.id),
            after=cursor,
            limit=limit,
        )
        items = [command_body(record) for record in page.items]
        following = self._cursors.text(page.next) if page.next is not None else None
        return page_response(request, items, following, self._ports.feed)

    async def show(self, request: web.Request) -> web.Response:
        """The command as it is; with `Prefer: wait` once it differs from what the caller holds, or
        without `If-None-Match`, once it has ended."""
        Query(request)
        record = self._visible(request)
        wait_s = preferred_wait_s(request, self._publishing.wait_s_max)
        if wait_s is None or "If-None-Match" in request.headers or record.is_final:
            return await self._polls.answer(request, lambda: self._shown(request))
        await self._publishing.ended_within(request, record.id, wait_s)
        response = self._shown(request)
        response.headers["Preference-Applied"] = f"wait={wait_s}"
        return response

    def _shown(self, request: web.Request) -> web.Response:
        return conditional(request, command_body(self._visible(request)))

    async def cancel(self, request: web.Request) -> web.Response:
        Query(request)
        refuse_unknown(await read_fields(request, empty=True), ())
        record = self._visible(request)
        receipt = await self._publishing.publish(request, CancelCommand(target_id=record.id))
        return await self._publishing.answer(request, receipt)

    def _visible(self, request: web.Request) -> CommandRecord:
        """The command of the path, if there is one and the principal may see it."""
        try:
            command_id = canonical_uuid(request.match_info["id"])
        except ValueError:
            raise not_found("such command; ids are UUIDs") from None
        record = self._ports.table.command(command_id)
        undecided = self._ports.publisher.undecided(command_id) if record is None else None
        if undecided is not None:
            record = waiting_record(undecided)
        if record is None and self._was_theirs(request, command_id):
            raise Problem(
                410, "forgotten", f"command {command_id} ended longer ago than commands are kept"
            )
        if record is None or not self._visibility.of_command(principal_of(request), record):
            raise not_found(f"command {command_id}")
        return record

    def _was_theirs(self, request: web.Request, command_id: str) -> bool:
        """Whether the principal sent a command of this id that is not kept any more."""
        principal = principal_of(request)
        known = self._ports.table.forgotten(command_id)
        return known is not None and (
            known.user_id == principal.user_id or ADMIN in principal.roles
        )


OPERATIONS = (
    Operation(
        method="POST",
        path="/api/v1/commands",
        id="publishCommand",
        handler=CommandRoutes.publish,
        summary="Publish a command, or with NDJSON up to 1000; accepted means durable",
        parameters=(WAIT, KEY),
        body=((JSON, Command), (NDJSON, None)),
        answers={
            200: ((JSON, bodies.Command), (NDJSON, None)),
            202: ((JSON, bodies.Accepted),),
        },
        refuses=PUBLISH,
    ),
    Operation(
        method="GET",
        path="/api/v1/commands",
        id="listCommands",
        handler=CommandRoutes.list,
        summary="The commands that you may see, newest first",
        parameters=(
            BEGINNING,
            JOB,
            USER,
            Parameter(name="status", about="States; any will do.", type=several(CommandStatus)),
            LIMIT,
            CURSOR,
            IF_NONE_MATCH,
        ),
        answers={200: ((JSON, bodies.CommandPage),), 304: ()},
        refuses=READ,
    ),
    Operation(
        method="GET",
        path="/api/v1/commands/{id}",
        id="getCommand",
        handler=CommandRoutes.show,
        summary="One command, as it stands or as it ended",
        parameters=(id_of("command"), *LONG_POLL),
        answers={200: ((JSON, bodies.Command),), 304: ()},
        refuses=READ | {404, 410},
    ),
    Operation(
        method="POST",
        path="/api/v1/commands/{id}/cancel",
        id="cancelCommand",
        handler=CommandRoutes.cancel,
        summary="Take back a command whose execution still waits",
        parameters=(id_of("command"), WAIT, KEY),
        body=((JSON, bodies.Empty),),
        body_required=False,
        answers=bodies.PUBLISHED,
        refuses=PUBLISH | {410},
    ),
)
