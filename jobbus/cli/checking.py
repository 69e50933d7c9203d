"""`check`: definitions, defaults and settings are read as a service would; all mistakes at once."""

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter

from bus.errors import ConfigError
from bus.job_definition import DefinitionFault, Mistake
from bus.scarcity import reason_of
from handlers.calendars.calendar_files import NAME as CALENDARS_NAME
from handlers.calendars.calendar_set import NOTHING_WRITTEN, Written
from handlers.catalog.definition_decoding import (
    decode_app,
    decode_definition,
    mistakes_in_defaults,
)
from handlers.catalog.definition_files import APP_NAME, DEFAULTS_NAME, DefinitionFiles
from handlers.catalog.layers import SIZE_MAX, Layer
from handlers.catalog.near_jobs import FILE_NAME, JOBS_FOLDER
from handlers.catalog.regular_files import content_of
from jobbus.cli.exits import CliError, Exit
from jobbus.cli.show import Json, clean, say, show_json
from jobbus.service.settings import DATA_DEFAULT, ServeSettings
from jobbus.service.settings_file import NAME as SETTINGS_NAME
from jobbus.service.settings_file import find_config
from jobbus.service.settings_mistakes import read_settings
from jobbus.service.settings_reading import FILE_SIZE_MAX

_NAMES: Final = (FILE_NAME, DEFAULTS_NAME, APP_NAME, CALENDARS_NAME, SETTINGS_NAME)
"""Files that jobbus reads."""

JOBS_NAMED_MAX: Final = 5
"""So many jobs are named beside a mistake in defaults."""


class CheckedMistake(msgspec.Struct, frozen=True, kw_only=True):
    """One mistake; `jobs` are those that it keeps from being in force."""

    file: str
    line: int
    key: str
    reason: str
    jobs: tuple[str, ...] = ()


class CheckedJob(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A job that was looked at; `origins` are the keys that defaults give, with file and line."""

    job_id: str
    ok: bool
    origins: dict[str, str] = {}


class CheckReport(msgspec.Struct, frozen=True, kw_only=True):
    problems: tuple[CheckedMistake, ...]
    jobs: tuple[CheckedJob, ...]


class _Found:
    """What is wrong, with the job if it is of one, and the jobs that were looked at. `groups` and
    `calendars` are those of the settings, once these were read."""

    def __init__(self) -> None:
        self.mistakes: list[tuple[Mistake, str | None]] = []
        self.jobs: list[CheckedJob] = []
        self.groups: frozenset[str] | None = None
        self.calendars: Written | None = None


def check(
    path: Annotated[Path | None, Parameter(show_default=False)] = None,
    /,
    *,
    config: Annotated[Path | None, Parameter(show_default=False)] = None,
    as_json: Json = False,
) -> int:
    """Check definitions and settings, all mistakes at once; the exit code is 0 if there are none.

    No service is needed, and nothing is changed or started.

    Parameters
    ----------
    path
        A folder of apps, or the one that holds it beside jobbus.toml; an app, the folder of a job;
        or one file: job.toml, defaults.toml, app.toml, calendars.toml or jobbus.toml. Else the
        folder of apps that serve would take.
    config
        A jobbus.toml to be checked as well. Without PATH the one that serve finds.
    """
    found = _Found()
    apps = None
    if path is None and config is None:
        config = found_config()
    if config is not None:
        apps = _check_settings(config, found)
    _look(path or apps_folder(apps), found)
    report = CheckReport(problems=tuple(_joined(found.mistakes)), jobs=tuple(found.jobs))
    if as_json:
        show_json(report)
    else:
        _show(report)
    return Exit.ERROR if report.problems else Exit.OK


def found_config() -> Path | None:
    """The jobbus.toml that serve would find here."""
    root = Path(os.environ.get("JOBBUS_DATA") or DATA_DEFAULT)
    return find_config(None, root, os.environ).path


def apps_folder(in_settings: Path | None) -> Path:
    """The folder of apps that serve would take here."""
    return Path(os.environ.get("JOBBUS_SERVE_APPS") or in_settings or ServeSettings().apps)


def _look(path: Path, found: _Found) -> None:
    """What lies at the path is checked as what it is."""
    path = Path(os.path.abspath(path))  # noqa: PTH100 - links are the catalog's to follow
    if not os.path.lexists(path):
        raise CliError(f"there is no {path}", Exit.NOT_FOUND)
    # A folder that has the name of a file stands where that is looked for.
    if path.is_dir() and path.name not in _NAMES:
        if os.path.lexists(path / FILE_NAME) or path.parent.name == JOBS_FOLDER:
            _check_job(path, found)
        elif path.name == JOBS_FOLDER and not _is_app(path):
            _check_apps(path.parents[1], found, app=path.parent.name)
        elif _is_app(path):
            _check_apps(path.parent, found, app=path.name)
        elif (path / "apps").is_dir() and not _is_app(path / "apps"):
            # A whole project: its settings and its apps.
            if os.path.lexists(path / SETTINGS_NAME):
                _check_settings(path / SETTINGS_NAME, found)
            _check_apps(path / "apps", found)
        else:
            _check_apps(path, found)
        return
    match path.name:
        case "job.toml":
            _check_job(path.parent, found)
        case "defaults.toml":
            _check_defaults(path, found)
        case "app.toml":
            app = decode_app(_content(path, SIZE_MAX), _shown(path))
            if isinstance(app, tuple):
                found.mistakes.extend((mistake, None) for mistake in app)
        case "jobbus.toml":
            _check_settings(path, found)
        case "calendars.toml":
            _check_apps(path.parent, found)
            beside = os.path.dirname(_shown(path))  # noqa: PTH120 - "" stays ""
            found.mistakes[:] = [
                each
                for each in found.mistakes
                if os.path.dirname(each[0].file) == beside  # noqa: PTH120
            ]
            found.jobs.clear()
        case name:
            raise CliError(
                f"{path} is no file that jobbus reads under the name {clean(name)}: these are "
                f"{', '.join(_NAMES[:-1])} and {_NAMES[-1]}",
                Exit.USAGE,
            )


def _is_app(folder: Path) -> bool:
    """Whether it is the folder of one app and not one of apps."""
    if (folder / APP_NAME).exists():
        return True
    return (folder / JOBS_FOLDER).is_dir() and not any(folder.glob(f"*/{JOBS_FOLDER}"))


def _check_apps(
    apps: Path, found: _Found, app: str | None = None, job_id: str | None = None
) -> None:
    """All apps of a folder, one of them, or one job."""
    files = DefinitionFiles(apps, app=app, mistakes_max=None, on_this_machine=False)
    files.groups = found.groups
    calendars = found.calendars or _calendars_beside(apps)
    files.go_by_calendars(calendars)
    definitions = files.scan()
    beside = os.path.dirname(_shown(apps))  # noqa: PTH120 - "" stays ""
    for each in definitions:
        if job_id not in (None, each.job_id):
            continue
        origins = each.spec.origins if each.spec else {}
        origins = {key: os.path.join(beside, place) for key, place in origins.items()}  # noqa: PTH118
        is_job = "*" not in each.job_id  # else a file that belongs to none
        if is_job:
            ok = each.fault is None
            found.jobs.append(CheckedJob(job_id=each.job_id, ok=ok, origins=origins))
        if each.fault is not None:
            of = each.job_id if is_job else None
            # What stands in settings that were not asked about is no answer, and what is wrong with
            # them by themselves is known.
            known = {(m.file, m.line) for m, _ in found.mistakes}
            asked = (
                m
                for m in each.fault.all
                if m.file != calendars.file
                or (found.calendars is not None and (m.file, m.line) not in known)
            )
            found.mistakes.extend(
                (m if m.file == calendars.file else _from(beside, m), of) for m in asked
            )
    if job_id is None:
        of_files = (*map(mistakes_in_defaults, files.defaults.values()),)
        of_apps = (each.mistakes for each in files.apps)
        for mistakes in (*of_files, *of_apps):
            found.mistakes.extend((_from(beside, mistake), None) for mistake in mistakes)


def _calendars_beside(apps: Path) -> Written:
    """Those of the settings that a service of these apps would likely have."""
    try:
        beside = apps.parent / SETTINGS_NAME
        file = beside if beside.exists() else found_config()
        if file is None:
            return NOTHING_WRITTEN
        settings = read_settings(_content(file, FILE_SIZE_MAX), file, _shown(file)).settings
    except (CliError, ConfigError):
        return NOTHING_WRITTEN
    return settings.calendars if settings is not None else NOTHING_WRITTEN


def _check_job(folder: Path, found: _Found) -> None:
    """One job, with the defaults that count where it lies."""
    if folder.parent.name == JOBS_FOLDER and len(folder.parents) > 3:
        app = folder.parents[1]
        job_id = f"{app.name}/{folder.name}"
        _check_apps(app.parent, found, app=app.name, job_id=job_id)
        if found.jobs:
            return
    file = folder / FILE_NAME
    if not os.path.lexists(file):
        raise CliError(f"there is no {file}", Exit.NOT_FOUND)
    decoded = decode_definition(
        _content(file, SIZE_MAX), file=_shown(file), directory=str(folder), groups=found.groups
    )
    ok = not isinstance(decoded, DefinitionFault)
    found.jobs.append(CheckedJob(job_id=folder.name, ok=ok))
    if isinstance(decoded, DefinitionFault):
        found.mistakes.extend((mistake, None) for mistake in decoded.all)


def _check_defaults(file: Path, found: _Found) -> None:
    """The file by itself, and what it makes wrong of the jobs that it counts for."""
    own = mistakes_in_defaults(Layer(_shown(file), _content(file, SIZE_MAX)))
    found.mistakes.extend((mistake, None) for mistake in own)
    if _is_app(file.parent):
        _check_apps(file.parents[1], found, app=file.parent.name)
    else:
        _check_apps(file.parent, found)
    of_file = [each for each in found.mistakes if each[0].file == _shown(file)]
    found.mistakes[:] = of_file


def _check_settings(file: Path, found: _Found) -> Path | None:
    """The settings are checked; the folder of apps that they name."""
    reading = read_settings(_content(file, FILE_SIZE_MAX), file, _shown(file))
    found.mistakes.extend((mistake, None) for mistake in reading.mistakes)
    if reading.settings is None:
        return None
    found.groups = frozenset(reading.settings.group)
    found.calendars = reading.settings.calendars
    return reading.settings.serve.apps


def _content(file: Path, size_max: int) -> bytes:
    """One byte more than allowed at most.

    Raises:
        CliError: it cannot be read.
    """
    try:
        return content_of(str(file), size_max)
    except OSError as error:
        raise CliError(f"{file} cannot be read: {_why(error)}") from error


def _why(error: OSError) -> str:
    """Also what no call of the system has said."""
    return "it is no regular file" if error.errno == errno.EINVAL else reason_of(error)


def _shown(path: Path) -> str:
    """From the working directory, if it lies below."""
    whole = os.path.abspath(path)  # noqa: PTH100 - links stay as they were written
    here = os.getcwd()  # noqa: PTH109
    return whole[len(here) + 1 :] if whole.startswith(f"{here}/") else whole


def _from(folder: str, mistake: Mistake) -> Mistake:
    """The mistake with a file that counts from the working directory."""
    file = os.path.join(folder, mistake.file)  # noqa: PTH118
    return msgspec.structs.replace(mistake, file=_shown(Path(file)))


def _joined(mistakes: Iterable[tuple[Mistake, str | None]]) -> Iterator[CheckedMistake]:
    """Each mistake once, by file and line, with all jobs that have it."""
    jobs: dict[tuple[str, int, str, str], list[str]] = {}
    for each, job_id in mistakes:
        named = jobs.setdefault((each.file, each.line, each.key, each.reason), [])
        if job_id is not None and job_id not in named:
            named.append(job_id)
    for (file, line, key, reason), named in sorted(jobs.items()):
        yield CheckedMistake(file=file, line=line, key=key, reason=reason, jobs=tuple(named))


def _show(report: CheckReport) -> None:
    for each in report.problems:
        line = f":{each.line}" if each.line else ""
        key = f" [{each.key}]" if each.key and each.key not in each.reason else ""
        print(clean(f"{each.file}{line}: {each.reason}{key}{_concerned(each)}"))
    if len(report.jobs) == 1:
        for key, place in report.jobs[0].origins.items():
            say(f"{key} is from {place}")
    looked_at = f"{len(report.jobs)} job{'s' * (len(report.jobs) != 1)}"
    count = len(report.problems)
    if count:
        say(f"{count} mistake{'s' * (count != 1)}; {looked_at} looked at")
    else:
        say(f"nothing is wrong; {looked_at} looked at")


def _concerned(mistake: CheckedMistake) -> str:
    """Which jobs have a mistake that stands in no job's own file."""
    if not mistake.jobs or mistake.file.endswith(f"/{FILE_NAME}"):
        return ""
    shown = ", ".join(mistake.jobs[:JOBS_NAMED_MAX])
    more = f" and {len(mistake.jobs) - JOBS_NAMED_MAX} more"
    return f" (counts for {shown}{more if len(mistake.jobs) > JOBS_NAMED_MAX else ''})"
