"""The state that changes are applied to: jobs, live executions and those that ended lately.

No IO. Everything here is synchronous, so that a snapshot and its position belong together.
"""

from collections.abc import Iterator
from itertools import islice

import msgspec

from bus.job_definition import Job
from bus.model import Execution, Principal
from bus.views import execution_view, job_view
from transports.http.access.visibility import Visibility
from transports.http.ports import GatewayPorts
from transports.http.settings import GatewaySettings
from transports.http.streams.encodings import Encoding
from transports.http.streams.filters import Filters
from transports.http.streams.reader_frames import Framing

RECORDS_A_FRAME = 100
SCAN_MAX = 5_000
"""How many of the newest executions are looked at for those that ended lately."""


class Record(msgspec.Struct, frozen=True):
    """One thing of the table with its JSON, made once for all readers of this position."""

    subject: Job | Execution
    data: bytes


class Snapshots:
    """Makes snapshots; the encoded records are kept until the feed moves on."""

    def __init__(
        self,
        ports: GatewayPorts,
        settings: GatewaySettings,
        visibility: Visibility,
        framing: Framing,
    ) -> None:
        self._ports = ports
        self._table = ports.table
        self._feed = ports.feed
        self._clock = ports.clock
        self._framing = framing
        self._settings = settings
        self._visibility = visibility
        self._at = -1
        self._records: list[Record] = []

    def take(self, principal: Principal, filters: Filters, encoding: Encoding) -> list[bytes]:
        """The frames of a snapshot at the feed's head, the last one with the position."""
        records = [r.data for r in self._current() if self._wanted(r.subject, principal, filters)]
        frames = [
            self._framing.frame(encoding, "snapshot", items_of(records[at : at + RECORDS_A_FRAME]))
            for at in range(0, len(records), RECORDS_A_FRAME)
        ]
        count = b'{"count":%d}' % len(records)
        position = self._feed.position(self._feed.head)
        frames.append(self._framing.frame(encoding, "snapshot_end", count, id=position))
        return frames

    def _current(self) -> list[Record]:
        if self._at != self._feed.head:
            self._records = [
                Record(subject, record_json(self._ports, subject)) for subject in self._subjects()
            ]
            self._at = self._feed.head
        return self._records

    def _subjects(self) -> Iterator[Job | Execution]:
        yield from self._table.jobs()
        yield from self._table.live_executions()
        since_ms = self._clock.now_ms() - int(self._settings.snapshot_age_s * 1000)
        ended = (
            execution
            for execution in islice(self._table.executions(), SCAN_MAX)
            if execution.is_final and (execution.end_ms or execution.queued_ms) >= since_ms
        )
        yield from islice(ended, self._settings.snapshot_max)

    def _wanted(self, subject: Job | Execution, principal: Principal, filters: Filters) -> bool:
        if isinstance(subject, Job):
            return (
                filters.want_any_of("job.")
                and filters.fit_subject(subject.id, None, None)
                and self._visibility.of_job(principal, subject)
            )
        return (
            filters.want_any_of("execution.")
            and filters.fit_subject(subject.job_id, subject.id, subject.user_id)
            and self._visibility.of_execution(principal, subject)
        )


def record_json(ports: GatewayPorts, subject: Job | Execution) -> bytes:
    """The record as other answers have it, with the `subject` that its changes carry first."""
    if isinstance(subject, Job):
        name, view = f"jobs/{subject.id}", msgspec.json.encode(job_view(subject))
    else:
        shown = execution_view(subject, ports.waiting_for(subject))
        name, view = f"executions/{subject.id}", msgspec.json.encode(shown)
    return b'{"subject":%s,%s' % (msgspec.json.encode(name), view[1:])


def items_of(records: list[bytes]) -> bytes:
    """Encoded records as the data of a `snapshot` frame."""
    return b'{"items":[%s]}' % b",".join(records)
