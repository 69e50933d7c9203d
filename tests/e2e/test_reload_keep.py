"""What is kept of the past: a changed `[keep]` counts for all that it names, without a restart."""

from bus.audit import AuditEntry
from bus.clock import SystemClock, rfc3339
from bus.layout import DataLayout
from bus.retention_settings import DAY_MS
from handlers.audit.segments import AuditSegments
from tests.e2e.test_reload import Configured, configured
from tests.service import Service, eventually, eventually_answered

__all__ = ["configured"]

KEEP = """
[keep]
executions = 2
commands = 3
rejects = 3
reject_days = 1
audit_days = 20
"""


def reject(layout: DataLayout, at_ms: int, number: int) -> str:
    """A file in Rejects that lies there since then; its name."""
    stamp = rfc3339(at_ms).translate(str.maketrans("", "", "-:."))
    name = f"{stamp}-{number:016x}"
    (layout.rejects / f"{name}.json").write_bytes(b"{")
    (layout.rejects / f"{name}.reason.json").write_bytes(b'{"OriginalName":"a","Reason":"b"}')
    return name


def old_audit(layout: DataLayout, at_ms: int) -> None:
    """The audit has a segment of that day."""
    segments = AuditSegments.open(layout.audit)
    segments.append([AuditEntry(at=rfc3339(at_ms), kind="note", actor="ada", action="x")], at_ms)
    segments.close()


def rejected(layout: DataLayout) -> list[str]:
    return sorted(p.name.partition(".")[0] for p in layout.rejects.glob("*.reason.json"))


async def run(service: Service, job_id: str, count: int) -> list[str]:
    ids = []
    async with service.http() as http:
        for _ in range(count):
            ids.append(await http.start(job_id))
            await http.ended(ids[-1])
    return ids


async def test_keep_counts_at_once_for_records_rejects_and_the_audit(
    configured: Configured,
) -> None:
    service, layout = configured.service, DataLayout(configured.service.data)
    now_ms = SystemClock().now_ms()
    for folder in (layout.audit, layout.rejects):
        folder.mkdir(mode=0o700, parents=True)
    for days in (40, 30):
        old_audit(layout, now_ms - days * DAY_MS)
    reject(layout, now_ms - 3 * DAY_MS, 0)
    fresh = [reject(layout, now_ms - 10_000 + number, number) for number in range(1, 6)]
    configured.write("")
    configured.start()
    ids = await run(service, "L/Plain", 4)
    oldest = sorted(layout.audit.iterdir())[0]
    assert len(rejected(layout)) == 6
    reloaded = await configured.reload(KEEP)
    assert reloaded["changed"] == [
        f"[keep] {name}"
        for name in ("executions", "commands", "rejects", "reject_days", "audit_days")
    ]
    assert not configured.said("some settings change at the next start only")
    async with service.http() as http:

        async def few() -> bool:
            return len(await http.executions("L/Plain")) == 2

        await eventually_answered(few, "executions were forgotten")
        assert [e["executionId"] for e in await http.executions("L/Plain")] == ids[:1:-1]
    await eventually(lambda: not oldest.exists(), "the audit was cut")
    await eventually(lambda: rejected(layout) == fresh[2:], "rejected files are gone")
    assert {path.name.partition(".")[0] for path in layout.rejects.iterdir()} == set(fresh[2:])


async def test_keep_of_a_job_counts_when_its_definition_has_changed(
    configured: Configured,
) -> None:
    service = configured.service
    configured.write("")
    configured.start()
    ids = await run(service, "L/Plain", 4)
    service.apps.shell("L/Plain", "exit 0", keep={"executions": 1})
    async with service.http() as http:

        async def few() -> bool:
            return len(await http.executions("L/Plain")) == 1

        await eventually_answered(few, "executions were forgotten")
        assert [e["executionId"] for e in await http.executions("L/Plain")] == ids[3:]
