"""What counts as a trace of an execution that a damaged journal may have forgotten."""

from pathlib import Path

import msgspec
import pytest

from bus.layout import DataLayout
from bus.model import CommandRecord, CommandStatus
from handlers.ambiguity import has_trace
from tests.processes import starting


@pytest.mark.parametrize("left", ["folder", "status", "queue", None])
def test_execution_is_known_by_its_folder_its_status_or_the_file_of_its_command(
    tmp_path: Path, left: str | None
) -> None:
    layout = DataLayout(tmp_path)
    execution = starting()
    command = CommandRecord(
        id=execution.command_id,
        id_text=execution.command_id.upper(),
        kind="start",
        user_id="alice",
        submitted_ms=0,
        body_hash="",
        status=CommandStatus.RUNNING,
    )
    places = {
        "folder": layout.execution(execution.id).root,
        "status": layout.status / f"{execution.id}.json",
        "queue": layout.queue / f"{execution.command_id.upper()}.json",
    }
    if left is not None:
        places[left].mkdir(parents=True)
    assert has_trace(layout, execution, command) is (left is not None)
    assert not has_trace(layout, msgspec.structs.replace(starting(), command_id="other"), None)
