"""One WebSocket whose client is known: what it asks, what it subscribes to, and its end."""

import asyncio
import random
from collections.abc import Mapping

import structlog

from bus.errors import BusError
from bus.model import Principal
from transports.http.access.auth import Gate
from transports.http.access.identity import Identity
from transports.http.api.command_bodies import command_of_fields
from transports.http.api.publishing import Publishing, accepted_body, command_body, request_of
from transports.http.ports import GatewayPorts
from transports.http.settings import GatewaySettings
from transports.http.sockets.encoding import problem_frame, server_frame
from transports.http.sockets.link import SocketLink
from transports.http.sockets.requests import (
    Auth,
    BadFrame,
    ClientFrame,
    Ping,
    Publish,
    Subscribe,
    Unsubscribe,
    decode,
)
from transports.http.sockets.subscription import Subscription
from transports.http.sockets.topics import Follow, Topics
from transports.http.streams.outlets import ANNOUNCED, End
from transports.http.streams.reader_frames import Framing
from transports.http.web.headers import checked_key
from transports.http.web.problems import Problem

_ANNOUNCED = ANNOUNCED | {End.FAILED, End.RATE}
_WAITS_MAX = 16
_FAREWELL_S = 1.0
"""How long the subscriptions of an ending socket may take to say where each of them was."""

log = structlog.get_logger("jobbus.streams")


class Socket:
    """Frames are answered one after the other: a client's commands keep their order.

    `_subscriptions` are those whose end was not sent yet, by name: `serve` adds them, the task of
    each removes it. `_serving` and `_waiting` are these tasks, and those that wait for the end of a
    command. `credential`, `principal` and `checked_s` are written by the registry.

    Only `serve` may be waited for; everything else is called from it, or by the registry.
    """

    __slots__ = (
        "_framing",
        "_gate",
        "_link",
        "_ports",
        "_publishing",
        "_request_id",
        "_serving",
        "_settings",
        "_subscriptions",
        "_topics",
        "_waiting",
        "checked_s",
        "credential",
        "principal",
        "rotate_at_s",
    )

    def __init__(
        self,
        link: SocketLink,
        identity: Identity,
        request_id: str,
        ports: GatewayPorts,
        settings: GatewaySettings,
        gate: Gate,
        topics: Topics,
        publishing: Publishing,
        framing: Framing,
    ) -> None:
        self.credential = identity
        self.principal: Principal = identity.principal
        self.checked_s = ports.clock.monotonic_s()
        self.rotate_at_s = self.checked_s + settings.age_s * random.uniform(0.8, 1.0)  # noqa: S311
        self._link = link
        self._request_id = request_id
        self._ports = ports
        self._settings = settings
        self._gate = gate
        self._topics = topics
        self._publishing = publishing
        self._framing = framing
        self._subscriptions: dict[str, Subscription] = {}
        self._serving: set[asyncio.Task[None]] = set()
        self._waiting: set[asyncio.Task[None]] = set()

    # for the registry

    @property
    def transport(self) -> str:
        return "websocket"

    @property
    def ended(self) -> End | None:
        return self._link.ended

    @property
    def gone(self) -> bool:
        return self._link.gone

    def look(self) -> None:
        for subscription in self._subscriptions.values():
            if subscription.is_quiet:
                subscription.wake.set()

    def renew(self, principal: Principal) -> None:
        self.principal = principal
        for subscription in self._subscriptions.values():
            subscription.renew(principal)

    def finish(self, why: End) -> None:
        self._link.finish(why)

    def abort(self) -> None:
        self._link.abort()

    # the conversation

    async def serve(self, group: asyncio.TaskGroup) -> None:
        """The socket is over, and all subscriptions said so that could."""
        try:
            await self._link.send(server_frame("hello", data=self._hello()))
            while (text := await self._link.receive()) is not None:
                await self._answer(text, group)
        except ConnectionError:
            pass  # `ended` says why
        finally:
            await self._end_all()

    def _hello(self) -> dict[str, object]:
        return {
            "version": self._settings.version_shown,
            "user": self.principal.user_id,
            "heartbeatS": self._settings.heartbeat_s,
            "maxAgeS": self._settings.age_s,
        }

    async def _answer(self, text: str, group: asyncio.TaskGroup) -> None:
        if self._gate.again(self.credential) is None:
            self.finish(End.REVOKED)  # expiry is looked for from time to time; this cannot wait
            return
        try:
            frame = decode(text)
        except BadFrame as bad:
            await self._send_problem(bad.problem, bad.about)
            if not bad.is_json:
                self.finish(End.PROTOCOL)
            return
        try:
            await self._do(frame, group)
        except Problem as problem:
            await self._send_problem(problem, frame.about)
        except (BusError, OSError) as exc:
            if isinstance(exc, ConnectionError):
                raise
            log.exception("socket request failed", request_id=self._request_id)
            failed = Problem(500, "internal", f"see the log of the service for {self._request_id}")
            await self._send_problem(failed, frame.about)

    async def _do(self, frame: ClientFrame, group: asyncio.TaskGroup) -> None:
        match frame:
            case Subscribe():
                await self._subscribe(frame, group)
            case Unsubscribe():
                self._unsubscribe(frame)
            case Publish():
                await self._publish(frame, group)
            case Ping():
                await self._link.send(server_frame("pong", n=frame.n))
            case Auth():
                raise Problem(409, "conflict", f"you are {self.principal.user_id} already")

    async def _subscribe(self, asked: Subscribe, group: asyncio.TaskGroup) -> None:
        most = self._settings.socket_subscriptions_max
        if asked.sub in self._subscriptions:
            raise Problem(409, "conflict", f"sub {asked.sub!r} is in use until its end was sent")
        if len(self._subscriptions) >= most:
            raise Problem(429, "too-many-streams", f"a socket holds {most} subscriptions at most")
        follow = await self._topics.follow(asked, self.principal)
        subscription = Subscription(
            asked.sub,
            self.principal,
            self._link,
            self._framing,
            self._ports.clock,
            self._settings,
        )
        self._subscriptions[asked.sub] = subscription
        task = group.create_task(self._serve(asked.sub, subscription, follow), name="subscription")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    def _unsubscribe(self, asked: Unsubscribe) -> None:
        subscription = self._subscriptions.get(asked.sub)
        if subscription is None:
            raise Problem(404, "not-found", f"there is no subscription {asked.sub!r}")
        subscription.finish(End.UNSUBSCRIBED)

    async def _serve(self, name: str, subscription: Subscription, follow: Follow) -> None:
        try:
            position = await follow(subscription)
            if subscription.ended in _ANNOUNCED:
                while not self._link.has_room:
                    await self._link.drained()
                # In one step: the name is free exactly when its end is on the way.
                del self._subscriptions[name]
                self._link.put(subscription.last_frame(position))
        except ConnectionError:
            return  # the link is over and says why
        finally:
            if self._subscriptions.get(name) is subscription:
                del self._subscriptions[name]

    async def _publish(self, asked: Publish, group: asyncio.TaskGroup) -> None:
        if asked.wait is not None and len(self._waiting) >= _WAITS_MAX:
            raise Problem(429, "too-many-requests", f"{_WAITS_MAX} commands are waited for already")
        self._gate.count_post(self.credential.principal)
        command, *beside = command_of_fields(asked.command)
        key = checked_key(asked.idempotency_key) if asked.idempotency_key is not None else None
        receipt = await self._publishing.publish_as(
            self.principal, command, request_of(*beside), key=key
        )
        members: dict[str, object] = {"ref": asked.ref, "status": 202}
        if receipt.replayed:
            members["replayed"] = True
        members["data"] = accepted_body(receipt)
        if asked.wait is None:
            await self._link.send(server_frame("result", **members))
            return
        wait_s = min(asked.wait, self._settings.wait_s_max)
        ending = self._send_the_end(receipt.command_id, members, wait_s)
        task = group.create_task(ending, name="socket wait")
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _send_the_end(
        self, command_id: str, members: dict[str, object], wait_s: float
    ) -> None:
        record = await self._publishing.ended_for(self.principal, command_id, wait_s)
        if self._gate.again(self.credential) is None:
            self.finish(End.REVOKED)
            return
        if record is not None:
            members |= {"status": 200, "data": command_body(record)}
        try:
            await self._link.send(server_frame("result", **members))
        except ConnectionError:
            return  # the link is over and says why

    async def _send_problem(self, problem: Problem, about: Mapping[str, str]) -> None:
        await self._link.send(problem_frame(problem, self._request_id, about))

    async def _end_all(self) -> None:
        """No task of this socket is left."""
        why = self._link.ended or End.FAILED
        for subscription in self._subscriptions.values():
            subscription.finish(why)
        if why in _ANNOUNCED and self._serving:
            await asyncio.wait(self._serving, timeout=_FAREWELL_S)
        for task in (*self._serving, *self._waiting):
            task.cancel()
        self._link.stop_waiting()
