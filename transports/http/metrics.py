"""`/metrics` for Prometheus: what is counted as it happens, and what is looked up when asked.

Names are `jobbus_…` in base units; no label holds an id or a user. It needs a token with the role
`metrics` (or `admin`): how much a service does is nobody else's business.
"""

from collections.abc import Iterable, Sequence
from time import perf_counter

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from bus.access import ADMIN
from bus.events import CommandEnded, ExecutionEnded, Published
from bus.model import CommandRecord, ExecutionStatus
from transports.http.auth import principal_of
from transports.http.fanout import Told
from transports.http.middleware import template_of
from transports.http.problems import Problem
from transports.http.query import Query
from transports.http.settings import GatewayPorts, GatewaySettings
from transports.http.stream_registry import StreamRegistry

ROLE = "metrics"
PATH = "/metrics"
STREAMS = frozenset({"/api/v1/events", "/api/v1/executions/{id}/stream", "/api/v1/ws"})
"""Routes whose answers last for as long as the caller likes: their duration says nothing, as does
that of a request which prefers to wait."""

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
    """The numbers of one gateway. As a `bus.ports.ChangeListener` it counts what the owner does."""

    def __init__(
        self,
        ports: GatewayPorts,
        settings: GatewaySettings,
        registry: StreamRegistry,
        told: Told,
    ) -> None:
        self._ports = ports
        self._settings = settings
        self._streams = registry
        self._told = told
        self._prometheus = CollectorRegistry()
        self._prometheus.register(self)
        self._requests = Counter(
            "jobbus_http_requests",
            "Answers by method, route template and status code.",
            ("method", "route", "code"),
            registry=self._prometheus,
        )
        self._duration = Histogram(
            "jobbus_http_request_duration_seconds",
            "Time from a request's head to the end of its answer; streams are left out.",
            ("method", "route"),
            registry=self._prometheus,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30),
        )
        self._commands = Counter(
            "jobbus_commands",
            "Ended commands by what was asked for and what came of it.",
            ("type", "outcome"),
            registry=self._prometheus,
        )
        self._handling = Histogram(
            "jobbus_command_handle_seconds",
            "Time from a command's submission to its end.",
            ("type",),
            registry=self._prometheus,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 15, 60, 300, 3600),
        )
        self._ended = Counter(
            "jobbus_executions_ended",
            "Ended executions by final state.",
            ("state",),
            registry=self._prometheus,
        )

    def __call__(self, batch: Sequence[Published]) -> None:
        for published in batch:
            event = published.event
            if isinstance(event, CommandEnded):
                self._count_command(self._ports.table.command(event.command_id))
            elif isinstance(event, ExecutionEnded):
                self._ended.labels(event.status.value).inc()

    def _count_command(self, record: CommandRecord | None) -> None:
        if record is None:
            return
        outcome = record.outcome.value if record.outcome else record.error_code
        self._commands.labels(record.kind, outcome or record.status.value).inc()
        took_ms = (record.processed_ms or record.submitted_ms) - record.submitted_ms
        self._handling.labels(record.kind).observe(max(took_ms, 0) / 1000)

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
        self._requests.labels(method, route, str(code)).inc()
        if route not in STREAMS and "Prefer" not in request.headers:
            self._duration.labels(method, route).observe(took_s)

    def routes(self) -> list[web.RouteDef]:
        return [web.get(PATH, self.show)]

    async def show(self, request: web.Request) -> web.Response:
        Query(request)
        if not {ADMIN, ROLE} & set(principal_of(request).roles):
            raise Problem(403, "forbidden", f"this needs a token with the role {ROLE} or admin")
        return web.Response(
            body=generate_latest(self._prometheus), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    def collect(self) -> Iterable[Metric]:
        """What is looked up when somebody asks; called by prometheus_client."""
        feed, told = self._ports.feed, self._told
        yield _gauge("log_head_seq", "The last number given to a change.", feed.head)
        yield _gauge("ring_frames", "Changes held in memory.", len(feed))
        yield _gauge("log_oldest_seq", "Changes after this number are in memory.", feed.oldest)
        streams = self._streams
        yield _gauges("streams_open", "Open streams.", "transport", streams.by_transport)
        yield _counters("stream_disconnects", "Ended streams.", "reason", streams.ended)
        yield _counters("stream_resets", "Readers that had to start anew.", "reason", told.resets)
        yield _counter("stream_frames", "Changes told to readers that keep up.", told.frames)
        yield _counter("stream_bytes", "Bytes of changes told to them.", told.bytes)
        live = dict.fromkeys(_LIVE, 0)
        for execution in self._ports.table.live_executions():
            live[execution.status.value] += 1
        yield _gauges("executions", "Executions that have not ended.", "state", live)
        queue = self._ports.system().get("queue", {})
        yield _gauge("queue_depth", "Commands that wait.", queue.get("waiting", 0))
        age_s = queue.get("oldestAgeS")
        if age_s is not None:
            yield _gauge("queue_oldest_age_seconds", "How long the first has waited.", age_s)
        build = GaugeMetricFamily(
            "jobbus_build_info", "Always 1; the labels say which.", labels=("version",)
        )
        build.add_metric((self._settings.version,), 1)
        yield build


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(f"jobbus_{name}", about, value=value)


def _gauges(name: str, about: str, label: str, values: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(f"jobbus_{name}", about, labels=(label,))
    for word, value in values.items():
        family.add_metric((word,), value)
    return family


def _counter(name: str, about: str, value: float) -> Metric:
    return CounterMetricFamily(f"jobbus_{name}", about, value=value)


def _counters(name: str, about: str, label: str, values: dict[str, int]) -> Metric:
    family = CounterMetricFamily(f"jobbus_{name}", about, labels=(label,))
    for word, value in values.items():
        family.add_metric((str(word),), value)
    return family
