"""What `[[schedule]]` of a definition says, and what is known of a schedule: records. No IO.

A schedule is known by its job and its name. Its *mark* changes with what its instants depend on: a
schedule with another mark is another one, and begins when it comes into force.
"""

import hashlib
from enum import StrEnum
from typing import Annotated

import msgspec

from bus.model import Value

NAME_MAX = 128
"""Characters of a schedule's name."""

Moment = Annotated[str, msgspec.Meta(title="a date and a time")]
"""An instant as people write it: `2026-12-24T18:00:00+01:00`; without an offset in the zone."""


class MissedPolicy(StrEnum):
    """What is started for instants that passed while no service ran."""

    ONCE = "once"
    SKIP = "skip"
    ALL = "all"


class Dst(StrEnum):
    """How skipped and repeated local times are treated, if not by `dst_gap` and `dst_fold`."""

    AUTO = "auto"


class Gap(StrEnum):
    """What becomes of a time that the clock skips."""

    RUN = "run"
    SKIP = "skip"


class Fold(StrEnum):
    """What becomes of a time that the clock shows twice."""

    ONCE = "once"
    TWICE = "twice"


class ScheduleSpec(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"except_": "except"}
):
    """One `[[schedule]]`: when the job is started by itself.

    Of a definition in force `name` and `zone` are never empty: the catalog puts them in.
    """

    name: str = ""
    cron: str | None = None
    every_s: int | None = None
    anchor: Moment | None = None
    at: tuple[Moment, ...] | None = None
    calendar: str | None = None
    zone: str = ""
    variables: dict[str, Value] = {}
    missed: MissedPolicy = MissedPolicy.ONCE
    missed_within_s: float = 86_400.0
    jitter_s: float = 0.0
    dst: Dst | None = None
    dst_gap: Gap | None = None
    dst_fold: Fold | None = None
    only: tuple[str, ...] = ()
    except_: tuple[str, ...] = ()


class Verdict(StrEnum):
    """What was decided about an instant of a schedule."""

    STARTED = "started"
    SKIPPED = "skipped"
    COALESCED = "coalesced"


class Why(StrEnum):
    """Why an instant started nothing of its own, or (`blackout`) starts it later."""

    BLACKOUT = "blackout"
    CALENDAR = "calendar"
    DISABLED = "disabled"
    MAINTENANCE = "maintenance"
    MISSED = "missed"
    NO_SPACE = "no_space"
    OVERLAP = "overlap"
    PAUSED = "paused"
    QUEUE_FULL = "queue_full"
    REFUSED = "refused"
    STARTED_BEFORE = "started_before"


class Instants(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Several instants of one schedule, in a row; there may be `more` than were counted."""

    first_ms: int
    last_ms: int
    count: int
    more: bool = False


class Bar(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What keeps an instant of a schedule from starting the job then; `text` is for people.

    With `until_ms` the start waits until that moment; without, there is none.
    """

    why: Why
    text: str
    until_ms: int | None = None


class BarredInstants(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Instants in a row that start nothing for the same reason."""

    instants: Instants
    bar: Bar


class LastDecision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was decided last of a schedule."""

    instant_ms: int
    verdict: Verdict
    why: Why | None = None
    execution_id: str | None = None


class SchedulePause(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A schedule that somebody holds, until they or `until_ms` end it: it starts nothing."""

    reason: str
    by: str
    since_ms: int
    until_ms: int | None = None


class ScheduleState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of one schedule of one job.

    All its instants up to `decided_ms` are decided; None: it begins when the clock is believed
    again. `boot` is the boot of the machine that it has seen, if it goes by these; `gone_ms` is
    when its job was removed, `last` what was decided last. `pause` may be over already.
    """

    mark: str
    decided_ms: int | None
    boot: str = ""
    gone_ms: int | None = None
    last: LastDecision | None = None
    pause: SchedulePause | None = None

    def pause_at(self, at_ms: int) -> SchedulePause | None:
        """The pause that holds at a moment, if one does."""
        is_over = self.pause is None or (
            self.pause.until_ms is not None and self.pause.until_ms <= at_ms
        )
        return None if is_over else self.pause


class ClockDoubt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The wall clock is not believed: nothing is decided of schedules.

    `shown_ms` is what it showed when that began, `believed_ms` the last time that was believed.
    """

    shown_ms: int
    believed_ms: int | None = None


def mark_of(spec: ScheduleSpec) -> str:
    """12 hex digits that change with what the instants of a schedule depend on."""
    rule = (spec.cron, spec.every_s, spec.anchor, spec.at, spec.calendar)
    kept = (*rule, spec.zone, spec.dst_gap, spec.dst_fold, spec.jitter_s)
    return hashlib.blake2b(msgspec.json.encode(kept), digest_size=6).hexdigest()


def default_name(spec: ScheduleSpec) -> str:
    """What a schedule is called whose definition gives it no name: its rule."""
    if spec.cron is not None:
        name = f"cron {' '.join(spec.cron.split())}"
    elif spec.every_s is not None:
        name = f"every {spec.every_s} s"
    elif spec.at is not None:
        more = f" and {len(spec.at) - 1} more" if len(spec.at) > 1 else ""
        name = f"at {spec.at[0] if spec.at else 'no time'}{more}"
    else:
        name = f"calendar {' '.join((spec.calendar or '').split())}"
    return name[:NAME_MAX].rstrip()
