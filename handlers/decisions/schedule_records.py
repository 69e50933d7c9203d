"""What an event makes of the state of one schedule. No IO, no clock."""

from msgspec.structs import replace

from bus.events import ScheduleBegun, ScheduleDecided, SchedulePaused, ScheduleResumed
from bus.schedules import LastDecision, SchedulePause, ScheduleState

ScheduleEvent = ScheduleBegun | ScheduleDecided | SchedulePaused | ScheduleResumed


def inherited(own: ScheduleState | None, left: ScheduleState | None) -> ScheduleState | None:
    """What a renamed job knows of a schedule; what its former name has left fills gaps."""
    if own is None or left is None:
        return own or left
    return replace(own, last=own.last or left.last, pause=own.pause or left.pause)


def changed(before: ScheduleState | None, event: ScheduleEvent, at_ms: int) -> ScheduleState:
    """The state after the event; what was decided last, and a pause, outlive a new rule."""
    match event:
        case ScheduleBegun():
            return ScheduleState(
                mark=event.mark,
                decided_ms=event.from_ms,
                boot=event.boot,
                last=before.last if before is not None else None,
                pause=before.pause if before is not None else None,
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
        case SchedulePaused():
            assert before is not None, event
            pause = SchedulePause(
                reason=event.reason, by=event.by, since_ms=at_ms, until_ms=event.until_ms
            )
            return replace(before, pause=pause)
        case ScheduleResumed():
            assert before is not None, event
            return replace(before, pause=None)
