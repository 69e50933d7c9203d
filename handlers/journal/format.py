"""One line of the journal: a decision with its checksum, whole or not at all. No IO.

A line is `crc32hex SP json LF`; the checksum is of the JSON. Fields and their meaning never change;
new ones have defaults, so that older lines decode for ever.
"""

import zlib

import msgspec

from bus.events import AnyEvent


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One decision, or a note of the journal's own.

    `seq` is the number of the first event; the others follow without a hole. All numbers below
    `reserved` may have been given out once this line was synced. `clean` is the last line of an
    orderly stop: `seq` is then the next number. `projected`: files are true up to this number.
    `batch` is the `seq` of the first line of the same write, in all lines but that first.
    """

    seq: int
    at_ms: int
    events: tuple[AnyEvent, ...] = ()
    reserved: int | None = None
    clean: bool = False
    projected: int | None = None
    batch: int | None = None

    @property
    def next_seq(self) -> int:
        """The first number after this record."""
        return self.seq + len(self.events)


class Outline(msgspec.Struct, frozen=True):
    """A record whose events are counted but not read: several times cheaper to decode."""

    seq: int
    at_ms: int
    events: tuple[msgspec.Raw, ...] = ()
    reserved: int | None = None
    clean: bool = False
    projected: int | None = None
    batch: int | None = None

    @property
    def next_seq(self) -> int:
        """The first number after this record."""
        return self.seq + len(self.events)


class Torn(Exception):
    """These bytes are no line that was written whole."""


class Unknown(Exception):
    """The line was written whole, by a version that knows more words than this one."""


_encoder = msgspec.json.Encoder()
_record_decoder = msgspec.json.Decoder(Record)
_outline_decoder = msgspec.json.Decoder(Outline)
_CRC_LENGTH = 9  # eight digits and the space


def encode_line(record: Record) -> bytes:
    return frame_line(_encoder.encode(record))


def decode_line(line: bytes) -> Record:
    """The record of one line, with or without its LF.

    Raises:
        Torn: the checksum does not fit.
        Unknown: it does, but this is no record that this version can read.
    """
    content = unframe_line(line)
    try:
        return _record_decoder.decode(content)
    except msgspec.MsgspecError as error:
        raise Unknown(str(error)) from error


def decode_outline(line: bytes) -> Outline:
    """As `decode_line`, without a look at the events."""
    content = unframe_line(line)
    try:
        return _outline_decoder.decode(content)
    except msgspec.MsgspecError as error:
        raise Unknown(str(error)) from error


def frame_line(content: bytes) -> bytes:
    """The JSON `content` with its checksum, as exactly one line."""
    if b"\n" in content or b"\r" in content:
        # JSON that was taken over as it came (`msgspec.Raw`) may be laid out in lines.
        content = msgspec.json.format(content, indent=-1)
    return b"%08x %b\n" % (zlib.crc32(content), content)


def unframe_line(line: bytes) -> bytes:
    """The content of a line whose checksum fits.

    Raises:
        Torn: it does not.
    """
    content = line[_CRC_LENGTH:].removesuffix(b"\n")
    if not content or line[:_CRC_LENGTH] != b"%08x " % zlib.crc32(content):
        raise Torn("the checksum does not fit")
    return content
