"""`/commands`: publish, look up, list, cancel."""

import msgspec
from aiohttp import web

from bus.commands import CancelCommand, Command, RestartJob, StopJob
from bus.envelope import canonical_uuid
from bus.model import CommandRecord, CommandStatus
from transports.http.auth import principal_of
from transports.http.body import decode_command, decode_field, read_fields, refuse_unknown
from transports.http.paging import Cursor, Page, conditional, page_response
from transports.http.problems import bad_parameter, invalid, not_found
from transports.http.publishing import BESIDE, Publishing, command_body, request_of
from transports.http.query import Query
from transports.http.settings import GatewayPorts
from transports.http.visibility import Visibility

_STATUSES = tuple(status.value for status in CommandStatus)


class CommandRoutes:
    def __init__(self, ports: GatewayPorts, publishing: Publishing, visibility: Visibility) -> None:
        self._ports = ports
        self._publishing = publishing
        self._visibility = visibility

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/api/v1/commands", self.publish),
            web.get("/api/v1/commands", self.list),
            web.get("/api/v1/commands/{id}", self.show),
            web.post("/api/v1/commands/{id}/cancel", self.cancel),
        ]

    async def publish(self, request: web.Request) -> web.Response:
        Query(request)
        fields = await read_fields(request)
        beside = request_of(
            decode_field(fields, "commandId", str), decode_field(fields, "expiresAt", str)
        )
        own = {name: raw for name, raw in fields.items() if name not in BESIDE}
        command = with_canonical_ids(decode_command(own, BESIDE))
        receipt = await self._publishing.publish(request, command, beside)
        return await self._publishing.answer(request, receipt)

    async def list(self, request: web.Request) -> web.Response:
        query = Query(request, ("job", "user", "status", "limit", "cursor"))
        principal = principal_of(request)
        jobs, users = query.texts("job"), query.texts("user")
        statuses = query.texts("status")
        if statuses.difference(_STATUSES):
            raise bad_parameter("status", f"must be one of {', '.join(_STATUSES)}")
        cursor = Cursor.parse(query.text("cursor"))
        limit = query.number("limit", low=1, high=500) or 50

        def wanted(record: CommandRecord) -> bool:
            return (
                (not jobs or record.job_id in jobs)
                and (not users or record.user_id in users)
                and (not statuses or record.status in statuses)
                and self._visibility.of_command(principal, record)
            )

        page = Page.of(
            self._ports.table.commands(),
            wanted,
            key=lambda record: Cursor(record.submitted_ms, record.id),
            after=cursor,
            limit=limit,
        )
        items = [command_body(record) for record in page.items]
        return page_response(request, items, page.next, self._ports.feed)

    async def show(self, request: web.Request) -> web.Response:
        Query(request)
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
        if record is None or not self._visibility.of_command(principal_of(request), record):
            raise not_found(f"command {command_id}")
        return record


def with_canonical_ids(command: Command) -> Command:
    """The command with its ids in lower case.

    Raises:
        Problem: 422; what should be an id is none.
    """
    match command:
        case StopJob(job_id=None, execution_id=None) | RestartJob(job_id=None, execution_id=None):
            raise invalid("/jobId", "missing; name a jobId or an executionId")
        case _:
            pass
    for field, wire in (("execution_id", "executionId"), ("target_id", "targetId")):
        text = getattr(command, field, None)
        if text is None:
            continue
        try:
            command = msgspec.structs.replace(command, **{field: canonical_uuid(text)})
        except ValueError as exc:
            raise invalid(f"/{wire}", str(exc)) from exc
    return command
