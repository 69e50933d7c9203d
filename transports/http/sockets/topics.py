"""What can be subscribed to over a WebSocket, and who follows it for a subscription."""

from collections.abc import Awaitable, Callable

from bus.model import Execution, Principal
from transports.http.access.visibility import Visibility
from transports.http.output.followers import Followers
from transports.http.ports import GatewayPorts
from transports.http.sockets.requests import Subscribe, filter_values
from transports.http.sockets.subscription import Subscription
from transports.http.streams.changes import Changes
from transports.http.streams.filters import Filters
from transports.http.web.problems import invalid

Follow = Callable[[Subscription], Awaitable[str]]
"""Sends a subscription what it asked for; returns the position at which it ended."""

_ONLY_EVENTS = ("filter", "start")
_ONLY_OUTPUT = ("execution", "start_at", "tail", "follow")


class Topics:
    def __init__(
        self,
        ports: GatewayPorts,
        visibility: Visibility,
        changes: Changes,
        followers: Followers,
    ) -> None:
        self._ports = ports
        self._visibility = visibility
        self._changes = changes
        self._followers = followers

    async def follow(self, asked: Subscribe, principal: Principal) -> Follow:
        """How to serve the subscription.

        Raises:
            Problem: there is no such thing for this principal, or it was asked for wrongly.
        """
        _refuse(asked, _ONLY_OUTPUT if asked.topic == "events" else _ONLY_EVENTS)
        return (
            self._events(asked) if asked.topic == "events" else await self._output(asked, principal)
        )

    def _events(self, asked: Subscribe) -> Follow:
        filters = Filters.matching(filter_values(asked.filter))
        start = asked.start or "snapshot"
        cursor = asked.after

        def follow(subscription: Subscription) -> Awaitable[str]:
            return self._changes.follow(subscription, filters, cursor, start)

        return follow

    async def _output(self, asked: Subscribe, principal: Principal) -> Follow:
        if asked.execution is None:
            raise invalid("/execution", "missing; the id of the execution whose output is wanted")
        execution = self._visibility.execution(principal, asked.execution)
        self._visibility.check_output(principal, execution)
        latest = asked.follow == "latest"
        start = await self._start(execution, asked)
        cursor = asked.after

        def follow(subscription: Subscription) -> Awaitable[str]:
            return self._followers.follow(execution.id, subscription, cursor, start, latest=latest)

        return follow

    async def _start(self, execution: Execution, asked: Subscribe) -> int:
        if asked.tail is None:
            return asked.start_at or 0
        if asked.start_at is not None:
            raise invalid("/tail", "send either from or tail")
        return await self._ports.output.offset_of_tail(execution.id, asked.tail)


def _refuse(asked: Subscribe, names: tuple[str, ...]) -> None:
    for name in names:
        if getattr(asked, name) is not None:
            wire = "from" if name == "start_at" else name
            raise invalid(f"/{wire}", f"is not for the topic {asked.topic}")
