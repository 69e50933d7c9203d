"""What an event makes of the state of one schedule. No IO, no clock."""

from msgspec.structs import replace

from bus.events import ScheduleBegun, ScheduleDecided
from bus.schedules import LastDecision, ScheduleState


def changed(before: ScheduleState | None, event: ScheduleBegun | ScheduleDecided) -> ScheduleState:
    """The state after the event; what was decided last outlives a new rule."""
    match event:
        case ScheduleBegun():
            last = before.last if before is not None else None
            return ScheduleState(
                mark=event.mark, decided_ms=event.from_ms, boot=event.boot, last=last
            )
        case ScheduleDecided():
            assert before is not None, event
            last = LastDecision(
                instant_ms=event.instant_ms,
                verdict=event.verdict,
                why=event.why,
                execution_id=event.execution_id,
            )
            decided_ms = max(event.instant_ms, before.decided_ms or 0)
            return replace(before, decided_ms=decided_ms, boot=event.boot or before.boot, last=last)
