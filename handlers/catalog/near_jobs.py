"""Finds what somebody meant as a definition and nothing reads: under another name, or in another
place, than `<App>/jobs/<Job>/job.toml`. Blocking; no asyncio.

Only a look at names: nothing is opened. What cannot be listed is passed over, as long as that is
the folder's own fault.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

FILE_NAME = "job.toml"
JOBS_FOLDER = "jobs"
ALL = "*"
"""Stands for the job where a file belongs to none; it can be no job's name."""

ENTRIES_MAX = 200
"""So many entries of one folder are looked at: a mistake is among few."""

_MEANT_AS_FILE = re.compile(
    r"jobs?\.(toml|tml|tom|ya?ml|json|ini|cfg|conf|xml|toml\.txt)\Z", re.IGNORECASE
)
_TOML = re.compile(r"\.(toml|tml|tom|toml\.txt)\Z", re.IGNORECASE)
_USUAL = (FILE_NAME, "Job.toml", "JOB.TOML", "job.yaml", "job.yml", "job.json")
"""What is looked for in folders that may be anything; listing each would cost more."""

_MEANT_AS_FOLDER = re.compile(r"jobs?\Z", re.IGNORECASE)
_THE_FOLDERS_OWN = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EACCES,
    errno.EPERM,
    errno.ELOOP,
    errno.ENAMETOOLONG,
)


class NearJob(NamedTuple):
    """`job` is the name that it would have, `place` the path below the folder of the app."""

    job: str
    place: tuple[str, ...]
    reason: str


def near_file(folder: str) -> NearJob | None:
    """What in the folder of a job was meant as its definition, if there is no `job.toml`."""
    job = folder.rpartition("/")[2]
    names = [name for name, is_folder in _entries(folder) if not is_folder and name != FILE_NAME]
    for name in sorted(filter(_MEANT_AS_FILE.match, names)):
        return NearJob(job, (JOBS_FOLDER, job, name), _renamed(name))
    for name, is_folder in _entries(folder):
        if is_folder and (file := _definition_in(f"{folder}/{name}")):
            reason = (
                f"lies too deep: move the folder {name} up, to {JOBS_FOLDER}/{name}; jobs are in "
                f"no folders of their own below {JOBS_FOLDER}"
            )
            return NearJob(job, (JOBS_FOLDER, job, name, file), reason + _and_renamed(file))
    return None


def near_jobs(app_folder: str) -> Iterator[NearJob]:
    """What lies in an app's folder, and not in its folder `jobs`, as if it were a job."""
    for place in ((), (JOBS_FOLDER,)):
        folder = "/".join((app_folder, *place))
        for name in sorted(n for n, is_folder in _entries(folder) if not is_folder):
            if _MEANT_AS_FILE.match(name) and _TOML.search(name):
                reason = (
                    "is in no folder of a job: a definition is a file "
                    f"{JOBS_FOLDER}/NAME/{FILE_NAME}, NAME being that of the job"
                )
                yield NearJob(ALL, (*place, name), reason)
                break
    for name in sorted(n for n, is_folder in _entries(app_folder) if is_folder):
        if name == JOBS_FOLDER:
            continue
        if file := _definition_in(f"{app_folder}/{name}"):
            reason = _not_below_jobs(app_folder.rpartition("/")[2], name)
            yield NearJob(name, (name, file), reason + _and_renamed(file))
        elif _MEANT_AS_FOLDER.match(name):
            yield from _in_misnamed(app_folder, name)


def _not_below_jobs(app: str, name: str) -> str:
    if _MEANT_AS_FOLDER.match(app):
        return f"is in no app: move the folder {app}/{name} to APP/{JOBS_FOLDER}/{name}"
    return f"is not below {JOBS_FOLDER}: move the folder {name} to {JOBS_FOLDER}/{name}"


def _in_misnamed(app_folder: str, folder: str) -> Iterator[NearJob]:
    for name, is_folder in _entries(f"{app_folder}/{folder}"):
        if is_folder and (file := _definition_in(f"{app_folder}/{folder}/{name}")):
            reason = f"is not below {JOBS_FOLDER}: rename the folder {folder} to {JOBS_FOLDER}"
            yield NearJob(name, (folder, name, file), reason + _and_renamed(file))


def _renamed(name: str) -> str:
    if _TOML.search(name):
        return f"is not read under this name: rename it to {FILE_NAME}"
    return f"is not read: a definition is written in TOML, in a file {FILE_NAME}"


def _and_renamed(name: str) -> str:
    if name == FILE_NAME:
        return ""
    return f"; and the file {name} {_renamed(name)}"


def _definition_in(folder: str) -> str | None:
    """The name of the file in the folder that is or was meant as a definition."""
    for name in _USUAL:
        try:
            if stat.S_ISREG(os.stat(f"{folder}/{name}").st_mode):  # noqa: PTH116
                return name
        except OSError as error:
            if error.errno not in _THE_FOLDERS_OWN:
                raise
    return None


def _entries(folder: str) -> list[tuple[str, bool]]:
    """Names, and whether they are folders; hidden ones left out."""
    try:
        with os.scandir(folder) as entries:
            shown = (entry for entry in entries if entry.name[0] != ".")
            return [(entry.name, _is_folder(entry)) for entry in islice(shown, ENTRIES_MAX)]
    except OSError as error:
        if error.errno not in _THE_FOLDERS_OWN:
            raise
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False
