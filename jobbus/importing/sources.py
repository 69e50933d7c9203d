"""Reads what is to be imported: a file, or the files of a folder, within bounds. Blocking."""

import os
import pwd
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from enum import StrEnum
from glob import glob
from pathlib import Path
from typing import NamedTuple

from bus.errors import ConfigError
from bus.files import NotRegular, read_regular
from bus.scarcity import reason_of
from jobbus.importing.crontab import import_crontab, with_accounts
from jobbus.importing.imported import Import, JobNames, Kind, Note, Source, id_part, joined
from jobbus.importing.pm2 import import_pm2
from jobbus.importing.pswebhost import INIT_SCRIPT, import_pswebhost
from jobbus.importing.supervisord import import_supervisord, include_patterns

SIZE_MAX = 4 * 1024 * 1024
FILES_MAX = 10_000

STDIN = Path("-")
"""Stands for what is piped in, e.g. by `crontab -l`."""

_NAME_FOR_CRON = re.compile(r"[A-Za-z0-9_-]+")


class Tool(StrEnum):
    """Whose definitions are imported."""

    PSWEBHOST = "pswebhost"
    CRONTAB = "crontab"
    SUPERVISORD = "supervisord"
    PM2 = "pm2"


class Unreadable(ConfigError):
    """What is to be imported cannot be read, and why."""


class Wishes(NamedTuple):
    """What the person who imports adds to the sources."""

    into: Path
    """The apps folder that will be written to."""
    app: str = ""
    """In the place of the usual app."""
    user: str = ""
    """Whose crontab it is."""
    system: bool = False
    """Whether the lines of the crontab name accounts, as in /etc/crontab."""


def imported(tool: Tool, path: Path, wishes: Wishes) -> Import:
    """All jobs and notes of what lies at `path`.

    Raises:
        Unreadable: there is nothing of the kind, or it cannot be read.
    """
    names = JobNames()
    match tool:
        case Tool.CRONTAB:
            return joined(_crontabs(path, names, wishes))
        case Tool.SUPERVISORD:
            host = socket.gethostname()
            sources, notes = _configuration(path, host)
            found = import_supervisord(sources, names, host=host, app=wishes.app)
            return joined((found, Import(notes=notes)))
        case Tool.PM2:
            return joined(import_pm2(each, names, app=wishes.app) for each in _ecosystems(path))
        case Tool.PSWEBHOST:
            return joined(_host_job(each, names, wishes) for each in _job_files(path))


def _crontabs(path: Path, names: JobNames, wishes: Wishes) -> Iterator[Import]:
    if not path.is_dir():
        yield _crontab(path, names, wishes)
        return
    for each in sorted(path.iterdir())[:FILES_MAX]:
        if not _is_spool(each) and not _NAME_FOR_CRON.fullmatch(each.name):
            yield _note(each, Kind.NOT_NEEDED, "cron passes over files with such a name")
        elif each.is_file():
            yield _crontab(each, names, wishes)


def _crontab(path: Path, names: JobNames, wishes: Wishes) -> Import:
    source = read_source(path)
    if source.text.startswith("#!"):
        return _note(
            path, Kind.LEFT_OUT, "it is a script and no crontab; make it the command of a job"
        )
    accounts = _homes()
    is_guessed = False
    with_user = (
        wishes.system
        or path.resolve().parent.name == "cron.d"
        or (path.resolve() == Path("/etc/crontab"))
    )
    if not with_user and not wishes.user and not _is_spool(path):
        with_user = is_guessed = with_accounts(source.text, accounts)
    account = "" if with_user else wishes.user or (path.name if _is_spool(path) else "")
    found = import_crontab(
        Source(file=source.file, text=source.text, folder=source.folder, account=account),
        names,
        with_user=with_user,
        homes=accounts,
        home=str(Path.home()),
        **({"app": wishes.app} if wishes.app else {}),
    )
    if not is_guessed:
        return found
    words = "each line names an account, as in /etc/crontab; if that is a command, give --user NAME"
    return joined((_note(path, Kind.CHANGED, words), found))


def _is_spool(path: Path) -> bool:
    """Whether the file's name is the account that it belongs to."""
    folder = path.resolve().parent
    return folder.name in ("crontabs", "tabs") or folder == Path("/var/spool/cron")


def _note(path: Path, kind: Kind, reason: str) -> Import:
    """A note on a whole file."""
    return Import(notes=(Note(kind=kind, file=str(path), line=0, reason=reason),))


def _homes() -> Mapping[str, str]:
    return {entry.pw_name: entry.pw_dir for entry in pwd.getpwall()}


def _configuration(path: Path, host: str) -> tuple[list[Source], tuple[Note, ...]]:
    """The main file and all that it includes; notes on patterns that no file matches."""
    main = read_source(path / "supervisord.conf" if path.is_dir() else path)
    found = {path.resolve(): main}
    notes = []
    for pattern, line in include_patterns(main, host):
        files = sorted(glob(os.path.join(main.folder, pattern)))[:FILES_MAX]  # noqa: PTH118, PTH207
        for each in files:
            found.setdefault(Path(each).resolve(), read_source(Path(each)))
        if not files:
            reason = f"no file matches {pattern}"
            notes.append(Note(kind=Kind.LEFT_OUT, file=main.file, line=line, reason=reason))
    return list(found.values()), tuple(notes)


def _ecosystems(path: Path) -> Iterator[Source]:
    if not path.is_dir():
        yield read_source(path)
        return
    usual = ("ecosystem.json", "pm2.json", "process.json", "ecosystem.config.js",
             "ecosystem.config.cjs", "pm2.config.js")  # fmt: skip
    found = [path / name for name in usual if (path / name).is_file()]
    if not found:
        raise Unreadable(f"{path}: there is no {usual[0]} or {usual[3]} in this folder")
    yield read_source(found[0])


def _job_files(path: Path) -> list[Path]:
    """The job.json files below a project, its apps folder, one app, one job, or one itself."""
    if path.is_file():
        return [path]
    for pattern in ("apps/*/jobs/*/job.json", "*/jobs/*/job.json", "jobs/*/job.json", "job.json"):
        if found := sorted(path.glob(pattern)):
            return found[:FILES_MAX]
    raise Unreadable(f"{path}: there is no apps/<App>/jobs/<Job>/job.json below it")


def _host_job(path: Path, names: JobNames, wishes: Wishes) -> Import:
    source = read_source(path)
    folder = Path(source.folder)
    own_app = wishes.app or (
        folder.parent.parent.name if folder.parent.name == "jobs" else "PSWebHost"
    )
    return import_pswebhost(
        source,
        names,
        app=own_app,
        job=folder.name,
        has_init=(folder / INIT_SCRIPT).is_file(),
        in_place=folder == (wishes.into / own_app / "jobs" / id_part(folder.name, "")).resolve(),
    )


def read_source(path: Path) -> Source:
    """The text of one file, or of stdin for `-`.

    Raises:
        Unreadable: it is not there, no file, too large, or locked.
    """
    try:
        if path == STDIN:
            content = sys.stdin.buffer.read(SIZE_MAX + 1)
        else:
            content = read_regular(path.resolve(), SIZE_MAX + 1)
    except FileNotFoundError as exc:
        raise Unreadable(f"{path}: there is no such file") from exc
    except NotRegular as exc:
        raise Unreadable(f"{path}: is no file") from exc
    except OSError as exc:
        raise Unreadable(f"{path}: {reason_of(exc)}") from exc
    if len(content) > SIZE_MAX:
        raise Unreadable(f"{path}: is larger than {SIZE_MAX // 1024**2} MiB")
    is_utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = content.decode("utf-16" if is_utf16 else "utf-8-sig", "surrogateescape")
    file = "stdin" if path == STDIN else str(path)
    return Source(file=file, text=text, folder=str(path.resolve().parent))
