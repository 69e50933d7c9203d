"""One line of the journal: it is there whole or not at all, and old ones are read for ever."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.events import CommandEnded, ExecutionStarted, JobRemoved
from bus.model import CommandStatus
from handlers.journal.format import (
    Outline,
    Record,
    Torn,
    Unknown,
    decode_line,
    decode_outline,
    encode_line,
    frame_line,
    unframe_line,
)

GOLDEN = {
    b'51bd8c98 {"seq":9,"at_ms":1,"reserved":65545}\n': Record(seq=9, at_ms=1, reserved=65545),
    b'521def41 {"seq":9,"at_ms":2,"clean":true}\n': Record(seq=9, at_ms=2, clean=True),
    b'4db44cb1 {"seq":9,"at_ms":3,"projected":8}\n': Record(seq=9, at_ms=3, projected=8),
}
"""Lines as they stand on disks out there."""

events = st.builds(JobRemoved, job_id=st.text()) | st.builds(
    ExecutionStarted, execution_id=st.text()
)
records = st.builds(
    Record,
    seq=st.integers(1, 2**62),
    at_ms=st.integers(0, 2**50),
    events=st.lists(
        st.builds(JobRemoved, job_id=st.text())
        | st.builds(ExecutionStarted, execution_id=st.text())
    ).map(tuple),
    reserved=st.none() | st.integers(1, 2**62),
    clean=st.booleans(),
    projected=st.none() | st.integers(0, 2**62),
    batch=st.none() | st.integers(1, 2**62),
)


@pytest.mark.parametrize(("line", "record"), GOLDEN.items())
def test_lines_of_the_first_version_are_written_and_read_as_ever(
    line: bytes, record: Record
) -> None:
    assert encode_line(record) == line
    assert decode_line(line) == record


@given(record=records)
def test_a_record_becomes_one_line_and_comes_back(record: Record) -> None:
    line = encode_line(record)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert b"\0" not in line
    assert decode_line(line) == record


@given(record=records, data=st.data())
def test_a_changed_byte_is_noticed(record: Record, data: st.DataObject) -> None:
    line = bytearray(encode_line(record))
    position = data.draw(st.integers(0, len(line) - 2))
    line[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Torn):
        decode_line(bytes(line))


@given(record=records, data=st.data())
def test_a_piece_of_a_line_is_not_taken_for_one(record: Record, data: st.DataObject) -> None:
    line = encode_line(record)
    begin = data.draw(st.integers(0, len(line) - 1))
    end = data.draw(st.integers(begin, len(line) - 1))
    if (begin, end) == (0, len(line) - 1):
        return  # without its LF a line is still whole
    with pytest.raises(Torn):
        decode_line(line[begin:end])


@given(record=records)
def test_the_outline_has_what_the_record_has(record: Record) -> None:
    outline = decode_outline(encode_line(record))
    for name in Outline.__struct_fields__:
        if name != "events":
            assert getattr(outline, name) == getattr(record, name)
    assert outline.next_seq == record.next_seq


def test_a_result_that_is_laid_out_in_lines_stays_in_one() -> None:
    result = msgspec.Raw(b'{\r\n  "text": "two\\nlines"\n}')
    ended = CommandEnded(command_id="c", status=CommandStatus.COMPLETED, result=result)
    line = encode_line(Record(seq=1, at_ms=0, events=(ended,)))
    assert line.count(b"\n") == 1
    [event] = decode_line(line).events
    assert isinstance(event, CommandEnded)
    assert event.result is not None
    assert msgspec.json.decode(event.result) == {"text": "two\nlines"}


def test_a_whole_line_of_a_newer_version_is_not_taken_for_a_torn_one() -> None:
    newer = frame_line(b'{"seq":1,"at_ms":0,"events":[{"type":"moon.landed"}]}')
    with pytest.raises(Unknown, match=r"moon\.landed"):
        decode_line(newer)
    assert decode_outline(newer).next_seq == 2


def test_a_field_of_a_newer_version_is_passed_over() -> None:
    line = frame_line(b'{"seq":1,"at_ms":0,"colour":"red"}')
    assert decode_line(line) == Record(seq=1, at_ms=0)


@given(content=st.binary(min_size=1).filter(lambda b: b"\n" not in b and b"\r" not in b))
def test_any_content_of_one_line_is_framed(content: bytes) -> None:
    assert unframe_line(frame_line(content)) == content
