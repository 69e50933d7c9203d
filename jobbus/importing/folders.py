"""Writes imported jobs as folders of an apps folder, and overwrites nothing. Blocking."""

import os
from enum import StrEnum
from pathlib import Path

import msgspec

from handlers.catalog.near_jobs import FILE_NAME, JOBS_FOLDER
from jobbus.importing.imported import Import, ImportedJob, Kind, Note
from jobbus.importing.job_text import job_text


class Outcome(StrEnum):
    """What became of a job's folder."""

    WRITTEN = "written"
    WOULD_BE = "would be written"
    SAME = "is there already"
    REFUSED = "not written"


class Placed(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One imported job and its job.toml."""

    job_id: str
    path: str
    outcome: Outcome
    file: str
    lines: tuple[int, ...]


class Report(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What was imported, and every line that was not, or not as it stands."""

    jobs: tuple[Placed, ...]
    notes: tuple[Note, ...]
    left_out: int


def place(found: Import, into: Path, *, check: bool) -> Report:
    """The jobs are in folders below `into`; with `check` only what would be is said."""
    notes = list(found.notes)
    placed = []
    for job in found.jobs:
        text, more = job_text(job)
        notes += more
        app, _, name = job.job_id.partition("/")
        folder = into / app / JOBS_FOLDER / name
        files = {**job.files, FILE_NAME: text}  # the definition last: then the job is whole
        outcome = _looked_at(folder, files) if check else _written(folder, files)
        if outcome is Outcome.REFUSED:
            notes.append(_refused(job, folder))
        placed.append(
            Placed(
                job_id=job.job_id,
                path=str(folder / FILE_NAME),
                outcome=outcome,
                file=job.file,
                lines=job.lines,
            )
        )
    order = {source: n for n, source in enumerate(dict.fromkeys(n.file for n in notes))}
    notes.sort(key=lambda note: (order[note.file], note.line))
    left_out = sum(note.kind is Kind.LEFT_OUT for note in notes)
    return Report(jobs=tuple(placed), notes=tuple(notes), left_out=left_out)


def _looked_at(folder: Path, files: dict[str, str]) -> Outcome:
    """What is to be done; what an import that was interrupted has left is gone on with."""
    there = {name: _content(folder / name) for name in files}
    if any(content not in (None, files[name].encode()) for name, content in there.items()):
        return Outcome.REFUSED
    return Outcome.WOULD_BE if None in there.values() else Outcome.SAME


def _written(folder: Path, files: dict[str, str]) -> Outcome:
    looked = _looked_at(folder, files)
    if looked is not Outcome.WOULD_BE:
        return looked
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        content = text.encode()
        if not _created(folder / name, content) and _content(folder / name) != content:
            return Outcome.REFUSED
    return Outcome.WRITTEN


def _created(path: Path, content: bytes) -> bool:
    """The file appears whole, unless there is one already; with the rights that the umask leaves,
    for the service and the job may be of other accounts than who imports."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _refused(job: ImportedJob, folder: Path) -> Note:
    return Note(
        kind=Kind.LEFT_OUT,
        file=job.file,
        line=job.lines[-1] if job.lines else 0,
        text=job.source[-1].strip() if job.source else "",
        reason=f"{folder} holds another job, and nothing is overwritten; remove it or use --app",
        job_id=job.job_id,
    )
