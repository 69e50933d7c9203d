"""What shims of the first version left on disk is understood for ever, and they understand us."""

import json
from pathlib import Path

import pytest

from bus.layout import DataLayout
from bus.model import ExitRecord, Progress, Reason, StopRequest
from handlers.shim.assignment import StopOrder
from handlers.supervision.execution_files import investigate
from handlers.supervision.execution_inputs import Ended
from handlers.supervision.record import ShimState, decode_exit, decode_state, encode_control

GOLDEN = Path(__file__).parent / "golden" / "shim-1"
"""An execution's folder as a shim of format 1 left it. These files never change."""

ID = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"
BOOT = "0f6e2a4c-1b3d-4e5f-8a9b-2c4d6e8f0a1b"
PROGRESS = Progress(percent=42.0, message="copying", data={"files": 7})
ORDER = StopRequest(reason=Reason.USER, by="alice", at_ms=1_795_801_658_938, grace_s=5.0)
STATE = ShimState(
    execution=ID,
    shim=6897,
    shim_ticks=349383,
    boot=BOOT,
    pid=6905,
    ticks=349388,
    session=6905,
    cgroup=f"/sys/fs/cgroup/jobbus-{ID}",
    containment="cgroup",
    socket=f"@jobbus-5ec0de5ec0de-{ID}",
    started_ms=1_795_801_658_735,
    ready_ms=1_795_801_658_735,
    stop=ORDER,
    progress=PROGRESS,
    output_end=6,
)
EXIT = ExitRecord(
    ended_ms=1_795_801_659_041,
    started_ms=1_795_801_658_735,
    pid=6905,
    signal=15,
    cause=Reason.USER,
    containment="cgroup",
    output_end=6,
    cpu_s=0.003,
    memory_bytes_max=9355264,
    progress=PROGRESS,
)


def golden(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


def test_state_and_exit_of_a_shim_of_the_first_version_are_read_as_ever() -> None:
    assert decode_state(golden("process.json")) == STATE
    assert decode_exit(golden("exit.json")) == EXIT


def test_an_order_is_written_as_shims_of_the_first_version_read_it() -> None:
    assert json.loads(encode_control(ORDER)) == json.loads(golden("control"))
    order = StopOrder.from_json(json.loads(golden("control")))
    assert order == StopOrder(reason="user", by="alice", at_ms=ORDER.at_ms, grace_s=5.0)


def test_fields_of_another_version_are_passed_over_and_missing_ones_have_defaults() -> None:
    newer = {"version": 2, "colour": "green", "nested": {"a": [1]}}
    assert (
        decode_state(json.dumps({**json.loads(golden("process.json")), **newer}).encode()) == STATE
    )
    assert decode_exit(json.dumps({**json.loads(golden("exit.json")), **newer}).encode()) == EXIT
    bare = decode_state(json.dumps({"execution": ID, "shim": 7, "boot": BOOT}).encode())
    assert bare == ShimState(execution=ID, shim=7, boot=BOOT)
    assert decode_exit(b'{"ended_ms":5}') == ExitRecord(ended_ms=5)
    order = {**json.loads(golden("control")), **newer}
    del order["kill"], order["command_id"]
    assert StopOrder.from_json(order) is not None


@pytest.mark.parametrize(
    "left", [("claim", "process.json", "exit.json", "control"), ("claim", "exit.json")]
)
def test_an_execution_that_such_a_shim_left_has_its_exact_end(
    left: tuple[str, ...], tmp_path: Path
) -> None:
    layout = DataLayout(tmp_path)
    folder = layout.execution(ID).root
    folder.mkdir(parents=True)
    for name in left:
        (folder / name).write_bytes(golden(name))
    assert investigate(layout, ID) == Ended(EXIT)
