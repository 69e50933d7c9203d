"""`demo`: a whole service in a temporary folder, with a real job started at once."""

import asyncio
import shutil
import signal
import sysconfig
import tempfile
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bus.model import ExecutionStatus
from jobbus.cli.examples import example_apps
from jobbus.cli.exits import Exit
from jobbus.cli.list import LIVE
from jobbus.cli.run import following_client, show_execution
from jobbus.cli.show import ending_word, say
from jobbus.client.client import Client
from jobbus.service import app
from jobbus.service.config import load_settings
from jobbus.service.logs import configure_logs
from jobbus.service.settings import Settings

JOB = "Demo/Checksum"
_STOP_S = 20.0


async def demo(
    *,
    once: Annotated[bool, Parameter(negative=(), help="End with the job")] = False,
    folder: Annotated[
        Path | None,
        Parameter(help="Folder to checksum, default Python's own", show_default=False),
    ] = None,
    listen: Annotated[str, Parameter(help="ADDRESS:PORT; port 0 takes a free one")] = (
        "127.0.0.1:0"
    ),
) -> int:
    """Serve the example apps from a temporary folder and checksum the Python installation.

    Without --once it goes on serving until Ctrl-C; then everything is stopped and removed.
    """
    configure_logs("warning")
    what = str(folder.absolute()) if folder is not None else sysconfig.get_path("stdlib")
    with tempfile.TemporaryDirectory(prefix="jobbus-demo-") as home:
        settings = await asyncio.to_thread(_prepared, Path(home), listen)
        async with app.running_node(settings) as node:
            say(f"console: {node.sign_in_link()}")
            async with following_client(node.url, node.token) as client:
                try:
                    return await _until_interrupted(client, what, once=once)
                finally:
                    await _stop_all(client)


def _prepared(folder: Path, listen: str) -> Settings:
    """A copy of the example apps, to be played with, and settings that point there."""
    shutil.copytree(
        example_apps(), folder / "apps", ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
    )
    flags = {"serve.data": folder / "data", "serve.apps": folder / "apps", "serve.listen": listen}
    return load_settings(flags=flags)


async def _until_interrupted(client: Client, folder: str, *, once: bool) -> int:
    """The exit code of the job; 130 if the person ended it before its end."""
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, interrupted.set)
    stop = asyncio.create_task(interrupted.wait(), name="interrupted")
    job = asyncio.create_task(_checksum(client, folder), name="demo job")
    try:
        await asyncio.wait((stop, job), return_when=asyncio.FIRST_COMPLETED)
        if not job.done():
            return Exit.INTERRUPTED
        code = job.result()
        if not once:
            say("serving; Ctrl-C ends it")
            await stop
        return code
    finally:
        stop.cancel()
        job.cancel()
        await asyncio.wait((stop, job))


async def _checksum(client: Client, folder: str) -> int:
    accepted = await client.start(JOB, {"Folder": folder})
    command = await client.wait_execution_id(accepted.command_id, timeout_s=60.0)
    if command.execution_id is None:
        say(f"{JOB}: {command.status} {command.error or ''}")
        return Exit.ERROR
    execution = await show_execution(client, command.execution_id)
    say(f"{JOB}: {ending_word(execution)}")
    return Exit.OK if execution.status == ExecutionStatus.SUCCEEDED else Exit.ERROR


async def _stop_all(client: Client) -> None:
    """Nothing of the demo runs any more: its folder is about to be removed."""
    page = await client.executions(status=LIVE, limit=500)
    for execution in page.items:
        accepted = await client.stop(execution_id=execution.execution_id, grace_s=2.0)
        await client.wait_command(accepted.command_id, timeout_s=_STOP_S)
