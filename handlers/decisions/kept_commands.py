"""What is kept of an ended command for good, and how much each principal has kept. No IO, no clock.

Promise 2 rests on the ids of commands that had an effect: they are dropped by age and by nothing
else. So no command without an effect may get among them, and no principal may have so many that
others find no room.
"""

from collections.abc import Iterable

import msgspec

from bus.envelope import SCHEDULED
from bus.errors import ErrorCode
from bus.model import CommandRecord, CommandStatus

READS_MAX = 200_000
READS_BYTES_MAX = 128 * 1024**2
READS_BYTES_IN_ALL_MAX = 256 * 1024**2
"""Ended commands without an effect that are held at one time, of one principal and of all: more are
not taken. Retention keeps far fewer; this is what comes faster than it looks."""


def is_counted(command: CommandRecord) -> bool:
    """Whether it takes a place of its principal: it has ended, or has an effect already."""
    return command.is_final or (command.status is CommandStatus.RUNNING and had_effect(command))


def had_effect(command: CommandRecord) -> bool:
    """Whether a repeat of the command would not be the same again.

    A read is answered again, a refusal decided again. What was cancelled, superseded or attempted,
    and what is only known by its id, must never be handled again. Of schedules the table knows
    which instants are decided: their ids, one a second for years, need not be kept for that.
    """
    if command.user_id.startswith(SCHEDULED):
        return False
    match command.status:
        case CommandStatus.REJECTED:
            # Poison was in hand when starts of the service died, and would be again.
            return command.error_code == ErrorCode.POISON
        case CommandStatus.EXPIRED:
            return command.execution_id is not None  # else it expired undecided, and will again
        case _:
            return command.kind != "status"


def size_of(command: CommandRecord) -> int:
    """What clients choose the length of; the rest of a record is small."""
    texts = [command.error or "", *command.roles]
    for name, value in (command.variables or {}).items():
        texts += (name, value) if isinstance(value, str) else (name,)
    return len(memoryview(command.result)) + sum(map(_utf8_size, texts))


def _utf8_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


class Holding(msgspec.Struct, frozen=True):
    """What one principal, or all, have kept."""

    count: int = 0
    size_bytes: int = 0


_NOTHING = Holding()


class Holdings:
    """How much each principal has; who has nothing takes no room here."""

    def __init__(self) -> None:
        self._held: dict[str, Holding] = {}
        self.in_all = _NOTHING

    def __len__(self) -> int:
        return len(self._held)

    def of(self, user_id: str) -> Holding:
        return self._held.get(user_id, _NOTHING)

    def each(self) -> list[Holding]:
        return list(self._held.values())

    def copy(self) -> "Holdings":
        twin = Holdings()
        twin._held = self._held.copy()
        twin.in_all = self.in_all
        return twin

    def change(self, user_id: str, count: int, size_bytes: int = 0) -> None:
        """So many more of the principal's, or less."""
        before = self.of(user_id)
        after = Holding(before.count + count, before.size_bytes + size_bytes)
        assert after.count >= 0, user_id
        if after.count:
            self._held[user_id] = after
        else:
            self._held.pop(user_id, None)
        self.in_all = Holding(self.in_all.count + count, self.in_all.size_bytes + size_bytes)


def fair_share(amounts: Iterable[int], most: int) -> int:
    """The largest amount that each may keep so that all together have no more than `most`.

    Who has less keeps all of it; only those that have the most are cut, to the same level.
    """
    left = most
    rising = sorted(amounts)
    for number, amount in enumerate(rising):
        others = len(rising) - number
        if amount * others > left:
            return left // others
        left -= amount
    return most
