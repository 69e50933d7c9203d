"""Jobs for tests: definitions with their tiny programs, in a folder of apps on the real disk.

Programs and tests meet on the *board*, a folder whose path each job has as `BOARD`: programs write
what they did there, tests put files there that programs wait for.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeGuard

Setting = (
    str
    | int
    | float
    | bool
    | Sequence[str]
    | Sequence[int]
    | Mapping[str, object]
    | Sequence[Mapping[str, object]]
)

WAITING = 'until [ -e "$BOARD/{name}" ]; do sleep 0.1; done'
"""Shell: waits for a file on the board."""


class Apps:
    """A folder of apps and the board that its jobs share."""

    def __init__(self, root: Path) -> None:
        self.root = root / "apps"
        self.board = root / "board"
        self.root.mkdir(parents=True)
        self.board.mkdir()

    def folder(self, job_id: str) -> Path:
        app, _, job = job_id.partition("/")
        return self.root / app / "jobs" / job

    def definition(self, job_id: str) -> Path:
        return self.folder(job_id) / "job.toml"

    def shell(self, job_id: str, script: str, **settings: Setting) -> None:
        """A job that runs `script` with `sh`; its variables are in `JOBBUS_VAR_<NAME>`."""
        self.write(job_id, ("sh", "-c", script), **settings)

    def python(self, job_id: str, program: str, **settings: Setting) -> None:
        """A job that runs `program` with the Python of the tests."""
        self.folder(job_id).mkdir(parents=True, exist_ok=True)
        (self.folder(job_id) / "program.py").write_text(program, encoding="utf-8")
        self.write(job_id, (sys.executable, "-I", "-S", "program.py"), **settings)

    def write(self, job_id: str, command: Sequence[str], **settings: Setting) -> None:
        """The definition is on disk, whole at once, as an editor that renames would leave it."""
        self.folder(job_id).mkdir(parents=True, exist_ok=True)
        text = definition_text({"command": command, **settings}, {"BOARD": str(self.board)})
        draft = self.folder(job_id) / ".job.toml.draft"
        draft.write_text(text, encoding="utf-8")
        draft.replace(self.definition(job_id))

    def put(self, name: str) -> None:
        """The file that programs wait for is there."""
        (self.board / name).touch()

    def lines(self, name: str) -> list[str]:
        """What programs have written into a file of the board; whole lines only."""
        try:
            text = (self.board / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        return text[: text.rfind("\n") + 1].splitlines()


def definition_text(settings: Mapping[str, object], env: Mapping[str, str]) -> str:
    """A job.toml; nested mappings become tables, lists of them lists of tables."""
    plain = {k: v for k, v in settings.items() if not _is_table(v) and not _are_tables(v)}
    lines = [f"{k} = {json.dumps(v)}" for k, v in plain.items()]
    for name, table in {"env": env, **settings}.items():
        if isinstance(table, Mapping):
            lines += _table(name, table)
        elif _are_tables(table):
            for each in table:
                lines += [f"[[{name}]]", *_table(name, each)[1:]]
    return "\n".join(lines) + "\n"


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping)


def _are_tables(value: object) -> TypeGuard[Sequence[Mapping[str, object]]]:
    return isinstance(value, Sequence) and bool(value) and all(map(_is_table, value))


def _table(path: str, table: Mapping[str, object]) -> list[str]:
    """JSON's texts, numbers, booleans and lists are TOML's too, as far as tests need them."""
    lines = [f"[{path}]"]
    lines += [f"{k} = {json.dumps(v)}" for k, v in table.items() if not isinstance(v, Mapping)]
    for name, inner in table.items():
        if isinstance(inner, Mapping):
            lines += _table(f"{path}.{name}", inner)
    return lines
