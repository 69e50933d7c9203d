"""`/jobs` and `/apps`: definitions, their faults, what the caller may do, and their last runs."""

import re
from collections.abc import Mapping
from itertools import islice
from typing import Annotated

from aiohttp import web
from msgspec import Meta

from bus.access import Action
from bus.apps import App
from bus.clock import rfc3339
from bus.job_definition import Job, plain_id
from bus.model import Maintenance, Principal
from bus.views import JobView, app_view, execution_view, job_view
from bus.wording import quoted
from transports.http.access.caller import principal_of
from transports.http.access.visibility import Visibility
from transports.http.api import bodies
from transports.http.api.longpoll import LongPoll
from transports.http.ports import GatewayPorts
from transports.http.web.answers import conditional
from transports.http.web.operation import JSON, READ, Operation, Parameter
from transports.http.web.paging import page_response
from transports.http.web.parameters import LONG_POLL
from transports.http.web.problems import not_found
from transports.http.web.query import Query

LAST_EXECUTIONS = 5
_JOB_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


class JobRoutes:
    def __init__(self, ports: GatewayPorts, visibility: Visibility, polls: LongPoll) -> None:
        self._ports = ports
        self._polls = polls
        self._visibility = visibility

    async def list(self, request: web.Request) -> web.Response:
        Query(request)
        principal = principal_of(request)

        def respond() -> web.Response:
            apps = self._app_names()
            items = [
                self._body(principal, job, apps)
                for job in self._ports.table.jobs()
                if self._visibility.of_job(principal, job)
            ]
            return page_response(request, items, None, self._ports.feed)

        return await self._polls.answer(request, respond)

    async def apps(self, request: web.Request) -> web.Response:
        Query(request)
        principal = principal_of(request)
        jobs: dict[str, list[str]] = {}
        for job in self._ports.table.jobs():
            if self._visibility.of_job(principal, job):
                jobs.setdefault(job.id.partition("/")[0], []).append(job.id)
        known = {app.id: app for app in self._ports.apps()}
        items = [app_view(known.get(id_, App(id=id_)), jobs[id_]) for id_ in sorted(jobs)]
        return conditional(request, {"items": items})

    async def show(self, request: web.Request) -> web.Response:
        Query(request)
        app, name = request.match_info["app"], request.match_info["job"]
        if not (_JOB_PART.match(app) and _JOB_PART.match(name)):
            raise not_found("such job; a job id is App/Job")
        principal = principal_of(request)

        def respond() -> web.Response:
            job = self._ports.table.job(f"{app}/{name}")
            if job is None or not self._visibility.of_job(principal, job):
                raise not_found(f"job {app}/{name}{self._meant(principal, f'{app}/{name}')}")
            schedules = self._ports.schedules
            views = schedules.views(job) if schedules is not None else ()
            body = self._body(principal, job, self._app_names())
            return conditional(request, body | {"schedules": views})

        return await self._polls.answer(request, respond)

    def _meant(self, principal: Principal, job_id: str) -> str:
        """The end of the sentence that names a visible job of which this is another spelling."""
        for job in self._ports.table.jobs():
            if plain_id(job.id) == plain_id(job_id) and self._visibility.of_job(principal, job):
                return f"; did you mean {quoted(job.id)}?"
        return ""

    def _body(self, principal: Principal, job: Job, apps: Mapping[str, str]) -> dict[str, object]:
        view = job_view(job)
        names = zip(JobView.__struct_fields__, JobView.__struct_encode_fields__, strict=True)
        visible = (
            execution_view(execution, self._ports.waiting_for(execution))
            for execution in self._ports.table.executions_of(job.id)
            if self._visibility.of_execution(principal, execution)
        )
        return {wire: getattr(view, name) for name, wire in names} | {
            "may": {action.value: self._grant(principal, job, action) for action in Action},
            "nextAt": self._next_at(job),
            "appName": apps.get(job.id.partition("/")[0], ""),
            "lastExecutions": list(islice(visible, LAST_EXECUTIONS)),
            "links": {"self": f"/api/v1/jobs/{job.id}", "executions": _executions_link(job.id)},
        }

    def _app_names(self) -> dict[str, str]:
        """Names and versions of apps that say one, by the id of the app."""
        return {
            app.id: f"{app.spec.name or app.id} {app.spec.version}".rstrip()
            for app in self._ports.apps()
            if app.spec.name or app.spec.version
        }

    def _next_at(self, job: Job) -> str | None:
        schedules = self._ports.schedules
        at_ms = schedules.next_ms(job.id) if schedules is not None else None
        return rfc3339(at_ms) if at_ms is not None else None

    def _grant(self, principal: Principal, job: Job, action: Action) -> dict[str, object]:
        """Whether the caller may, and if not, why not."""
        if not self._visibility.of_job(principal, job, action):
            needed = ", ".join(self._visibility.needed(job, action)) or "admin"
            return {"allowed": False, "why": f"needs one of the roles: {needed}"}
        starts = action in (Action.START, Action.RESTART)
        why = _why_not_now(job, self._ports.table.maintenance) if starts else None
        return {"allowed": why is None, "why": why}


def _why_not_now(job: Job, maintenance: Maintenance | None) -> str | None:
    if job.spec is None:
        where = f" ({job.fault})" if job.fault else ""
        return f"the definition is faulty{where}"
    if job.spec.disabled:
        return "disabled by its definition"
    return "nothing is started during maintenance" if maintenance is not None else None


def _executions_link(job_id: str) -> str:
    return f"/api/v1/executions?job={job_id}"


_Part = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]

OPERATIONS = (
    Operation(
        method="GET",
        path="/api/v1/jobs",
        id="listJobs",
        handler=JobRoutes.list,
        summary="The jobs that you may view, and what you may do with each",
        parameters=LONG_POLL,
        answers={200: ((JSON, bodies.JobPage),), 304: ()},
        refuses=READ,
    ),
    Operation(
        method="GET",
        path="/api/v1/apps",
        id="listApps",
        handler=JobRoutes.apps,
        summary="The apps with jobs that you may view, and what they say of themselves",
        answers={200: ((JSON, bodies.AppPage),), 304: ()},
        refuses=READ,
    ),
    Operation(
        method="GET",
        path="/api/v1/jobs/{app}/{job}",
        id="getJob",
        handler=JobRoutes.show,
        summary="One job, what you may do with it and why not, its last executions",
        parameters=(
            Parameter(name="app", about="The app.", place="path", type=_Part),
            Parameter(name="job", about="The job in it.", place="path", type=_Part),
            *LONG_POLL,
        ),
        answers={200: ((JSON, bodies.JobDetails),), 304: ()},
        refuses=READ | {404},
    ),
)
