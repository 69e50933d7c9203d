"""`/executions/{id}/artifacts`: files that an execution left, one by one or all in one archive.

They come from programs: they are sent as bytes to be saved, with a type and under a policy by which
no browser shows or runs them.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes

import msgspec
from aiohttp import web
from msgspec import Meta

from bus.clock import rfc3339
from bus.errors import ArtifactGone
from bus.model import Execution
from bus.ports import Artifact
from bus.visible_text import visible
from transports.http.access.auth import too_many
from transports.http.access.caller import cut_off, principal_of
from transports.http.access.visibility import Visibility, visible_execution
from transports.http.output.downloads import PIECE, Downloads, asked_range, resolve
from transports.http.ports import GatewayPorts
from transports.http.settings import GatewaySettings
from transports.http.web.answers import conditional, matches
from transports.http.web.operation import JSON, READ, Operation, Parameter
from transports.http.web.parameters import id_of
from transports.http.web.problems import Problem, not_found
from transports.http.web.query import Query
from transports.http.web.rate import Places

BYTES = "application/octet-stream"
ZIP = "application/zip"

DOWNLOADS_MAX = 64
DOWNLOADS_EACH = 16
"""Downloads at a time, and of one principal: each keeps a file open. Further ones get 429."""

_PLAIN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.() "


class ArtifactView(msgspec.Struct, frozen=True, kw_only=True):
    """A file that an execution left. `name` is for people; `path`, percent-encoded, stands in the
    address. `href` is that address."""

    name: str
    path: str
    size: int
    modified: str
    href: str


class ArtifactsView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """By path; `note` says what of the files was not kept. Empty until the execution has ended."""

    execution_id: str
    items: tuple[ArtifactView, ...]
    count: int
    bytes: int
    note: str


class ArtifactRoutes:
    def __init__(
        self, ports: GatewayPorts, settings: GatewaySettings, visibility: Visibility
    ) -> None:
        self._artifacts = ports.artifacts
        self._visibility = visibility
        self._downloads = Downloads(ports, settings, visibility)
        self._places = Places(DOWNLOADS_MAX, DOWNLOADS_EACH)

    async def list_artifacts(self, request: web.Request) -> web.StreamResponse:
        Query(request)
        execution = self._execution(request)
        found = await self._listed(execution)
        base = f"/api/v1/executions/{execution.id}/artifacts"
        items = tuple(
            ArtifactView(
                name=_name_of(each),
                path=each.path,
                size=each.size,
                modified=rfc3339(each.mtime_ns // 1_000_000),
                href=f"{base}/{each.path}",
            )
            for each in found
        )
        view = ArtifactsView(
            execution_id=execution.id,
            items=items,
            count=len(items),
            bytes=sum(each.size for each in found),
            note=execution.artifacts_note,
        )
        return conditional(request, view)

    async def send_artifact(self, request: web.Request) -> web.StreamResponse:
        Query(request)
        execution = self._execution(request)
        # As bytes, whatever the encoding of the name: only what stands in the list is found.
        raw = request.rel_url.raw_path.partition("/artifacts/")[2]
        path = quote_from_bytes(unquote_to_bytes(raw), safe="/")
        found = next((each for each in await self._listed(execution) if each.path == path), None)
        if found is None:
            raise not_found("such file at this execution")
        tag = f'"{found.size:x}-{found.mtime_ns:x}"'
        if matches(request, tag):
            return web.Response(status=304, headers={"ETag": tag})
        headers = {"ETag": tag, "Accept-Ranges": "bytes", "Content-Type": BYTES}
        headers |= _attached(_name_of(found).rpartition("/")[2])
        status, start, end = 200, 0, found.size
        wanted = asked_range(request, tag)
        if wanted is not None:
            status, (start, end) = 206, resolve(wanted, found.size, "file")
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{found.size}"
        headers["Content-Length"] = str(end - start)
        pieces = self._artifacts.pieces(execution.id, found, start, end, PIECE)
        return await self._send(request, web.StreamResponse(status=status, headers=headers), pieces)

    async def send_archive(self, request: web.Request) -> web.StreamResponse:
        Query(request)
        execution = self._execution(request)
        found = await self._listed(execution)
        if not found:
            raise not_found("file at this execution")
        name = f"{execution.job_id.replace('/', '-')}-{execution.id[-12:]}.zip"
        headers = {"Content-Type": ZIP, **_attached(name)}
        pieces = self._artifacts.zipped(execution.id, found, PIECE)
        return await self._send(request, web.StreamResponse(headers=headers), pieces)

    def _execution(self, request: web.Request) -> Execution:
        execution = visible_execution(request, self._visibility)
        self._visibility.check_output(principal_of(request), execution)
        return execution

    async def _listed(self, execution: Execution) -> tuple[Artifact, ...]:
        """What the end has recorded: until then a list is what the program writes there."""
        if not execution.artifacts:
            return ()
        return await self._artifacts.listed(execution.id)

    async def _send(
        self,
        request: web.Request,
        response: web.StreamResponse,
        pieces: AsyncGenerator[bytes, None],
    ) -> web.StreamResponse:
        """The first piece is there before the answer begins: a file that is gone gets a problem."""
        with self._places.one_for(principal_of(request).user_id) as has_place:
            if not has_place:
                raise too_many("too many files are sent to you already", 5.0)
            async with aclosing(pieces):
                try:
                    piece = await anext(pieces, b"")
                except ArtifactGone as gone:
                    raise Problem(410, "artifact-gone", str(gone)) from gone
                await response.prepare(request)
                try:
                    while piece and request.method != "HEAD":
                        await self._downloads.send(response, request, piece)
                        piece = await anext(pieces, b"")
                except ArtifactGone:
                    cut_off(request, "a file changed while it was sent")
        if request.method != "HEAD":
            await response.write_eof()
        return response


def _name_of(artifact: Artifact) -> str:
    return visible(unquote_to_bytes(artifact.path).decode("utf-8", "replace"))


def _attached(name: str) -> dict[str, str]:
    """To be saved under that name (RFC 6266), not shown; and if it is shown, harmless."""
    plain = "".join(sign if sign in _PLAIN else "_" for sign in name)
    return {
        "Content-Disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''"
        + quote(name, safe=""),
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
        "Cache-Control": "private, no-cache",
    }


_Path = Annotated[str, Meta(min_length=1)]
_REFUSES = READ | {404}

OPERATIONS = (
    Operation(
        method="GET",
        path="/api/v1/executions/{id}/artifacts",
        id="listArtifacts",
        handler=ArtifactRoutes.list_artifacts,
        summary="The files that it left",
        parameters=(id_of("execution"),),
        answers={200: ((JSON, ArtifactsView),), 304: ()},
        refuses=_REFUSES,
    ),
    Operation(
        method="GET",
        path="/api/v1/executions/{id}/artifacts.zip",
        id="getArtifactArchive",
        handler=ArtifactRoutes.send_archive,
        summary="All of them in one archive, made while it is sent",
        parameters=(id_of("execution"),),
        answers={200: ((BYTES, None), (ZIP, None))},
        refuses=_REFUSES | {410},
    ),
    Operation(
        method="GET",
        path="/api/v1/executions/{id}/artifacts/{path}",
        id="getArtifact",
        handler=ArtifactRoutes.send_artifact,
        summary="One of them",
        parameters=(
            id_of("execution"),
            Parameter(name="path", about="As the list has it.", place="path", type=_Path),
            Parameter(name="Range", about="One range of bytes.", place="header"),
        ),
        answers={200: ((BYTES, None),), 206: ((BYTES, None),), 304: ()},
        refuses=_REFUSES | {410, 416},
        goes_deep=True,
    ),
)
