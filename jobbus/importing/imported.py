"""What an import comes to: jobs, and notes on every line that is not simply one of them. Pure.

Nothing is dropped in silence: each line of a source belongs to a job or has a note.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import TypeAlias

import msgspec

TomlValue: TypeAlias = "str | int | float | bool | Sequence[TomlValue] | Mapping[str, TomlValue]"
Table: TypeAlias = dict[str, TomlValue]

NAME_MAX = 64
_REFUSED = re.compile(r"[^A-Za-z0-9._-]+")
_UNUSABLE = re.compile(r"[\ud800-\udfff\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Kind(StrEnum):
    """What became of a line that is not, or not exactly, part of a job."""

    LEFT_OUT = "left out"
    CHANGED = "changed"
    NOT_NEEDED = "not needed"


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One file as it was read; `text` may hold surrogates for bytes that are no UTF-8.

    `folder` is the absolute path of the folder that it lies in; `account` is whose file it is, if
    its place says so.
    """

    file: str
    text: str
    folder: str = ""
    account: str = ""


class Note(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Why a line was not carried over as it stands; `line` counts from 1, 0 is the whole file."""

    kind: Kind
    file: str
    line: int
    reason: str
    text: str = ""
    job_id: str = ""


class ImportedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job to be written: its definition in the order of its keys, and where that comes from.

    `files` lie beside the job.toml. `lines` are the numbers of the lines that it was made of.
    """

    job_id: str
    definition: Table
    file: str
    lines: tuple[int, ...]
    source: tuple[str, ...] = ()
    files: dict[str, str] = {}


class Import(msgspec.Struct, frozen=True, kw_only=True):
    """All that came of the sources of one call."""

    jobs: tuple[ImportedJob, ...] = ()
    notes: tuple[Note, ...] = ()


def joined(imports: Iterable[Import]) -> Import:
    """The imports of several files as one."""
    parts = list(imports)
    return Import(
        jobs=tuple(job for part in parts for job in part.jobs),
        notes=tuple(note for part in parts for note in part.notes),
    )


class Notes:
    """Collects the notes on one file."""

    def __init__(self, source: Source) -> None:
        self._file = source.file
        self._lines = lines_of(source.text)
        self._notes: list[Note] = []

    def left_out(self, line: int, reason: str, job_id: str = "") -> None:
        self._add(Kind.LEFT_OUT, line, reason, job_id)

    def changed(self, line: int, reason: str, job_id: str = "") -> None:
        self._add(Kind.CHANGED, line, reason, job_id)

    def not_needed(self, line: int, reason: str, job_id: str = "") -> None:
        self._add(Kind.NOT_NEEDED, line, reason, job_id)

    def noted(self) -> set[int]:
        """The lines that have a note."""
        return {note.line for note in self._notes}

    def all(self) -> tuple[Note, ...]:
        """The notes in the order of the lines."""
        return tuple(sorted(self._notes, key=lambda note: note.line))

    def _add(self, kind: Kind, line: int, reason: str, job_id: str) -> None:
        text = self._lines[line - 1].strip() if 0 < line <= len(self._lines) else ""
        note = Note(kind=kind, file=self._file, line=line, reason=reason, text=text, job_id=job_id)
        if note not in self._notes:
            self._notes.append(note)


class JobNames:
    """Hands out ids of jobs, each once; capital and small letters make no difference."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def unique(self, app: str, name: str) -> str:
        """`App/Job` of the nearest allowed names, with a number if it is taken."""
        app, name = id_part(app, "Imported"), id_part(name, "Job")
        job_id, number = f"{app}/{name}", 1
        while job_id.casefold() in self._taken:
            number += 1
            ending = f"-{number}"
            job_id = f"{app}/{name[: NAME_MAX - len(ending)]}{ending}"
        self._taken.add(job_id.casefold())
        return job_id


def id_part(text: str, otherwise: str) -> str:
    """`text` as the name of an app or a job: letters, digits, dot, dash, underscore."""
    cleaned = _REFUSED.sub("-", text).strip("-._")[:NAME_MAX].rstrip("-._")
    return cleaned or otherwise


def lines_of(text: str) -> list[str]:
    """The lines of a file without their ends; only line feeds end one, with or without a return."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines and not lines[-1] else lines


def numbered(text: str) -> Iterator[tuple[int, str]]:
    """The lines with their numbers, from 1."""
    return enumerate(lines_of(text), 1)


def unusable(text: str) -> str:
    """Why a line cannot be carried over whatever it says; empty for nearly all."""
    found = _UNUSABLE.search(text)
    if found is None:
        return ""
    if found[0] >= "\ud800":
        return "holds bytes that are not UTF-8; save the file as UTF-8"
    return f"holds a control character (U+{ord(found[0]):04X})"
