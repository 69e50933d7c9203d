"""The ids of forgotten commands, as small as they get: about 55 bytes each. No IO, no clock.

An id is found by the bytes themselves in one of a few thousand buckets; nothing is an object of its
own. Buckets are never changed in place, so that a copy of all of them is a copy of references.
"""

import hashlib
import struct
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from bus.model import CommandRecord, CommandStatus, ForgottenCommand

_ENTRY = struct.Struct(">16s16sIQ")
"""Command id, body hash, number of the user, number of the entry."""

_BUCKETS = 4096


TURNS = 32
"""So many turns must come after an id before it is dropped: two more than the days are cut into,
since a clock that was set wrong makes a turn come early."""

DAYS_CUT = 30
"""`[keep] id_days` are cut into so many equal parts; each of them ends with a turn."""


class Turn(msgspec.Struct, frozen=True, array_like=True):
    """A part of the days ended at `at_ms`; the ids before number `ids` were remembered by then."""

    ids: int
    at_ms: int


class RememberedContent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The store, or a part of it: `entries` are packed, `times_ms` stand beside them in order.

    `first` is the number of the first entry that still counts. `turns` are the newest, in order.
    """

    first: int = 0
    seq: int = 0
    users: tuple[str, ...] = ()
    entries: tuple[bytes, ...] = ()
    times_ms: bytes = b""
    turns: tuple[Turn, ...] = ()


class Remembered:
    """Which ids stood for which command. They go by their age alone, the oldest first.

    Age is counted in turns, which the service makes as time passes for it, and not by what a clock
    says at one moment: a wrong clock must not make an id look old.

    The working and the published table share one of these. Each event is taken in once, by the
    working table, which comes first: it only ever adds what the other one still has as a record.
    """

    def __init__(self) -> None:
        self._buckets: list[bytes] = [b""] * _BUCKETS
        self._times_ms = array("q")
        self._first = 0
        self._users: list[str] = []
        self._numbers: dict[str, int] = {}
        self._free: list[int] = []
        self._seq = 0
        # Beside the times: whose each is, so that what is dropped is taken off their count.
        self._owners = array("I")
        self._counts: dict[int, int] = {}
        self.turns: tuple[Turn, ...] = ()

    def __len__(self) -> int:
        return len(self._times_ms)

    @property
    def first(self) -> int:
        """How many were dropped so far."""
        return self._first

    @property
    def size_bytes(self) -> int:
        """What the entries take in memory."""
        beside = self._times_ms.itemsize + self._owners.itemsize
        return sum(map(len, self._buckets)) + beside * len(self._times_ms)

    @property
    def principals(self) -> int:
        """How many have ids here."""
        return len(self._counts)

    def count_of(self, user_id: str) -> int:
        """How many ids of the principal's commands are remembered."""
        return self._counts.get(self._numbers.get(user_id, -1), 0)

    def times_ms(self) -> Sequence[int]:
        """A copy of the times of all entries, oldest entry first."""
        return self._times_ms[:]

    def find(self, command_id: str) -> ForgottenCommand | None:
        if not self._times_ms:
            return None
        try:
            key = _key_of(command_id)
        except ValueError:
            return None  # not an id that a command could have come in under
        bucket = self._buckets[_bucket_of(key)]
        at = bucket.find(key)
        while at >= 0:
            if at % _ENTRY.size == 0:
                _, body, user, number = _ENTRY.unpack_from(bucket, at)
                if number >= self._first:
                    return ForgottenCommand(
                        id=command_id, body_hash=body.hex(), user_id=self._users[user]
                    )
            at = bucket.find(key, at + 1)
        return None

    def take(
        self,
        seq: int,
        commands: Iterable[CommandRecord],
        ids_dropped: int,
        turned_ms: int | None = None,
    ) -> None:
        """The commands of the event `seq` are remembered, the first `ids_dropped` ever are not."""
        if seq <= self._seq:
            return
        self._seq = seq
        for command in commands:
            self._add(command)
        if ids_dropped > self._first:
            self._drop(ids_dropped - self._first)
        if turned_ms is not None:
            turn = Turn(self._first + len(self._times_ms), turned_ms)
            self.turns = (*self.turns, turn)[-TURNS - 1 :]

    def _add(self, command: CommandRecord) -> None:
        key = _key_of(command.id)
        user = self._user(command.user_id)
        number = self._first + len(self._times_ms)
        entry = _ENTRY.pack(key, _packed_hash(command.body_hash), user, number)
        index = _bucket_of(key)
        self._buckets[index] = self._living(self._buckets[index]) + entry
        # A writer's clock may be ahead; no command was submitted after it was handled.
        self._times_ms.append(min(command.submitted_ms, command.processed_ms or 0))
        self._owners.append(user)
        self._counts[user] = self._counts.get(user, 0) + 1

    def _drop(self, count: int) -> None:
        for user, gone in Counter(self._owners[:count]).items():
            self._counts[user] -= gone
            if not self._counts[user]:
                del self._counts[user], self._numbers[self._users[user]]
                self._users[user] = ""
                self._free.append(user)
        del self._times_ms[:count]
        del self._owners[:count]
        self._first += count

    def _living(self, bucket: bytes) -> bytes:
        """The bucket without the dropped entries at its front."""
        begin = 0
        while begin < len(bucket) and _ENTRY.unpack_from(bucket, begin)[3] < self._first:
            begin += _ENTRY.size
        return bucket[begin:]

    def _user(self, user_id: str) -> int:
        number = self._numbers.get(user_id)
        if number is None:
            # Entries that were dropped may still bear a freed number, but are not looked at.
            number = self._free.pop() if self._free else len(self._users)
            self._users[number : number + 1] = [user_id]
            self._numbers[user_id] = number
        return number

    def freeze(self) -> RememberedContent:
        """Cheap: what lives is not copied, but where something dropped stands before it."""
        return RememberedContent(
            first=self._first,
            seq=self._seq,
            users=tuple(self._users),
            entries=tuple(map(self._living, self._buckets)) if self._times_ms else (),
            times_ms=self._times_ms.tobytes(),
            turns=self.turns,
        )

    def thaw(self, content: RememberedContent) -> None:
        """Takes in a part of what `freeze` gave; the part with the times comes first."""
        self._first = max(self._first, content.first)
        self._seq = max(self._seq, content.seq)
        self._users.extend(content.users)
        self._times_ms.frombytes(content.times_ms)
        self._owners.frombytes(bytes(self._owners.itemsize * (len(self) - len(self._owners))))
        self.turns = content.turns or self.turns
        for entries in content.entries:
            living = self._living(entries)
            if living:
                index = _bucket_of(living[:16])
                self._buckets[index] += living
                self._count(living)

    def thawed(self) -> None:
        """All parts were taken in: who has ids here is known, and which numbers are free."""
        self._counts = dict(Counter(self._owners))
        self._free = [n for n in range(len(self._users)) if n not in self._counts]
        for free in self._free:
            self._users[free] = ""
        self._numbers = {user: n for n, user in enumerate(self._users) if n in self._counts}

    def _count(self, living: bytes) -> None:
        for _, _, user, number in _ENTRY.iter_unpack(living):
            if number < self._first + len(self._owners):
                self._owners[number - self._first] = user


def as_record(command: ForgottenCommand) -> CommandRecord:
    """The command for those who ask whether an id was handled and by whom; what came of it is not
    known any more."""
    return CommandRecord(
        id=command.id,
        kind="",
        user_id=command.user_id,
        submitted_ms=0,
        body_hash=command.body_hash,
        status=CommandStatus.COMPLETED,
    )


def parts_of(content: RememberedContent, size: int) -> Iterable[RememberedContent]:
    """The content in parts of about `size` bytes, to be thawed in this order."""
    yield RememberedContent(
        first=content.first,
        seq=content.seq,
        users=content.users,
        times_ms=content.times_ms,
        turns=content.turns,
    )
    part: list[bytes] = []
    taken = 0
    for entries in filter(None, content.entries):
        part.append(entries)
        taken += len(entries)
        if taken >= size:
            yield RememberedContent(entries=tuple(part))
            part, taken = [], 0
    if part:
        yield RememberedContent(entries=tuple(part))


def _key_of(command_id: str) -> bytes:
    """The bytes of a UUID; at each publish, and several times quicker than `uuid.UUID`.

    Raises:
        ValueError: it is none.
    """
    key = bytes.fromhex(command_id.replace("-", ""))
    if len(key) != 16:
        raise ValueError("not a UUID")
    return key


def _bucket_of(key: bytes) -> int:
    # The end of a UUID is random in those of versions 4 and 7; a client that picks ids of one
    # bucket makes looking there slower, by a search through its own ids.
    return (key[-1] << 4 | key[-2] >> 4) % _BUCKETS


def _packed_hash(body_hash: str) -> bytes:
    try:
        packed = bytes.fromhex(body_hash)
    except ValueError:
        packed = b""
    if len(packed) == 16:
        return packed
    return hashlib.blake2b(body_hash.encode(), digest_size=16).digest()
