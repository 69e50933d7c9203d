"""Whatever stands in the files and datagrams that others write: no exception, no wrong state.

The quick run tries a few inputs of each kind; `-m exhaustive` tries many, and says how many.
"""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bus.clock import rfc3339
from bus.commands import StartJob
from bus.envelope import Envelope, seal
from bus.errors import Refused
from bus.events import ExecutionEnded
from bus.job_definition import DefinitionFault, JobSpec
from bus.model import ExecutionStatus, ExitRecord, Principal, Reason
from handlers.catalog.definition_decoding import decode_definition
from handlers.journal.format import Record, Torn, Unknown, decode_line, decode_outline, encode_line
from handlers.shim.assignment import StopOrder
from handlers.shim.files import Folder
from handlers.shim.ladder import StopLadder
from handlers.shim.notify_socket import parse_notify
from handlers.shim.progress_file import ProgressFile
from handlers.shim.progress_words import parse_record
from handlers.supervision.record import decode_exit, decode_state
from tests.tally import Kind, Tally
from transports.directory import command_format, disk
from transports.directory.command_files import FileReader
from transports.directory.command_format import NotACommand
from transports.directory.settings import DirectorySettings

SECRET = b"s" * 32
ALICE = Principal(user_id="alice", roles=("operator",), via="http")

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["1e999", "\x00", "\ud800", "../..", "9" * 400]),
)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


def objects(*names: str) -> st.SearchStrategy[bytes]:
    """JSON objects with these fields and others, of any types, as Python writes them."""
    fields = st.dictionaries(st.sampled_from(names) | st.text(max_size=5), trees, max_size=12)
    return fields.map(lambda content: json.dumps(content).encode())


def bent(content: bytes) -> st.SearchStrategy[bytes]:
    """What becomes of `content` by a few changed, lost, added or cut bytes."""

    def bend(steps: list[tuple[str, int, bytes]]) -> bytes:
        data = bytearray(content)
        for kind, place, piece in steps:
            at = place % (len(data) + 1)
            match kind:
                case "set":
                    data[at : at + len(piece)] = piece
                case "add":
                    data[at:at] = piece
                case "drop":
                    del data[at : at + 1 + place % 7]
                case _:
                    del data[at:]
        return bytes(data)

    step = st.tuples(
        st.sampled_from(["set", "add", "drop", "cut"]),
        st.integers(0, 10_000),
        st.binary(min_size=1, max_size=4),
    )
    return st.lists(step, min_size=1, max_size=4).map(bend)


def command() -> Envelope:
    return seal(StartJob(job_id="A/B", variables={"n": 1}), ALICE, now_ms=1_000_000)


SENT = command()
SEALED = command_format.encode(SENT, 5, SECRET)
STATE = json.dumps(
    {"version": 1, "execution": str(uuid4()), "shim": 7, "shim_ticks": 9, "boot": "b", "pid": 8}
    | {"started_ms": 5, "stop": None, "progress": {"percent": 4.0}, "output_end": 3}
).encode()
EXIT = json.dumps({"ended_ms": 5, "exit_code": 0, "contained": True, "survivors": []}).encode()
CONTROL = json.dumps({"reason": "user", "by": "a", "at_ms": 5, "grace_s": 1.5}).encode()
LINE = encode_line(Record(seq=3, at_ms=5, reserved=9))
JOB = b'command = ["a"]\nmax_running = 2\n[variables.N]\ntype = "integer"\n[retry]\nattempts = 2\n'


class Bench:
    """Where the files lie."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.reader = FileReader(SECRET, DirectorySettings())
        self.folder = Folder(str(root / "execution"))
        self.progress = ProgressFile(self.folder)

    def queue_file(self, data: bytes) -> None:
        name = f"{SENT.id}.json"
        (self.root / name).write_bytes(data)
        with disk.open_directory(self.root) as inside:
            for read in (self.reader.sighting, self.reader.envelope):
                try:
                    found = read(name, inside)
                except (NotACommand, Refused, disk.Unfit):
                    continue
                assert found.id == SENT.id
                if isinstance(found, Envelope) and found.principal.via != "directory":
                    # Only what we sealed is believed to be ours, and it is what we sealed.
                    assert found.command == SENT.command
                    assert found.principal == SENT.principal

    def control(self, data: bytes) -> None:
        (self.root / "execution" / "control").write_bytes(data)
        order = StopOrder.from_json(self.folder.read_json("control"))
        if order is not None:
            assert math.isfinite(order.grace_s)
            ladder = StopLadder()
            ladder.order(100.0, max(0.0, order.grace_s), kill=order.kill)
            ladder.step(101.0, main_alive=True)
            json.dumps(order._asdict(), allow_nan=False)

    def progress_file(self, data: bytes) -> None:
        with (self.root / "execution" / "progress").open("ab") as file:
            file.write(data + b"\n")
        self._is_sound(self.progress.read(0.0))

    @staticmethod
    def progress_line(data: bytes) -> None:
        Bench._is_sound(parse_record(data.decode("utf-8", "replace"))[0])
        parse_notify(data)

    @staticmethod
    def _is_sound(found: dict[str, Any] | None) -> None:
        if found is not None:
            assert 0.0 <= found.get("percent", 0.0) <= 100.0
            json.dumps(found, allow_nan=False).encode()

    @staticmethod
    def exit_record(data: bytes) -> None:
        found = decode_exit(data)
        if found is not None:
            Bench._can_be_sent(found)

    @staticmethod
    def state(data: bytes) -> None:
        found = decode_state(data)
        if found is not None:
            assert not _has_process(found.shim) or found.shim
            for exit_ in (found.exit, ExitRecord(ended_ms=found.started_ms or 0)):
                if exit_ is not None:
                    Bench._can_be_sent(exit_)

    @staticmethod
    def _can_be_sent(exit_: ExitRecord) -> None:
        """By the journal, in files and over HTTP."""
        ended = ExecutionEnded(
            execution_id="e",
            status=ExecutionStatus.FAILED,
            reason=Reason.EXIT_CODE,
            ended_ms=exit_.ended_ms,
            exit_code=exit_.exit_code,
            signal=exit_.signal,
            survivors=exit_.survivors,
            output_end=exit_.output_end,
            progress=exit_.progress,
        )
        record = Record(seq=1, at_ms=1, events=(ended,))
        assert decode_line(encode_line(record)) == record
        rfc3339(exit_.ended_ms)
        rfc3339(exit_.started_ms or 0)

    @staticmethod
    def journal_line(data: bytes) -> None:
        for decode in (decode_line, decode_outline):
            try:
                found = decode(data)
            except (Torn, Unknown):
                continue
            assert data in (LINE, LINE[:-1]), found

    @staticmethod
    def definition(data: bytes) -> None:
        found = decode_definition(data, file="job.toml", directory="/nowhere")
        assert isinstance(found, JobSpec | DefinitionFault)


def _has_process(pid: int) -> bool:
    """As the supervisor asks; a number that is no pid must not get that far."""
    try:
        os.close(os.pidfd_open(pid))
    except OSError:
        return False
    return True


KINDS: dict[str, tuple[Callable[[Bench, bytes], None], st.SearchStrategy[bytes]]] = {
    "queue": (
        Bench.queue_file,
        bent(SEALED)
        | objects("CommandID", "Command", "JobID", "UserID", "Variables", "Roles", "ExpiresAt")
        | st.binary(max_size=200),
    ),
    "control": (
        Bench.control,
        bent(CONTROL) | objects("reason", "by", "at_ms", "grace_s", "kill", "command_id"),
    ),
    "progress-file": (Bench.progress_file, objects("percent", "message", "data") | st.binary()),
    "progress-line": (
        lambda _, data: Bench.progress_line(data),
        bent(b'{"percent": 4e1, "message": "x", "data": {"a": [1]}}') | st.binary(),
    ),
    "exit.json": (
        lambda _, data: Bench.exit_record(data),
        bent(EXIT) | objects("ended_ms", "exit_code", "signal", "cause", "survivors", "progress"),
    ),
    "process.json": (
        lambda _, data: Bench.state(data),
        bent(STATE) | objects("execution", "shim", "boot", "pid", "stop", "progress", "exit"),
    ),
    "journal": (lambda _, data: Bench.journal_line(data), bent(LINE) | st.binary()),
    "job.toml": (lambda _, data: Bench.definition(data), bent(JOB) | st.binary(max_size=100)),
}


def try_many(kind: str, root: Path, examples: int, tally: Tally) -> None:
    look, inputs = KINDS[kind]
    bench = Bench(root)

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(data=inputs)
    def run(data: bytes) -> None:
        with tally.trial(Kind.FUZZ_INPUTS, kind):
            look(bench, data)

    run()


ORDER = '{"reason":"user","by":"a","at_ms":%s,"grace_s":%s}'


@pytest.mark.parametrize(
    ("at_ms", "grace_s"),
    [("Infinity", "1"), ("1", "NaN"), ("1", "1e999"), ("1", "9" * 400), ("1", "-1"), ("1e30", "1")],
)
def test_an_order_with_numbers_that_are_no_times_is_none(at_ms: str, grace_s: str) -> None:
    assert StopOrder.from_json(json.loads(ORDER % (at_ms, grace_s))) is None


@pytest.mark.parametrize(
    "fields",
    [{"ended_ms": 10**18}, {"ended_ms": -1}, {"exit_code": 1 << 40}, {"survivors": [-7]}],
    ids=str,
)
def test_an_exit_record_that_no_answer_could_hold_is_none(fields: dict[str, Any]) -> None:
    assert decode_exit(EXIT) is not None
    assert decode_exit(json.dumps({**json.loads(EXIT), **fields}).encode()) is None


@pytest.mark.parametrize("fields", [{"shim": 10**12}, {"pid": -1}, {"started_ms": 10**18}], ids=str)
def test_a_state_with_numbers_that_are_no_pids_and_times_is_none(fields: dict[str, Any]) -> None:
    assert decode_state(STATE) is not None
    assert decode_state(json.dumps({**json.loads(STATE), **fields}).encode()) is None


@pytest.mark.parametrize(
    "examples",
    [60, pytest.param(20_000, marks=[pytest.mark.exhaustive, pytest.mark.timeout(3600)])],
)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_in_the_files_of_others_raises_or_misleads(
    kind: str, examples: int, tmp_path: Path, tally: Tally
) -> None:
    try_many(kind, tmp_path, examples, tally)
