"""Reads what is to be imported: a file, or the files of a folder, within bounds. Blocking."""

import os
import pwd
import socket
from collections.abc import Iterator, Mapping
from enum import StrEnum
from glob import glob
from pathlib import Path

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


class Tool(StrEnum):
    """Whose definitions are imported."""

    PSWEBHOST = "pswebhost"
    CRONTAB = "crontab"
    SUPERVISORD = "supervisord"
    PM2 = "pm2"


class Unreadable(ConfigError):
    """What is to be imported cannot be read, and why."""


def imported(tool: Tool, path: Path, into: Path, *, app: str = "", user: str = "") -> Import:
    """All jobs and notes of what lies at `path`; `app` takes the place of the usual app.

    `user` is whose crontab it is. `into` is the apps folder that will be written to.

    Raises:
        Unreadable: there is nothing of the kind, or it cannot be read.
    """
    names = JobNames()
    match tool:
        case Tool.CRONTAB:
            return joined(_crontab(each, names, app, user) for each in _crontabs(path))
        case Tool.SUPERVISORD:
            host = socket.gethostname()
            sources, notes = _configuration(path, host)
            found = import_supervisord(sources, names, host=host, app=app)
            return joined((found, Import(notes=notes)))
        case Tool.PM2:
            return joined(import_pm2(each, names, app=app) for each in _ecosystems(path))
        case Tool.PSWEBHOST:
            return joined(_host_job(each, names, into, app) for each in _job_files(path))


def _crontabs(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    # As cron does in /etc/cron.d: copies of editors and packages are passed over.
    found = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    for each in found[:FILES_MAX]:
        if each.suffix not in (
            ".swp",
            ".bak",
            ".dpkg-old",
            ".dpkg-dist",
            ".rpmsave",
            ".rpmnew",
        ) and (not each.name.endswith("~")):
            yield each


def _crontab(path: Path, names: JobNames, app: str, user: str) -> Import:
    source = read_source(path)
    accounts = _homes()
    folder = path.resolve().parent.name
    is_system = folder == "cron.d" or path.resolve() == Path("/etc/crontab")
    is_spool = folder in ("crontabs", "tabs") or path.resolve().parent == Path("/var/spool/cron")
    with_user = not user and (is_system or (not is_spool and with_accounts(source.text, accounts)))
    account = "" if with_user else user or (path.name if is_spool else "")
    return import_crontab(
        Source(file=source.file, text=source.text, folder=source.folder, account=account),
        names,
        with_user=with_user,
        homes=accounts,
        home=str(Path.home()),
        **({"app": app} if app else {}),
    )


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


def _host_job(path: Path, names: JobNames, into: Path, app: str) -> Import:
    source = read_source(path)
    folder = Path(source.folder)
    own_app = app or (folder.parent.parent.name if folder.parent.name == "jobs" else "PSWebHost")
    return import_pswebhost(
        source,
        names,
        app=own_app,
        job=folder.name,
        has_init=(folder / INIT_SCRIPT).is_file(),
        in_place=folder == (into / own_app / "jobs" / id_part(folder.name, "")).resolve(),
    )


def read_source(path: Path) -> Source:
    """The text of one file.

    Raises:
        Unreadable: it is not there, no file, too large, or locked.
    """
    try:
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
    return Source(file=str(path), text=text, folder=str(path.resolve().parent))
