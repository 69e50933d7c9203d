"""`import`: definitions of other tools become folders of jobs, with a report of what does not."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from handlers.catalog.definition_files import ID_PART
from jobbus.cli.exits import CliError, Exit
from jobbus.cli.show import Cell, Json, say, show_json, show_line
from jobbus.importing.folders import Outcome, Placed, Report, place
from jobbus.importing.imported import Kind
from jobbus.importing.sources import STDIN, Tool, Unreadable, Wishes, imported

_STYLES = {Kind.LEFT_OUT: "red", Kind.CHANGED: "yellow", Kind.NOT_NEEDED: "dim"}


def import_jobs(
    tool: Tool,
    path: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    into: Path = Path("apps"),
    app: Annotated[str, Parameter(show_default=False)] = "",
    user: Annotated[str, Parameter(show_default=False)] = "",
    system: Annotated[bool, Parameter(negative=())] = False,
    check: Annotated[bool, Parameter(negative=())] = False,
    as_json: Json = False,
) -> int:
    """Write job.toml folders from what another tool runs.

    Every line that is not carried over, or not as it stands, is named with the reason; the exit
    code is 0 if nothing was left out, and 1 if something was. What exists is never overwritten, and
    the sources are not changed.

    Parameters
    ----------
    tool
        pswebhost, crontab, supervisord or pm2.
    path
        The crontab, supervisord.conf, ecosystem file, or the folder of them or of the project; - is
        stdin.
    into
        The apps folder that is written to.
    app
        The app of all jobs; else one that fits the tool, its group or its namespace.
    user
        Whose crontab it is, if its lines do not name accounts.
    system
        The lines of the crontab name accounts, as in /etc/crontab and /etc/cron.d.
    check
        Only say what would be written and left out.
    """
    if (user or system) and tool is not Tool.CRONTAB:
        raise CliError("--user and --system are for crontabs alone", Exit.USAGE)
    if user and system:
        raise CliError("--system means that the lines name their accounts: no --user", Exit.USAGE)
    if app and not ID_PART.fullmatch(app):
        raise CliError(
            f"--app {app}: letters, digits, dot, dash and underscore, beginning with a letter or "
            "digit, at most 64",
            Exit.USAGE,
        )
    if path != STDIN and not path.exists():
        raise CliError(f"{path}: there is no such file or folder", Exit.NOT_FOUND)
    try:
        found = imported(tool, path, Wishes(into, app, user, system))
    except Unreadable as fault:
        raise CliError(str(fault)) from fault
    report = place(found, into, check=check)
    if as_json:
        show_json(report)
    else:
        _show(report)
    return Exit.ERROR if report.left_out else Exit.OK


def _show(report: Report) -> None:
    for job in report.jobs:
        show_line(Cell(job.outcome, "green"), Cell(job.job_id, "bold"), job.path, _origin(job))
    for note in report.notes:
        place_ = f"{note.file}:{note.line}" if note.line else note.file
        about = f"({note.job_id}) " if note.job_id else ""
        shown = f"{note.text}: " if note.text else ""
        show_line(Cell(note.kind, _STYLES[note.kind]), place_, f"{about}{shown}{note.reason}")
    counts = [f"{sum(job.outcome is o for job in report.jobs)} {o}" for o in Outcome]
    shown_counts = [count for count in counts if not count.startswith("0 ")]
    say(f"jobs: {', '.join(shown_counts) or 'none'}; lines left out: {report.left_out}")


def _origin(job: Placed) -> str:
    line = f":{job.lines[-1]}" if job.lines else ""
    return f"from {job.file}{line}"
