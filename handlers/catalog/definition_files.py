"""Reads the job definitions below one folder, `apps/*/jobs/*/job.toml`, each with the defaults that
count for it, and what apps say of themselves. Blocking; no asyncio."""

import errno
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from bus.apps import App, AppSpec
from bus.commands import Definition
from bus.job_definition import DefinitionFault, Mistake, fault_of
from bus.toml_text import TomlFault, toml_text
from bus.visible_text import visible
from handlers.calendars.calendar_files import NAME as CALENDARS_NAME
from handlers.calendars.calendar_files import CalendarFiles
from handlers.calendars.calendar_set import CalendarSet, Written
from handlers.catalog.chain_checks import without_cycles
from handlers.catalog.definition_decoding import (
    decode_app,
    decode_definition,
    placed_fault,
    revision_of,
)
from handlers.catalog.former_names import clashes
from handlers.catalog.layers import SIZE_MAX, Layer
from handlers.catalog.machine_checks import machine_problems
from handlers.catalog.near_jobs import FILE_NAME, JOBS_FOLDER, NearJob, near_file, near_jobs
from handlers.catalog.problem import Problem
from handlers.catalog.regular_files import SETTLED_NS, content_of
from handlers.catalog.toml_lines import Path as KeyPath
from handlers.catalog.toml_lines import key_lines, line_of

LINKS_MAX = 40
"""As many as the kernel follows."""

ID_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Folders = frozenset[tuple[str, int, int]]
"""Folders by path, device and inode: a folder that was removed and made again is another folder."""

DEFAULTS_NAME: Final = "defaults.toml"
APP_NAME: Final = "app.toml"

CALENDARS_ID: Final = "*/calendars"
"""In the place of a job: what is wrong with `calendars.toml`."""

MISTAKES_MAX: Final = 50
"""So many mistakes of one definition are kept and shown by a service."""

_ABSENT = (errno.ENOENT, errno.ENOTDIR)
_UNREADABLE = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG)


class Defaults(Layer):
    """One `defaults.toml` as it was read."""

    def __init__(self, file: str, content: bytes) -> None:
        super().__init__(file, content)
        self.content = content

    @classmethod
    def unreadable(cls, file: str, error: OSError) -> "Defaults":
        """One that is there and cannot be read: what it says is not known."""
        made = cls(file, b"")
        made.fault = TomlFault(0, 0, _unreadable(file, error).reason)
        made.content = made.fault.reason.encode()
        return made


Mark = tuple[int, int, int, int, int]
"""By what a file differs from one that was changed or put in its place."""


class _Known(NamedTuple):
    """A definition as it was read, beside these defaults and names of calendars; `mark` is that of
    a file which had settled by then. `key` is what it was decoded from: its revision and, if it
    goes by any, calendars."""

    mark: Mark | None
    defaults: tuple[Defaults, ...]
    calendars: frozenset[str] | None
    key: str
    definition: Definition


class DefinitionFiles:
    """One apps folder, or one `app` in it, read again and again; texts that did not change are not
    decoded again."""

    def __init__(
        self,
        apps: Path,
        *,
        app: str | None = None,
        mistakes_max: int | None = MISTAKES_MAX,
        zone: str = "UTC",
        on_this_machine: bool = True,
    ) -> None:
        """`zone` is that of schedules that name none. Without `on_this_machine` it does not count
        whether this machine has the accounts, the control groups and the rights that definitions
        ask for."""
        self._zone = zone
        self._calendar_files = CalendarFiles(zone)
        # Links are followed at each scan: what they lead to may be another folder by then.
        self._apps = Path(os.path.abspath(apps))  # noqa: PTH100
        self._only = app
        self._on_this_machine = on_this_machine
        self._mistakes_max = mistakes_max
        self._known: dict[tuple[str, str], _Known] = {}  # by id and folder
        self._thorough = True
        self.groups: frozenset[str] | None = None
        """The groups that a definition may name; None if these are not known."""
        self._groups: frozenset[str] | None = None  # by which `_known` was made
        self.defaults: Mapping[str, Defaults] = {}
        """The `defaults.toml` of the last scan, by path."""
        self.apps: tuple[App, ...] = ()
        """What the apps of the last scan say of themselves, by id."""
        self.written_ns = 0
        """When the newest file, or folder of jobs, was written that the last scan found."""
        self.folders: Folders = frozenset()
        """The folders that the last scan went through, and those that hold links to them or to
        definitions."""

    def scan(self, *, thorough: bool = True) -> tuple[Definition, ...]:
        """What is defined now, by id; nothing if the folder does not exist. Renews `folders`,
        `defaults` and `apps`. What is not `thorough` believes that a file is the same whose times,
        size and inode are.

        A deployment that swaps a link is seen as a whole: the definitions of one scan are all of
        the folder that the link led to when it began, and each names its own folder without links,
        so that its programs are those beside it, whatever the link leads to when they start.

        Raises:
            OSError: the folders could not be listed for a reason that is not theirs (too many
                open files, an I/O error), so what is defined is unknown.
        """
        if self._groups != self.groups:
            self._groups, self._known = self.groups, {}
        found: dict[str, Definition] = {}
        known: dict[tuple[str, str], _Known] = {}
        self._thorough = thorough
        folders: set[tuple[str, int, int]] = set()
        defaults: dict[str, Defaults] = {}
        apps: list[App] = []
        self.written_ns = 0
        root = _resolved(folders, str(self._apps))
        of_site = self._defaults(root, (), folders, defaults)
        self._read_calendars(root, folders, found)
        for app, app_folder in _subfolders(root):
            if self._only not in (None, app):
                continue
            app_folder = _resolved(folders, app_folder)
            in_force = (*self._defaults(app_folder, (app,), folders, defaults), *of_site)
            apps.append(self._app(app, app_folder, folders))
            jobs_folder = _resolved(folders, f"{app_folder}/{JOBS_FOLDER}")
            self._note_written(jobs_folder)
            try:
                for job, job_folder in _subfolders(jobs_folder, or_nothing=True):
                    folder = job_folder
                    if os.path.islink(folder):  # noqa: PTH114 - to resolve all would take longer
                        folder = _resolved(folders, folder)
                    else:
                        _note(folders, folder)
                    _note_links_of(folders, f"{folder}/{FILE_NAME}")
                    definition = self._read(app, job, folder, in_force, known)
                    if definition is None:
                        near = near_file(job_folder)
                        definition = self._near(app, near) if near is not None else None
                    if definition is not None:
                        found.setdefault(definition.job_id, definition)
                _note(folders, jobs_folder)
                for near in near_jobs(app_folder):
                    definition = self._near(app, near)
                    found.setdefault(definition.job_id, definition)
            except OSError as exc:
                if exc.errno not in _UNREADABLE:
                    raise
                # One locked app hides no other; "*" can be no job's name.
                fault = self._fault((app, JOBS_FOLDER), f"cannot be listed: {exc.strerror}")
                found[f"{_clean(app)}/*"] = Definition(job_id=f"{_clean(app)}/*", fault=fault)
        for definition, index, reason in list(clashes(found)):
            found[definition.job_id] = self._misnamed(definition, index, reason)
        self._known, self.folders = known, frozenset(folders)
        self.defaults, self.apps = defaults, tuple(apps)
        return tuple(without_cycles((found[job_id] for job_id in sorted(found)), self._fault_of))

    @property
    def calendars(self) -> CalendarSet:
        """The calendars and blackouts of the last good `calendars.toml` and settings."""
        return self._calendar_files.calendars

    def go_by_calendars(self, of_settings: Written) -> None:
        """From the next scan on these calendars and blackouts count, beside `calendars.toml`."""
        self._calendar_files.of_settings = of_settings

    def _read_calendars(
        self, root: str, folders: set[tuple[str, int, int]], found: dict[str, Definition]
    ) -> None:
        """What stands in `calendars.toml` and in the settings is in force; what is wrong with it
        is found."""
        _note_links_of(folders, f"{root}/{CALENDARS_NAME}")
        self._calendar_files.read(
            root,
            lambda name: _clean(name) if name.startswith("/") else self._shown((name,)),
        )
        for folder in self._calendar_files.folders:
            _resolved(folders, folder)
        if self._calendar_files.mistakes and self._only is None:
            # As with a locked app: "*" can be no app's name.
            fault = fault_of(self._calendar_files.mistakes, self._mistakes_max)
            found[CALENDARS_ID] = Definition(job_id=CALENDARS_ID, fault=fault)

    def _defaults(
        self,
        folder: str,
        place: tuple[str, ...],
        folders: set[tuple[str, int, int]],
        found: dict[str, Defaults],
    ) -> tuple[Defaults, ...]:
        """The `defaults.toml` of the folder, if there is one; read again only if it changed."""
        path = f"{folder}/{DEFAULTS_NAME}"
        _note_links_of(folders, path)
        file = self._shown((*place, DEFAULTS_NAME))
        self._note_written(path)
        try:
            content = content_of(path, SIZE_MAX)
        except OSError as exc:
            if exc.errno in _ABSENT:
                return ()
            found[path] = Defaults.unreadable(file, exc)
            return (found[path],)
        known = self.defaults.get(path)
        found[path] = known if known and known.content == content else Defaults(file, content)
        return (found[path],)

    def _app(self, app: str, folder: str, folders: set[tuple[str, int, int]]) -> App:
        """What the app's `app.toml` says, which may be missing; while it has mistakes, what it
        said last without."""
        path = f"{folder}/{APP_NAME}"
        _note_links_of(folders, path)
        file = self._shown((app, APP_NAME))
        try:
            decoded = decode_app(content_of(path, SIZE_MAX), file)
        except OSError as exc:
            if exc.errno in _ABSENT:
                return App(id=_clean(app))
            decoded = (_unreadable(file, exc),)
        if isinstance(decoded, AppSpec):
            return App(id=_clean(app), spec=decoded)
        before = next((each.spec for each in self.apps if each.id == _clean(app)), AppSpec())
        return App(id=_clean(app), spec=before, mistakes=decoded[:MISTAKES_MAX])

    def _read(
        self,
        app: str,
        job: str,
        folder: str,
        defaults: tuple[Defaults, ...],
        found: dict[tuple[str, str], _Known],
    ) -> Definition | None:
        """The definition in one job's folder; None if it holds no `job.toml`."""
        job_id = f"{_clean(app)}/{_clean(job)}"
        place = (app, JOBS_FOLDER, job, FILE_NAME)
        mark = self._mark_of(f"{folder}/{FILE_NAME}")
        known = self._known.get((job_id, folder))
        calendars = self._calendar_files.names
        basis = (mark, defaults, calendars)
        if known and mark and not self._thorough and known[:3] == basis:
            found[job_id, folder] = known
            return known.definition
        try:
            content = content_of(f"{folder}/{FILE_NAME}", SIZE_MAX)
        except OSError as exc:
            if exc.errno in _ABSENT:
                return self._leads_nowhere(job_id, (app, JOBS_FOLDER, job))
            return Definition(job_id=job_id, fault=fault_of([_unreadable(self._shown(place), exc)]))
        for part, kind in ((app, "app"), (job, "job")):
            if not ID_PART.fullmatch(part):
                reason = (
                    f"the folder of the {kind} cannot be an id: letters, digits, dot, dash and "
                    "underscore, beginning with a letter or digit, at most 64"
                )
                return Definition(job_id=job_id, fault=self._fault(place, reason))
        if not folder.isascii() and _clean(folder) != folder:
            reason = "the path of the apps folder does not print; move it to a plain one"
            return Definition(job_id=job_id, fault=self._fault(place, reason))
        texts = (content, *(each.content for each in defaults))
        revision = revision_of(content, folder, texts[1:], self._zone)
        goes_by = any(word in text for word in (b"only", b"except") for text in texts)
        known_names = calendars if calendars is None else sorted(calendars)
        key = f"{revision} {known_names}" if goes_by else revision
        definition = known.definition if known and known.key == key else None
        if definition is None:
            definition = self._decode(job_id, content, revision, place, folder, defaults)
        problems: list[Problem] = []
        if definition.spec is not None and self._on_this_machine:
            problems = list(machine_problems(definition.spec))
        # What the machine lacks may be there at the next look.
        seen = None if problems else mark
        found[job_id, folder] = _Known(seen, defaults, calendars, key, definition)
        if problems:
            fault = placed_fault(problems, content, self._shown(place), defaults)
            return Definition(job_id=job_id, revision=revision, fault=fault)
        return definition

    def _leads_nowhere(self, job_id: str, place: tuple[str, ...]) -> Definition | None:
        """The fault of a definition that is not there since a link to it leads to nothing."""
        for link in (place, (*place, FILE_NAME)):
            path = "/".join((str(self._apps), *link))
            if os.path.islink(path) and not os.path.exists(path):  # noqa: PTH110, PTH114
                target = os.readlink(path)  # noqa: PTH115
                reason = f"is a link that leads to nothing: there is no {visible(target)}"
                return Definition(job_id=job_id, fault=self._fault(link, reason))
        return None

    def _note_written(self, path: str) -> os.stat_result | None:
        """What the path is, if it is there, and noted when it was written."""
        try:
            found = os.stat(path)  # noqa: PTH116 - paths stay text here
        except OSError:
            return None
        self.written_ns = max(self.written_ns, found.st_ctime_ns)
        return found

    def _mark_of(self, path: str) -> Mark | None:
        """None if it is not there, or was changed a moment ago, or in a time to come."""
        found = self._note_written(path)
        if found is None or time.time_ns() - found.st_ctime_ns < SETTLED_NS:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def _misnamed(self, definition: Definition, index: int, reason: str) -> Definition:
        """The definition with the fault that its `formerly` is beside the others."""
        assert definition.spec is not None
        app, _, job = definition.job_id.partition("/")
        place = (app, JOBS_FOLDER, job, FILE_NAME)
        fault = self._fault(place, reason)
        with suppress(OSError):  # it changes just now
            content = content_of(f"{definition.spec.directory}/{FILE_NAME}", SIZE_MAX)
            problem = Problem(("formerly", index), reason)
            fault = placed_fault([problem], content, self._shown(place))
        return Definition(job_id=definition.job_id, revision=definition.revision, fault=fault)

    def _near(self, app: str, near: NearJob) -> Definition:
        fault = self._fault((app, *near.place), near.reason)
        return Definition(job_id=f"{_clean(app)}/{_clean(near.job)}", fault=fault)

    def _decode(
        self,
        job_id: str,
        content: bytes,
        revision: str,
        place: tuple[str, ...],
        folder: str,
        defaults: tuple[Defaults, ...],
    ) -> Definition:
        decoded = decode_definition(
            content,
            file=self._shown(place),
            directory=folder,
            defaults=defaults,
            zone=self._zone,
            calendars=self._calendar_files.names,
            groups=self._groups,
        )
        if isinstance(decoded, DefinitionFault):
            fault = fault_of(decoded.all, self._mistakes_max)
            return Definition(job_id=job_id, revision=revision, fault=fault)
        return Definition(job_id=job_id, revision=revision, spec=decoded)

    def _fault_of(self, definition: Definition, path: KeyPath, reason: str) -> DefinitionFault:
        """The fault of one that only together with others is wrong, with the line of `path`."""
        assert definition.spec is not None, definition.job_id
        line = 0
        with suppress(OSError, TomlFault):
            text = toml_text(content_of(f"{definition.spec.directory}/{FILE_NAME}", SIZE_MAX))
            line = line_of(path, key_lines(text))
        app, _, job = definition.job_id.partition("/")
        return DefinitionFault(
            file=self._shown((app, JOBS_FOLDER, job, FILE_NAME)), line=line, reason=reason
        )

    def _fault(self, place: tuple[str, ...], reason: str) -> DefinitionFault:
        return DefinitionFault(file=self._shown(place), line=0, reason=reason)

    def _shown(self, place: tuple[str, ...]) -> str:
        """A file as people below the apps folder know it, e.g. `apps/Demo/jobs/Copy/job.toml`."""
        return "/".join(_clean(part) for part in (self._apps.name, *place))


def _unreadable(file: str, error: OSError) -> Mistake:
    return Mistake(file=file, line=0, reason=f"cannot be read: {error.strerror or error}")


def _subfolders(folder: str, *, or_nothing: bool = False) -> Iterator[tuple[str, str]]:
    """Names and paths of the folders in `folder`, by name; symlinked ones too, hidden ones not;
    `or_nothing`: links that lead to nothing as well.

    The depth is fixed by the callers, so links in a circle lead nowhere.
    """
    try:
        with os.scandir(folder) as entries:
            found = [
                (e.name, e.path)
                for e in entries
                if e.name[0] != "." and (_is_folder(e) or (or_nothing and _is_broken(e)))
            ]
    except OSError as exc:
        if exc.errno in _ABSENT:
            return
        raise
    yield from sorted(found)


def _is_broken(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)  # noqa: PTH110


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle, or one into a place that may not be looked at
        return False


def _note_links_of(folders: set[tuple[str, int, int]], file: str) -> None:
    """Noted: where `file` is if it is a link, with the folders of all links on the way. There it is
    replaced, by one rename of a link in between where a ConfigMap is mounted."""
    if os.path.islink(file):  # noqa: PTH114 - paths stay text here
        _resolved(folders, file)
        _note(folders, os.path.dirname(os.path.realpath(file)))  # noqa: PTH120


def _resolved(folders: set[tuple[str, int, int]], path: str) -> str:
    """The folder that `path` leads to, noted with those in which a link on the way lies."""
    for place in _places_of_links(path):
        if os.access(place, os.R_OK):  # what may not be read cannot be watched either
            _note(folders, place)
    real = os.path.realpath(path)
    _note(folders, real)
    return real


def _places_of_links(path: str) -> Iterator[str]:
    """The folders of the links over which an absolute path leads, in order."""
    here, names = "/", path.split("/")[::-1]
    links = 0
    while names and links < LINKS_MAX:
        name = names.pop()
        if name == "..":
            here = os.path.dirname(here)  # noqa: PTH120 - paths stay text here
        elif name not in ("", "."):
            there = os.path.join(here, name)  # noqa: PTH118
            try:
                target = os.readlink(there)  # noqa: PTH115
            except OSError:
                here = there
                continue
            yield here
            links += 1
            names += target.split("/")[::-1]
            here = "/" if target.startswith("/") else here


def _note(folders: set[tuple[str, int, int]], path: str) -> None:
    try:
        status = os.stat(path)  # noqa: PTH116 - paths stay text here
    except OSError:
        return
    if stat.S_ISDIR(status.st_mode):
        folders.add((path, status.st_dev, status.st_ino))


def _clean(name: str) -> str:
    """A folder's name as it may be shown: what cannot be seen is replaced."""
    return visible(name)
