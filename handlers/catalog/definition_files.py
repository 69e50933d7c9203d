"""Reads the job definitions below one folder, `apps/*/jobs/*/job.toml`. Blocking; no asyncio."""

import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from bus.commands import Definition
from bus.job_definition import DefinitionFault
from bus.visible_text import visible
from handlers.catalog.definition_decoding import SIZE_MAX, decode_definition, revision_of
from handlers.catalog.near_jobs import FILE_NAME, JOBS_FOLDER, NearJob, near_file, near_jobs

LINKS_MAX = 40
"""As many as the kernel follows."""

ID_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Folders = frozenset[tuple[str, int, int]]
"""Folders by path, device and inode: a folder that was removed and made again is another folder."""

_ABSENT = (errno.ENOENT, errno.ENOTDIR)
_UNREADABLE = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG)


class DefinitionFiles:
    """One apps folder, read again and again; texts that did not change are not decoded again."""

    def __init__(self, apps: Path) -> None:
        # Links are followed at each scan: what they lead to may be another folder by then.
        self._apps = Path(os.path.abspath(apps))  # noqa: PTH100
        self._decoded: dict[str, tuple[str, Definition]] = {}  # by folder, with the revision
        self.folders: Folders = frozenset()
        """The folders that the last scan went through, and those that hold links to them or to
        definitions."""

    def scan(self) -> tuple[Definition, ...]:
        """What is defined now, by id; nothing if the folder does not exist. Renews `folders`.

        A deployment that swaps a link is seen as a whole: the definitions of one scan are all of
        the folder that the link led to when it began, and each names its own folder without links,
        so that its programs are those beside it, whatever the link leads to when they start.

        Raises:
            OSError: the folders could not be listed for a reason that is not theirs (too many
                open files, an I/O error), so what is defined is unknown.
        """
        found: dict[str, Definition] = {}
        decoded: dict[str, tuple[str, Definition]] = {}
        folders: set[tuple[str, int, int]] = set()
        for app, app_folder in _subfolders(_resolved(folders, str(self._apps))):
            app_folder = _resolved(folders, app_folder)
            jobs_folder = f"{app_folder}/{JOBS_FOLDER}"
            try:
                for job, job_folder in _subfolders(jobs_folder):
                    folder = _resolved(folders, job_folder)
                    _note_links_of(folders, f"{folder}/{FILE_NAME}")
                    definition = self._read(app, job, folder, decoded)
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
        self._decoded, self.folders = decoded, frozenset(folders)
        return tuple(found[job_id] for job_id in sorted(found))

    def _read(
        self, app: str, job: str, folder: str, decoded: dict[str, tuple[str, Definition]]
    ) -> Definition | None:
        """The definition in one job's folder; None if it holds no `job.toml`."""
        job_id = f"{_clean(app)}/{_clean(job)}"
        place = (app, JOBS_FOLDER, job, FILE_NAME)
        try:
            content = _content(f"{folder}/{FILE_NAME}")
        except OSError as exc:
            if exc.errno in _ABSENT:
                return None
            reason = exc.strerror or str(exc)
            return Definition(job_id=job_id, fault=self._fault(place, f"cannot be read: {reason}"))
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
        revision = revision_of(content, folder)
        known = self._decoded.get(folder)
        definition = known[1] if known and known[0] == revision else None
        if definition is None:
            definition = self._decode(job_id, content, revision, place, folder)
        decoded[folder] = (revision, definition)
        return definition

    def _near(self, app: str, near: NearJob) -> Definition:
        fault = self._fault((app, *near.place), near.reason)
        return Definition(job_id=f"{_clean(app)}/{_clean(near.job)}", fault=fault)

    def _decode(
        self, job_id: str, content: bytes, revision: str, place: tuple[str, ...], folder: str
    ) -> Definition:
        decoded = decode_definition(content, file=self._shown(place), directory=folder)
        if isinstance(decoded, DefinitionFault):
            return Definition(job_id=job_id, revision=revision, fault=decoded)
        return Definition(job_id=job_id, revision=revision, spec=decoded)

    def _fault(self, place: tuple[str, ...], reason: str) -> DefinitionFault:
        return DefinitionFault(file=self._shown(place), line=0, reason=reason)

    def _shown(self, place: tuple[str, ...]) -> str:
        """A file as people below the apps folder know it, e.g. `apps/Demo/jobs/Copy/job.toml`."""
        return "/".join(_clean(part) for part in (self._apps.name, *place))


def _subfolders(folder: str) -> Iterator[tuple[str, str]]:
    """Names and paths of the folders in `folder`, by name; symlinked ones too, hidden ones not.

    The depth is fixed by the callers, so links in a circle lead nowhere.
    """
    try:
        with os.scandir(folder) as entries:
            found = [(e.name, e.path) for e in entries if e.name[0] != "." and _is_folder(e)]
    except OSError as exc:
        if exc.errno in _ABSENT:
            return
        raise
    yield from sorted(found)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle, or one into a place that may not be looked at
        return False


def _content(path: str) -> bytes:
    """The bytes of a regular file, one more than allowed at most; pipes and devices never hang."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        content = b""
        while len(content) <= SIZE_MAX:
            piece = file.read(SIZE_MAX + 1 - len(content))
            if not piece:
                break
            content += piece
        return content


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
