"""One command on its way out of a request: its id, its envelope, and the answer to it."""

import asyncio
import hashlib
import uuid

import msgspec
from aiohttp import web

from bus.clock import from_rfc3339
from bus.commands import Command
from bus.envelope import canonical_uuid, seal
from bus.errors import BusError
from bus.model import CommandRecord, Principal
from bus.ports import Receipt
from bus.views import command_view
from transports.http.access.caller import check_again, principal_of
from transports.http.ports import GatewayPorts
from transports.http.settings import GatewaySettings
from transports.http.web.answers import json_response
from transports.http.web.headers import idempotency_key, preferred_wait_s, traceparent_of
from transports.http.web.leases import let_go
from transports.http.web.problems import from_bus_error, invalid
from transports.http.web.rate import Places


class Request(msgspec.Struct, frozen=True):
    """What beside the command counts: a chosen id and a time after which it expires."""

    command_id: str | None = None
    expires_ms: int | None = None


_NOTHING = Request()


def request_of(command_id: str | None, expires_at: str | None) -> Request:
    """The two fields checked.

    Raises:
        Problem: 422 with a pointer.
    """
    try:
        checked_id = canonical_uuid(command_id) if command_id is not None else None
    except ValueError as exc:
        raise invalid("/commandId", str(exc)) from exc
    try:
        expires_ms = from_rfc3339(expires_at) if expires_at is not None else None
    except (ValueError, OverflowError) as exc:
        raise invalid(
            "/expiresAt", "must be a time such as 2026-01-26T18:00:00.000Z (RFC 3339)"
        ) from exc
    return Request(checked_id, expires_ms)


class Publishing:
    """Publishes commands of requests and answers as the contract says.

    `waits` counts the requests that wait for an end, `closing` is set by the gateway when it ends:
    then none waits any longer.
    """

    def __init__(self, ports: GatewayPorts, settings: GatewaySettings) -> None:
        self._ports = ports
        self._settings = settings
        self._namespace = uuid.UUID(
            bytes=hashlib.blake2b(ports.secret, digest_size=16, person=b"idempotency").digest()
        )
        self.closing = asyncio.Event()
        self.waits = Places(settings.waits_max, settings.waits_per_principal)

    async def publish(
        self,
        request: web.Request,
        command: Command,
        beside: Request = _NOTHING,
    ) -> Receipt:
        """The command is durable.

        Raises:
            Problem: it was refused, or could not be kept; nothing of it was kept unless it says so.
        """
        return await self.publish_as(
            principal_of(request),
            command,
            beside,
            key=idempotency_key(request),
            traceparent=traceparent_of(request),
        )

    async def publish_as(
        self,
        principal: Principal,
        command: Command,
        beside: Request,
        *,
        key: str | None = None,
        traceparent: str | None = None,
    ) -> Receipt:
        """As `publish`, where the request is no HTTP request of its own."""
        if key is not None and beside.command_id is not None:
            raise invalid("/commandId", "send either commandId or an idempotency key")
        command_id = beside.command_id
        if key is not None:
            command_id = self.id_of(principal.user_id, key)
        envelope = seal(
            command,
            principal,
            now_ms=self._ports.clock.now_ms(),
            command_id=command_id,
            expires_ms=beside.expires_ms,
            traceparent=traceparent,
        )
        try:
            return await self._ports.publisher.publish(envelope)
        except BusError as exc:
            raise from_bus_error(exc, key) from exc

    @property
    def wait_s_max(self) -> float:
        """How long an answer may be waited for."""
        return self._settings.wait_s_max

    def id_of(self, user_id: str, key: str) -> str:
        """The command id that an idempotency key of this user stands for."""
        return str(uuid.uuid5(self._namespace, f"{user_id}\n{key}"))

    async def answer(self, request: web.Request, receipt: Receipt) -> web.Response:
        """202, or 200 with the ended command if the request would wait and it ended in time."""
        headers = {"Location": f"/api/v1/commands/{receipt.command_id}"}
        if receipt.replayed:
            headers["Idempotency-Replayed"] = "true"
        wait_s = preferred_wait_s(request, self._settings.wait_s_max)
        if wait_s is not None and self._ports.table.forgotten(receipt.command_id) is None:
            let_go(request)
            record = await self.ended_within(request, receipt.command_id, wait_s)
            if record is not None:
                headers["Preference-Applied"] = f"wait={wait_s}"
                return json_response(command_body(record), headers=headers)
        return json_response(accepted_body(receipt), status=202, headers=headers)

    async def ended_within(
        self, request: web.Request, command_id: str, wait_s: float
    ) -> CommandRecord | None:
        """The ended command, or None when the time is up or the service is about to leave.

        With too many waiting already, it is not waited at all: a wait is a preference.

        Raises:
            Problem: 401; the principal may not read the answer any more.
        """
        record = await self.ended_for(principal_of(request), command_id, wait_s)
        check_again(request)
        return record

    async def ended_for(
        self, principal: Principal, command_id: str, wait_s: float
    ) -> CommandRecord | None:
        """As `ended_within`; the caller asks again whether the principal may still know."""
        with self.waits.one_for(principal.user_id) as any_place:
            return await self._ended(command_id, wait_s if any_place else 0.0)

    async def _ended(self, command_id: str, wait_s: float) -> CommandRecord | None:
        ended = asyncio.create_task(
            self._ports.waiter.command_ended(command_id), name=f"wait {command_id}"
        )
        closing = asyncio.create_task(self.closing.wait(), name=f"closing {command_id}")
        try:
            await asyncio.wait(
                {ended, closing}, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED
            )
            return ended.result() if ended.done() else None
        finally:
            ended.cancel()
            closing.cancel()
            await asyncio.wait({ended, closing})


def command_links(command_id: str, execution_id: str | None) -> dict[str, str]:
    links = {"self": f"/api/v1/commands/{command_id}"}
    if execution_id is not None:
        execution = f"/api/v1/executions/{execution_id}"
        links |= {
            "execution": execution,
            "output": f"{execution}/output",
            "stream": f"{execution}/stream",
        }
    return links


def accepted_body(receipt: Receipt) -> dict[str, object]:
    """The answer about a command that was accepted and has not ended."""
    return {
        "commandId": receipt.command_id,
        "status": "Pending",
        "links": command_links(receipt.command_id, None),
    }


def command_body(record: CommandRecord) -> dict[str, object]:
    """A command as it is answered, with its links."""
    view = command_view(record)
    fields = {
        wire: getattr(view, name)
        for name, wire in zip(view.__struct_fields__, view.__struct_encode_fields__, strict=True)
    }
    return fields | {"links": command_links(record.id, record.execution_id)}
