"""What a table knows, as frozen records: whole, or in parts for a snapshot. No IO, no clock."""

from collections.abc import Iterator

import msgspec

from bus.groups import Group, JobQueue
from bus.job_definition import Job, JobSpec, RolesSpec
from bus.model import CommandRecord, Execution, Maintenance
from bus.schedules import ClockDoubt, ScheduleState
from handlers.decisions import remembered
from handlers.decisions.remembered import RememberedContent

PART_MAX = 500
"""Records in one part: small enough that encoding one never holds up the loop."""
PART_BYTES = 256 * 1024


class TableContent(msgspec.Struct, frozen=True, kw_only=True):
    """What a table knows, or a part of it, in its own order."""

    jobs: tuple[Job, ...] = ()
    specs: tuple[tuple[str, str, JobSpec], ...] = ()
    queues: tuple[tuple[str, tuple[str, ...]], ...] = ()
    executions: tuple[Execution, ...] = ()
    commands: tuple[CommandRecord, ...] = ()
    remembered: RememberedContent = RememberedContent()
    horizon_ms: int = 0
    maintenance: Maintenance | None = None
    stopped_ns: dict[str, int] = {}
    last_roles: dict[str, RolesSpec] = {}
    doubt: ClockDoubt | None = None
    schedules: tuple[tuple[str, str, ScheduleState], ...] = ()
    groups: tuple[Group, ...] = ()
    last_queues: dict[str, JobQueue] = {}
    arrival_ms: int = 0
    arrived_at_ms: int = 0


def parts_of(content: TableContent) -> Iterator[TableContent]:
    """The content in parts that are small enough to be encoded one by one."""
    yield TableContent(
        jobs=content.jobs,
        specs=content.specs,
        queues=content.queues,
        horizon_ms=content.horizon_ms,
        maintenance=content.maintenance,
        stopped_ns=content.stopped_ns,
        last_roles=content.last_roles,
        doubt=content.doubt,
        groups=content.groups,
        last_queues=content.last_queues,
        arrival_ms=content.arrival_ms,
        arrived_at_ms=content.arrived_at_ms,
    )
    for start in range(0, len(content.schedules), PART_MAX):
        yield TableContent(schedules=content.schedules[start : start + PART_MAX])
    for part in remembered.parts_of(content.remembered, PART_BYTES):
        yield TableContent(remembered=part)
    for start in range(0, len(content.executions), PART_MAX):
        yield TableContent(executions=content.executions[start : start + PART_MAX])
    for start in range(0, len(content.commands), PART_MAX):
        yield TableContent(commands=content.commands[start : start + PART_MAX])
