"""`doctor`: a data directory is looked at, and what is safe to repair is repaired."""

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from jobbus.cli.examples import systemd_unit
from jobbus.cli.exits import Exit
from jobbus.cli.show import Json, clean, say, show_json
from jobbus.doctor.examination import Report, begin_new_epoch, examine
from jobbus.service.settings import DATA_DEFAULT
from jobbus.service.settings_file import find_config
from jobbus.service.settings_reading import load_settings


def doctor(
    *,
    data: Annotated[Path | None, Parameter(show_default=False)] = None,
    config: Annotated[Path | None, Parameter(show_default=False)] = None,
    repair: Annotated[bool, Parameter(negative=())] = False,
    new_epoch: Annotated[bool, Parameter(negative=())] = False,
    show_unit: Annotated[bool, Parameter(name="--unit", negative=())] = False,
    show_socket: Annotated[bool, Parameter(name="--socket", negative=())] = False,
    as_json: Json = False,
) -> int:
    """Check a data directory; the exit code is 0 if nothing is wrong.

    Looking changes nothing and may be done while the service runs.

    Parameters
    ----------
    data
        Data directory; else JOBBUS_DATA, else ./jobbus-data.
    config
        The jobbus.toml of the service, for what only that says; else the one that serve finds.
    repair
        Repair what is safe to repair, while no service runs; evidence is never removed.
    new_epoch
        After restoring a backup: make all readers of the feed take a fresh snapshot.
    show_unit
        Only print the systemd unit that goes with this version.
    show_socket
        Only print the unit for the address, jobbus.socket, that goes with it.
    """
    if show_unit or show_socket:
        name = "jobbus.service" if show_unit else "jobbus.socket"
        print(systemd_unit(name).read_text(encoding="utf-8"), end="")
        return Exit.OK
    settings = None
    root = data or Path(os.environ.get("JOBBUS_DATA") or DATA_DEFAULT)
    found = find_config(config, root, os.environ)
    if found.path is not None:
        settings = load_settings(found.path, os.environ, {"serve.data": data})
        root = settings.serve.data
    report = examine(root, repair=repair, settings=settings)
    if new_epoch:
        begin_new_epoch(root)
    if as_json:
        show_json(report)
    else:
        _show(report)
        if new_epoch:
            say("the next start begins a new epoch")
    return Exit.OK if report.is_well else Exit.ERROR


def _show(report: Report) -> None:
    for finding in report.findings:
        word = "repaired" if finding.repaired else finding.level.value
        print(f"{word:8}  {clean(finding.text)}")
        if finding.repair and not finding.repaired:
            say(f"--repair would: {finding.repair}")
    if report.is_well:
        print(f"{report.data}: nothing is wrong")
