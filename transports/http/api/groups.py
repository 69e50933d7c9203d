"""`/groups`: slots that jobs share, how many are taken, and what waits for them."""

from collections.abc import Sequence

from aiohttp import web

from bus.access import ADMIN
from bus.model import Principal
from bus.views import GroupView
from transports.http.access.caller import principal_of
from transports.http.access.visibility import Visibility
from transports.http.api import bodies
from transports.http.api.longpoll import LongPoll
from transports.http.ports import GatewayPorts
from transports.http.web.operation import JSON, READ, Operation
from transports.http.web.paging import page_response
from transports.http.web.parameters import LONG_POLL
from transports.http.web.query import Query

_SEES_ALL = frozenset({ADMIN, "operator"})


class GroupRoutes:
    def __init__(self, ports: GatewayPorts, visibility: Visibility, polls: LongPoll) -> None:
        self._ports = ports
        self._visibility = visibility
        self._polls = polls

    async def list(self, request: web.Request) -> web.Response:
        Query(request)
        principal = principal_of(request)

        def respond() -> web.Response:
            items: list[object] = list(self._seen_by(principal))
            return page_response(request, items, None, self._ports.feed)

        return await self._polls.answer(request, respond)

    def _seen_by(self, principal: Principal) -> Sequence[GroupView]:
        """Operators and admins see all; others those of the jobs that they may view."""
        table = self._ports.table
        names = [group.name for group in table.groups()]
        if names and _SEES_ALL.isdisjoint(principal.roles):
            jobs = (job for job in table.jobs() if self._visibility.of_job(principal, job))
            seen = {name for job in jobs if job.spec for name in job.spec.groups}
            names = [name for name in names if name in seen]
        views = map(table.group_view, names)
        return [view for view in views if view is not None]


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/v1/groups",
        id="listGroups",
        handler=GroupRoutes.list,
        summary="The groups of slots that your jobs share: how many run, how many wait",
        parameters=LONG_POLL,
        answers={200: ((JSON, bodies.GroupPage),), 304: ()},
        refuses=READ,
    ),
)
