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


class Torn(Exception):
    """These bytes are no line that was written whole."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)
_CRC_DIGITS = 8


def encode_line(record: Record) -> bytes:
    return frame_line(_encoder.encode(record))


def decode_line(line: bytes) -> Record:
    """The record of one line, with or without its LF.

    Raises:
        Torn: the checksum does not fit, or the JSON is not a record.
    """
    try:
        return _decoder.decode(unframe_line(line))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Torn(str(error)) from error


def frame_line(content: bytes) -> bytes:
    """`content`, which holds no LF, with its checksum as one line."""
    return b"%08x %b\n" % (zlib.crc32(content), content)


def unframe_line(line: bytes) -> bytes:
    """The content of a line whose checksum fits.

    Raises:
        Torn: it does not.
    """
    content = line[_CRC_DIGITS + 1 :].removesuffix(b"\n")
    try:
        expected = int(line[:_CRC_DIGITS], 16)
    except ValueError as error:
        raise Torn("no checksum") from error
    if line[_CRC_DIGITS : _CRC_DIGITS + 1] != b" " or zlib.crc32(content) != expected:
        raise Torn("the checksum does not fit")
    return content
