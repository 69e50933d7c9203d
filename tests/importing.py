"""Sources of other tools for tests, and what an import makes of them.

`python -m tests.importing` writes the golden files beside the sources, after a change.
"""

from collections.abc import Callable
from pathlib import Path

from jobbus.importing.crontab import import_crontab
from jobbus.importing.imported import Import, JobNames, Source
from jobbus.importing.job_text import toml_text
from jobbus.importing.pm2 import import_pm2
from jobbus.importing.pswebhost import import_pswebhost
from jobbus.importing.supervisord import import_supervisord

FOLDER = Path(__file__).parent / "fixtures" / "importing"
GOLDEN = "golden"
HOMES = {"root": "/root", "www-data": "/var/www"}


def source(name: str) -> Source:
    text = (FOLDER / name).read_text(encoding="utf-8")
    return Source(file=Path(name).name, text=text, folder="/srv/old")


def crontab(text: Source, *, with_user: bool = False) -> Import:
    return import_crontab(text, JobNames(), with_user=with_user, homes=HOMES, home="/home/alice")


def supervisord(text: Source) -> Import:
    return import_supervisord((text,), JobNames(), host="machine")


def host_job(text: Source, *, has_init: bool = False) -> Import:
    return import_pswebhost(
        text, JobNames(), app="Shop", job="Job", has_init=has_init, in_place=False
    )


SOURCES: dict[str, Callable[[Source], Import]] = {
    "crontab": crontab,
    "cron.d": lambda text: crontab(text, with_user=True),
    "supervisord.conf": supervisord,
    "ecosystem.config.js": lambda text: import_pm2(text, JobNames()),
    "host/apps/Shop/jobs/Collect/job.json": lambda text: host_job(text, has_init=True),
    "host/apps/Shop/jobs/Import/job.json": host_job,
}
"""The sources by their path below `FOLDER`, and how each is imported."""


def shown(found: Import) -> str:
    """All that came of an import, for the eyes of a reviewer; as if all keys were built."""
    parts = []
    for job in found.jobs:
        parts.append(f"==== {job.job_id} of lines {', '.join(map(str, job.lines))}\n")
        parts.append(toml_text(job.definition))
        parts += (f"---- {name}\n{text}" for name, text in job.files.items())
    parts.append("==== notes\n")
    for note in found.notes:
        about = f" ({note.job_id})" if note.job_id else ""
        parts.append(f"{note.line}: {note.kind}{about}: {note.text} | {note.reason}\n")
    return "".join(parts)


def golden_of(name: str) -> Path:
    return FOLDER / GOLDEN / (name.replace("/", ".") + ".txt")


if __name__ == "__main__":
    for each, do in SOURCES.items():
        golden_of(each).parent.mkdir(exist_ok=True)
        golden_of(each).write_text(shown(do(source(each))), encoding="utf-8")
