"""A short form of the soak, `python -m tests.soak`."""

from pathlib import Path
from typing import Any

import pytest

from tests.soak import Book, Reader, Soak, soak


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2])
def test_mixed_load_with_random_deaths_keeps_all_promises(tmp_path: Path, seed: int) -> None:
    book = soak(tmp_path, 1.0, seed).book
    assert book.accepted
    assert not book.wrong, "\n".join(book.wrong)


def test_checker_sees_what_must_not_be(tmp_path: Path) -> None:
    made = Soak(tmp_path, 0.0, 1)
    book = made.book
    for command_id in ("c-1", "c-2"):
        book.tried[command_id] = {"command": "start", "commandId": command_id}
        book.accept(command_id)
    (made.service.apps.board / "starts").write_text("e-1\ne-1\ne-9\n")
    one: dict[str, Any] = {"executionId": "e-1", "commandId": "c-1", "cause": "", "previous": None}
    retry: dict[str, Any] = {"cause": "policy:retry", "previous": "e-1", "commandId": "c-1"}
    executions: list[dict[str, Any]] = [
        {**one, "status": "Failed"},
        {**one, "executionId": "e-2", "status": "Succeeded"},
        {**retry, "executionId": "e-3", "status": "Failed"},
        {**retry, "executionId": "e-4", "status": "Failed"},
    ]
    found = "\n".join(made._compare(executions, [{"commandId": "c-1", "userId": "admin"}]))
    for wrong in (
        "lost: {'command': 'start', 'commandId': 'c-2'}",
        "no result file",
        "2 executions of c-1",
        "e-1 was followed 2 times",
        "e-1 ran 2 times",
        "ran, and is not known: e-9",
        "succeeded without running",
    ):
        assert wrong in found


def test_reader_sees_a_gap_and_takes_a_reset_for_none() -> None:
    book = Book()
    reader = Reader(book, 1)

    def change(execution_id: str, status: str) -> None:
        event = {"execution": execution_id, "type": "execution.x", "data": {"status": status}}
        reader.change(event)

    for status in ("Queued", "Starting", "Running", "Running", "Succeeded"):
        change("whole", status)
    assert not book.wrong
    change("cut", "Queued")
    change("cut", "Running")
    change("late", "Running")
    assert book.wrong == ["reader 1: cut Queued -> Running", "reader 1: late None -> Running"]
