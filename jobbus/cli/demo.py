"""`demo`: a whole service with the example apps, and a real job started at once."""

import asyncio
import shutil
import signal
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from jobbus.cli.answers import refusal_word
from jobbus.cli.examples import example_apps
from jobbus.cli.exits import CliError, Exit
from jobbus.cli.naming import LIVE
from jobbus.cli.run import following_client, last_word, show_execution
from jobbus.cli.show import clean, on_terminal, say
from jobbus.client.client import Client
from jobbus.service.logs import configure_logs
from jobbus.service.settings import Settings
from jobbus.service.settings_reading import load_settings
from jobbus.service.start import running_node

JOB = "Demo/Checksum"
FOLDER = Path("jobbus-demo")
"""What `demo` leaves behind, to be edited."""

_STOP_S = 20.0
_LAST_LINES = 5


async def demo(
    *,
    once: Annotated[
        bool, Parameter(negative=(), help="End with the job and leave nothing behind")
    ] = False,
    verbose: Annotated[
        bool, Parameter(negative=(), help="Show all that the job prints, not only the end of it")
    ] = False,
    folder: Annotated[
        Path | None,
        Parameter(help="Folder to checksum, default Python's own", show_default=False),
    ] = None,
    listen: Annotated[str, Parameter(help="ADDRESS:PORT; port 0 takes a free one")] = (
        "127.0.0.1:0"
    ),
) -> int:
    """Serve the example apps and checksum the Python installation.

    Without --once it goes on serving until Ctrl-C, from the folder jobbus-demo, which stays: edit
    the jobs in it, and the service takes that at once.
    """
    what = _folder_of(folder)
    configure_logs("warning")
    with _home(once=once) as home:
        settings = await asyncio.to_thread(_prepared, home, listen)
        async with running_node(settings) as node:
            say(f"console: {node.sign_in_link()}")
            async with following_client(node.url, node.token) as client:
                show = _Show(client, what, verbose=verbose)
                try:
                    return await _until_interrupted(show, home, once=once)
                finally:
                    await _stop_all(client)


def _folder_of(folder: Path | None) -> str:
    if folder is None:
        return sysconfig.get_path("stdlib")
    if not folder.is_dir():
        raise CliError(f"--folder {folder}: there is no such folder", Exit.USAGE)
    return str(folder.absolute())


@contextmanager
def _home(*, once: bool) -> Iterator[Path]:
    """Where the apps and the data lie: a temporary folder, or `FOLDER`, which stays."""
    if once:
        with tempfile.TemporaryDirectory(prefix="jobbus-demo-") as temporary:
            yield Path(temporary)
        return
    home = FOLDER.absolute()
    if home.exists() and not (home / "apps").is_dir():
        raise CliError(
            f"{home} exists and is not the folder of a demo; call it something else, or start the "
            "demo in another folder"
        )
    try:
        home.mkdir(exist_ok=True)
    except OSError as exc:
        raise CliError(
            f"the folder {home} cannot be made; start the demo in a folder of your own, or with "
            "--once"
        ) from exc
    yield home
    say(f"the folder stays: {FOLDER}; jobbus demo serves it again, and rm -r {FOLDER} removes it")


def _prepared(home: Path, listen: str) -> Settings:
    """A copy of the example apps, if there is none yet, and settings that point there."""
    apps = home / "apps"
    if not apps.exists():
        unwanted = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(example_apps(), apps, ignore=unwanted)
    flags = {"serve.data": home / "data", "serve.apps": apps, "serve.listen": listen}
    return load_settings(flags=flags)


async def _until_interrupted(show: "_Show", home: Path, *, once: bool) -> int:
    """The exit code of the job; 130 if the person ended it before its end."""
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, interrupted.set)
    stop = asyncio.create_task(interrupted.wait(), name="interrupted")
    job = asyncio.create_task(show.checksum(), name="demo job")
    try:
        await asyncio.wait((stop, job), return_when=asyncio.FIRST_COMPLETED)
        if not job.done():
            return Exit.INTERRUPTED
        code = job.result()
        for line in _NEXT_ONCE if once else _next_serving(home):
            say(line)
        if not once:
            await stop
        return code
    finally:
        stop.cancel()
        job.cancel()
        await asyncio.wait((stop, job))


_NEXT_ONCE = (
    "try next:",
    "  jobbus demo           goes on serving, from a folder whose jobs can be edited",
    "  jobbus serve          serves the jobs of ./apps: apps/APP/jobs/JOB/job.toml",
)


def _next_serving(home: Path) -> Iterator[str]:
    yield "try next, in another terminal:"
    yield f"  export JOBBUS_DATA={home / 'data'}"
    yield f"  jobbus jobs   jobbus run {JOB}   jobbus logs -n 5 {JOB}   jobbus ps -a"
    job_file = home / "apps" / JOB.replace("/", "/jobs/") / "job.toml"
    yield f"  edit {job_file}: the service takes it at once"
    yield "serving; Ctrl-C ends it"


class _Show:
    """The job of the demo, shown from its start to its end."""

    def __init__(self, client: Client, folder: str, *, verbose: bool) -> None:
        self._client = client
        self._folder = folder
        self._verbose = verbose

    async def checksum(self) -> int:
        """The job has ended; the exit code."""
        client = self._client
        accepted = await client.start(JOB, {"Folder": self._folder})
        command = await client.wait_execution_id(accepted.command_id, timeout_s=60.0)
        if command.execution_id is None:
            say(f"{JOB}: {refusal_word(command)}")
            return Exit.ERROR
        execution, lines = await show_execution(
            client, command.execution_id, all_output=self._verbose
        )
        if not self._verbose:
            for line in lines[-_LAST_LINES:]:
                print(clean(line) if on_terminal() else line, flush=True)
        say(last_word(execution))
        return Exit.OK if execution.status == "Succeeded" else Exit.ERROR


async def _stop_all(client: Client) -> None:
    """Nothing of the demo runs any more: its folder is about to be removed."""
    page = await client.executions(status=LIVE, limit=500)
    for execution in page.items:
        accepted = await client.stop(execution_id=execution.execution_id, grace_s=2.0)
        await client.wait_command(accepted.command_id, timeout_s=_STOP_S)
