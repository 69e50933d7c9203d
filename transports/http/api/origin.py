"""The origin's four calls, for callers written for it: its spelling, its answers, its patience.

Unknown fields are ignored and names are taken in any case, because such callers send both.
"""

from collections.abc import Mapping

import msgspec
from aiohttp import web

from bus.commands import Command
from transports.http.api import bodies
from transports.http.api.command_bodies import decode_command, with_canonical_ids
from transports.http.api.publishing import Publishing
from transports.http.web.answers import json_response
from transports.http.web.body import read_fields
from transports.http.web.operation import JSON, PUBLISH, Handler, Operation
from transports.http.web.parameters import KEY
from transports.http.web.problems import Problem, invalid
from transports.http.web.query import Query

STATUS_WAIT_S = 2.0
"""How long `/jobs/status` waits for the answer before it says only that it was asked."""

_SPELLINGS = {"jobid": "jobId", "variables": "variables", "executionid": "executionId"}
_TAKES: dict[str, tuple[str, ...]] = {
    "start": ("jobId", "variables"),
    "stop": ("jobId", "executionId"),
    "restart": ("jobId", "executionId", "variables"),
    "status": ("jobId",),
}


class OriginRoutes:
    def __init__(self, publishing: Publishing) -> None:
        self._publishing = publishing

    async def start(self, request: web.Request) -> web.Response:
        return await self._publish(request, "start")

    async def stop(self, request: web.Request) -> web.Response:
        return await self._publish(request, "stop")

    async def restart(self, request: web.Request) -> web.Response:
        return await self._publish(request, "restart")

    async def status(self, request: web.Request) -> web.Response:
        return await self._publish(request, "status")

    async def _publish(self, request: web.Request, verb: str) -> web.Response:
        try:
            Query(request)
            command = command_as_spelled(
                verb, await read_fields(request, most=request.client_max_size)
            )
            receipt = await self._publishing.publish(request, command)
        except Problem as problem:
            problem.extra.setdefault("success", False)
            raise
        body: dict[str, object] = {
            "success": True,
            "commandId": receipt.command_id,
            "message": f"Job {verb} command queued",
        }
        if verb == "status":
            record = await self._publishing.ended_within(request, receipt.command_id, STATUS_WAIT_S)
            body["status"] = record.result if record is not None else None
        headers = {"Idempotency-Replayed": "true"} if receipt.replayed else {}
        return json_response(body, headers=headers)


def command_as_spelled(verb: str, fields: Mapping[str, msgspec.Raw]) -> Command:
    """The command, from fields in any case; what the verb does not take is left out.

    Raises:
        Problem: 422; no job is named, or a field holds something else than it should.
    """
    own = {"command": msgspec.Raw(msgspec.json.encode(verb))}
    for name, raw in fields.items():
        wire = _SPELLINGS.get(name.lower().replace("_", ""))
        if wire in _TAKES[verb] and bytes(raw) != b"null":
            own[wire] = raw
    if "jobId" not in own and "executionId" not in own:
        raise invalid("/jobId", "missing; the id of a job such as App/Job")
    return with_canonical_ids(decode_command(own, ()))


def _call(verb: str, id: str, handler: Handler) -> Operation:
    return Operation(
        method="POST",
        path=f"/api/v1/jobs/{verb}",
        id=id,
        handler=handler,
        summary=f"The PowerShell module's call: {verb}",
        parameters=(KEY,),
        body=((JSON, bodies.JobCall),),
        answers={200: ((JSON, bodies.JobCallAnswer),)},
        refuses=PUBLISH,
    )


OPERATIONS = (
    _call("start", "startJob", OriginRoutes.start),
    _call("stop", "stopJob", OriginRoutes.stop),
    _call("restart", "restartJob", OriginRoutes.restart),
    _call("status", "getJobStatus", OriginRoutes.status),
)
