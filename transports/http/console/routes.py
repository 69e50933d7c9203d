"""The console at `/`: three fixed files from the package, served under a strict policy."""

from importlib.resources import files

from aiohttp import web

from transports.http.web.operation import Audience, Operation
from transports.http.web.problems import not_found
from transports.http.web.query import Query

_TYPES = {
    "index.html": "text/html",
    "app.js": "text/javascript",
    "stream.js": "text/javascript",
    "style.css": "text/css",
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class PageRoutes:
    """Reads the files once, so that a name in a request never becomes part of a path."""

    def __init__(self) -> None:
        folder = files("transports.http") / "console"
        self._files = {name: (folder / name).read_bytes() for name in _TYPES}

    async def index(self, request: web.Request) -> web.Response:
        Query(request)
        return self._answer("index.html")

    async def file(self, request: web.Request) -> web.Response:
        Query(request)
        name = request.match_info["file"]
        if name not in self._files:
            raise not_found("such file")
        return self._answer(name)

    def _answer(self, name: str) -> web.Response:
        return web.Response(
            body=self._files[name], content_type=_TYPES[name], charset="utf-8", headers=_HEADERS
        )


OPERATIONS = (
    Operation(
        method="GET",
        path="/",
        id="getPage",
        handler=PageRoutes.index,
        audience=Audience.PUBLIC,
        answers={200: (("text/html", None),)},
        documented=False,
    ),
    Operation(
        method="GET",
        path="/console/{file}",
        id="getPageFile",
        handler=PageRoutes.file,
        audience=Audience.PUBLIC,
        answers={200: (("text/javascript", None), ("text/css", None))},
        documented=False,
    ),
)
