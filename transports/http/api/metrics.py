"""`/metrics`: what is counted as it happens, and what is looked up when somebody asks.

Names are `jobbus_…` in base units; no label holds an id or a user. It needs a token with the role
`metrics` (or `admin`): how much a service does is not for every principal.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from time import perf_counter
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from bus.events import CommandEnded, ExecutionEnded, Published
from bus.health import HealthStatus
from bus.model import CommandRecord, ExecutionStatus
from bus.threads import READS
from transports.http.ports import GatewayPorts
from transports.http.settings import GatewaySettings
from transports.http.streams.metrics import StreamMetrics
from transports.http.streams.registry import StreamRegistry
from transports.http.web.memory_budget import Memory
from transports.http.web.middleware import template_of
from transports.http.web.operation import READ, TEXT, Audience, Operation
from transports.http.web.problems import Problem
from transports.http.web.query import Query
from transports.http.web.tallies import Histogram, Tally

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LIVE = tuple(
    status.value
    for status in (
        ExecutionStatus.QUEUED,
        ExecutionStatus.STARTING,
        ExecutionStatus.RUNNING,
        ExecutionStatus.STOPPING,
        ExecutionStatus.UNKNOWN,
    )
)


class Metrics:
    """The numbers of one gateway. As a `bus.ports.ChangeListener` it counts what the owner does.

    Answers of `endless` routes last for as long as the caller likes: their duration says nothing,
    as does that of a request which prefers to wait.
    """

    def __init__(
        self,
        ports: GatewayPorts,
        settings: GatewaySettings,
        registry: StreamRegistry,
        memory: Memory,
        sent: StreamMetrics,
        endless: frozenset[str],
    ) -> None:
        self._ports = ports
        self._settings = settings
        self._streams = registry
        self._memory = memory
        self._sent = sent
        self._endless = endless
        self._requests = Tally(
            "http_requests",
            "Answers by method, route template and status code.",
            ("method", "route", "code"),
        )
        self._duration = Histogram(
            "http_request_duration_seconds",
            "Time from a request's head to the end of its answer; streams are left out.",
            ("method", "route"),
            (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30),
        )
        self._commands = Tally(
            "commands",
            "Ended commands by what was asked for and what came of it.",
            ("type", "outcome"),
        )
        self._handling = Histogram(
            "command_handle_seconds",
            "Time from a command's submission to its end.",
            ("type",),
            (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 15, 60, 300, 3600),
        )
        self._ended = Tally("executions_ended", "Ended executions by final state.", ("state",))

    def __call__(self, batch: Sequence[Published]) -> None:
        for published in batch:
            event = published.event
            if isinstance(event, CommandEnded):
                self._count_command(self._ports.table.command(event.command_id))
            elif isinstance(event, ExecutionEnded):
                self._ended.add(event.status.value)

    def _count_command(self, record: CommandRecord | None) -> None:
        if record is None:
            return
        outcome = record.outcome.value if record.outcome else record.error_code
        self._commands.add(record.kind, outcome or record.status.value)
        took_ms = (record.processed_ms or record.submitted_ms) - record.submitted_ms
        self._handling.add(max(took_ms, 0) / 1000, record.kind)

    def middleware(self) -> Middleware:
        """Counts every answer; the outermost but for the one that makes problems answers."""

        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            began_s = perf_counter()
            code = 500
            try:
                response = await handler(request)
                code = response.status
            except Problem as problem:
                code = problem.status
                raise
            except web.HTTPException as exc:
                code = exc.status
                raise
            finally:
                self._count_request(request, code, perf_counter() - began_s)
            return response

        return middleware

    def _count_request(self, request: web.Request, code: int, took_s: float) -> None:
        route = template_of(request)
        method = request.method if request.method in _METHODS else "other"
        self._requests.add(method, route, str(code))
        if route not in self._endless and "Prefer" not in request.headers:
            self._duration.add(took_s, method, route)

    async def show(self, request: web.Request) -> web.Response:
        Query(request)
        # Not with the module, else it is a part of each start (15 ms); in a thread, since it reads
        # files.
        await READS.run(import_module, "transports.http.api.exposition")
        from transports.http.api import exposition as to

        feed, sent, streams = self._ports.feed, self._sent, self._streams
        queue = self._ports.system().get("queue", {})
        version = self._settings.version_shown
        families = [
            to.tally(self._requests),
            to.histogram(self._duration),
            to.tally(self._commands),
            to.histogram(self._handling),
            to.tally(self._ended),
            to.gauge("log_head_seq", "The last number given to a change.", feed.head),
            to.gauge("ring_frames", "Changes held in memory.", len(feed)),
            to.gauge("log_oldest_seq", "Changes after this number are in memory.", feed.oldest),
            to.gauges("streams_open", "Open streams.", "transport", streams.by_transport),
            to.counters("stream_disconnects", "Ended streams.", "reason", streams.ended),
            to.tally(sent.resets),
            to.tally(sent.frames),
            to.counter("stream_bytes", "Bytes of frames sent.", sent.bytes),
            to.histogram(sent.lags),
            to.gauges(
                "http_held_bytes",
                "Bytes above the floor of each connection that peers make the gateway hold.",
                "by",
                {"proven": self._memory.proven.held, "unproven": self._memory.unproven.held},
            ),
            to.counters(
                "http_held_refusals",
                "What was refused because too much is held.",
                "by",
                {"proven": self._memory.proven.refused, "unproven": self._memory.unproven.refused},
            ),
            to.gauges("executions", "Executions that have not ended.", "state", self._live()),
            to.gauge(
                "executions_unhealthy", "Running executions that are not well.", self._unhealthy()
            ),
            *self._groups(to.gauges),
            to.gauge("queue_depth", "Commands that wait.", queue.get("waiting", 0)),
            to.gauge(
                "queue_oldest_age_seconds",
                "How long the first has waited.",
                queue.get("oldestAgeS", 0.0),
            ),
            to.gauges("build_info", "Always 1; the labels say which.", "version", {version: 1}),
        ]
        return web.Response(body=to.text_of(families), headers={"Content-Type": to.CONTENT_TYPE})

    def _groups(
        self, gauges: Callable[[str, str, str, dict[str, int]], "Metric"]
    ) -> "list[Metric]":
        """There are as many as the settings name, which has a bound."""
        table = self._ports.table
        views = [v for g in table.groups() if (v := table.group_view(g.name)) is not None]
        numbers = (
            ("group_slots", "Slots of a group of jobs.", "max_running"),
            ("group_running", "Executions that hold a slot of a group.", "running"),
            ("group_waiting", "Executions that wait for a slot of a group.", "waiting"),
        )
        return [
            gauges(name, about, "group", {view.name: getattr(view, field) for view in views})
            for name, about, field in numbers
        ]

    def _live(self) -> dict[str, int]:
        counts = dict.fromkeys(_LIVE, 0)
        for execution in self._ports.table.live_executions():
            counts[execution.status.value] += 1
        return counts

    def _unhealthy(self) -> int:
        live = self._ports.table.live_executions()
        return sum(
            each.health is not None
            and each.health.status is HealthStatus.UNHEALTHY
            and each.status is ExecutionStatus.RUNNING
            for each in live
        )


OPERATIONS = (
    Operation(
        method="GET",
        path="/metrics",
        id="getMetrics",
        handler=Metrics.show,
        summary="Numbers for Prometheus; the role metrics will do",
        audience=Audience.METRICS,
        answers={200: ((TEXT, None),)},
        refuses=READ,
    ),
)
