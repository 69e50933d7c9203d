"""Takes secrets out of what a program says: the value, its lines, and how others spell it.

Stdlib only, no IO. A stream comes in reads of any size, so what could be the beginning of a secret
is held back until more came or the stream has ended.
"""

import binascii
import json
from collections.abc import Iterable
from typing import Any

MASK = b"***"
BYTES_MIN = 8
"""A shorter value stands in ordinary output by chance; a mask would reveal more than it hides."""

NEEDLES_MAX = 512
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~")


class Masking:
    """The secrets that must not leave one execution."""

    def __init__(self, values: Iterable[str]) -> None:
        found: dict[bytes, None] = {}
        for value in values:
            for spelling in _spellings(value.encode()):
                if len(spelling) >= BYTES_MIN:
                    found[spelling] = None
        # A value of very many lines is known by its whole and its first lines.
        needles = list(found)[:NEEDLES_MAX]
        # What holds a shorter needle is masked by that one too, but not to its end.
        self.needles = tuple(sorted(needles, key=len, reverse=True))

    def __bool__(self) -> bool:
        return bool(self.needles)

    def stream(self) -> "MaskedStream":
        """For one of the program's pipes."""
        return MaskedStream(self.needles)

    def whole(self, data: bytes) -> bytes:
        """`data`, which is complete, without the secrets."""
        stream = self.stream()
        return stream.feed(data) + stream.end()

    def text(self, text: str) -> str:
        return self.whole(text.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")

    def tree(self, content: Any) -> Any:
        """A decoded JSON value with every text in it masked, names too."""
        if isinstance(content, str):
            return self.text(content)
        if isinstance(content, dict):
            return {self.tree(name): self.tree(value) for name, value in content.items()}
        if isinstance(content, list):
            return [self.tree(value) for value in content]
        return content


def masked(masking: Masking | None, content: Any) -> Any:
    """`content`, a decoded JSON value, without the secrets; as it is where there are none."""
    return content if masking is None else masking.tree(content)


class MaskedStream:
    """One stream of bytes on its way to the disk.

    `_held` may be the beginning of a secret; its first `_replaced` bytes belong to one that was
    replaced already.
    """

    def __init__(self, needles: tuple[bytes, ...]) -> None:
        self._needles = needles
        self._longest = len(needles[0]) if needles else 0
        self._held = b""
        self._replaced = 0

    def feed(self, data: bytes) -> bytes:
        """What may be written now of `data` and of what was held before it."""
        buffer = self._held + data if self._held else data
        return self._pass(buffer, self._open_end(buffer))

    def end(self) -> bytes:
        """The rest: nothing follows, so a mere beginning of a secret is no secret, if it is short.

        A long one is: it would give away most of the value.
        """
        rest, is_replaced = self._held[self._replaced :], self._replaced
        is_long = len(self._held) >= BYTES_MIN
        self._held, self._replaced = b"", 0
        if not rest:
            return b""
        return (b"" if is_replaced else MASK) if is_long else rest

    def _pass(self, buffer: bytes, until: int) -> bytes:
        """`buffer` up to `until` with its secrets replaced; the rest is held."""
        spans = self._spans(buffer)
        if not spans and not self._replaced:
            self._held = buffer[until:]
            return buffer[:until] if until < len(buffer) else buffer
        said: list[bytes] = []
        at, replaced_to = 0, 0
        if self._replaced:
            at = replaced_to = self._replaced
        for start, end in spans:
            if start >= until:
                break
            if start >= replaced_to:
                said.append(buffer[at:start])
                said.append(MASK)
            at = replaced_to = max(at, end)
        said.append(buffer[at : max(at, until)])
        self._held = buffer[until:]
        self._replaced = max(0, replaced_to - until)
        return b"".join(said)

    def _spans(self, buffer: bytes) -> list[tuple[int, int]]:
        """Where the secrets stand, in order; those that overlap are one."""
        found: list[tuple[int, int]] = []
        for needle in self._needles:
            at = buffer.find(needle)
            while at >= 0:
                found.append((at, at + len(needle)))
                at = buffer.find(needle, at + 1)
        if len(found) < 2:
            return found
        found.sort()
        joined = [found[0]]
        for start, end in found[1:]:
            last_start, last_end = joined[-1]
            if start < last_end:
                joined[-1] = (last_start, max(last_end, end))
            else:
                joined.append((start, end))
        return joined

    def _open_end(self, buffer: bytes) -> int:
        """Where the longest end of `buffer` begins that a secret begins with."""
        size = len(buffer)
        first = size
        for needle in self._needles:
            at = max(0, size - len(needle) + 1)
            while True:
                at = buffer.find(needle[:1], at, first)
                if at < 0:
                    break
                if needle.startswith(buffer[at:]):
                    first = at
                    break
                at += 1
        return first


def _spellings(value: bytes) -> Iterable[bytes]:
    """The value, its lines, and how programs write it: JSON, percent signs, base64, hex."""
    core = value.strip(b"\r\n")
    if len(core) < BYTES_MIN:
        return
    yield core
    yield json.dumps(core.decode("utf-8", "replace"))[1:-1].encode()
    yield json.dumps(core.decode("utf-8", "replace"), ensure_ascii=False)[1:-1].encode()
    for kept in (b"", b"/"):
        quoted = percent(core, kept)
        yield quoted
        yield quoted.replace(b"%20", b"+")
    yield core.hex().encode()
    yield core.hex().upper().encode()
    for shift in range(3):
        encoded = _base64_within(core, shift)
        yield encoded
        yield encoded.translate(bytes.maketrans(b"+/", b"-_"))
    if b"\n" in core:
        for line in core.split(b"\n"):
            yield line.strip(b"\r")


def percent(value: bytes, kept: bytes) -> bytes:
    """As in a URL (RFC 3986 §2.1), with upper-case digits; what is `kept` stays as it is."""
    return b"".join(
        bytes((one,)) if one in _PLAIN or one in kept else b"%%%02X" % one for one in value
    )


def _base64_within(value: bytes, shift: int) -> bytes:
    """What base64 makes of the value behind `shift` unknown bytes, whatever comes before and after.

    Only those characters that depend on nothing else: three bytes give four of them.
    """
    encoded = binascii.b2a_base64(b"\0" * shift + value, newline=False)
    first = (0, 2, 3)[shift]
    last = (shift + len(value)) * 8 // 6
    return encoded[first:last]
