"""`artifacts`: the files that an execution left, listed and fetched."""

import os
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bus.wording import did_you_mean, quoted
from jobbus.cli.answers import Json
from jobbus.cli.exits import CliError, Exit
from jobbus.cli.naming import execution_meant
from jobbus.cli.show import clean, on_terminal, say, show_json, show_table
from jobbus.cli.target import HERE, Target, service_at
from jobbus.cli.words import local_time
from jobbus.client.client import Client
from jobbus.client.records import Artifact, ArtifactList, Execution

STDOUT = "-"


async def artifacts(
    what: str,
    name: str | None = None,
    /,
    *,
    output: Annotated[
        str | None,
        Parameter(
            name=("--output", "-o"),
            help="Where the file is written: a file that does not exist, a folder, or - for stdout",
            show_default=False,
            allow_leading_hyphen=True,  # for - alone
        ),
    ] = None,
    archive: Annotated[
        bool, Parameter(name="--zip", negative=(), help="Fetch all of them as one zip")
    ] = False,
    as_json: Json = False,
    target: Target = HERE,
) -> int:
    """List the files that an execution left, or fetch one of them.

    Parameters
    ----------
    what
        The id of an execution or of the command that made it, or a job (App/Job), for its newest.
    name
        The file to fetch, as the list names it.
    """
    if output is not None and name is None and not archive:
        raise CliError("--output is for what is fetched: name a file, or give --zip", Exit.USAGE)
    async with Client(*service_at(target)) as client:
        execution = await execution_meant(client, what)
        if archive:
            place = _place(output, f"{execution.job_id.replace('/', '-')}.zip")
            await _write(client.artifact_archive(execution.execution_id), place)
            return Exit.OK
        found = await client.artifacts(execution.execution_id)
        if name is not None:
            chosen = _chosen(found, name, execution)
            place = _place(output, clean(chosen.name).rpartition("/")[2])
            await _write(client.artifact(execution.execution_id, chosen.path), place)
        elif as_json:
            show_json(found)
        else:
            _show(found)
    return Exit.OK


def _show(found: ArtifactList) -> None:
    if found.items or not found.note:
        show_table(
            ("NAME", "BYTES", "CHANGED"),
            ((each.name, str(each.size), local_time(each.modified)) for each in found.items),
        )
    if found.note:
        say(found.note)


def _chosen(found: ArtifactList, name: str, execution: Execution) -> Artifact:
    for each in found.items:
        if name in (each.name, each.path):
            return each
    hint = did_you_mean(name, [each.name for each in found.items])
    raise CliError(
        f"{execution.job_id} left no file {quoted(name)} in that execution{hint}", Exit.NOT_FOUND
    )


def _place(output: str | None, own_name: str) -> Path | None:
    """Where it is written; None is stdout.

    Raises:
        CliError: something is there, or it is the next option of the call.
    """
    if output == STDOUT:
        if on_terminal():
            raise CliError("bytes of a program are not written to a terminal", Exit.USAGE)
        return None
    if output is not None and output.startswith("-"):
        raise CliError(f"--output needs a value before {output}; a file: ./{output}", Exit.USAGE)
    place = Path(output or own_name)
    if place.is_dir():
        place /= own_name
    if place.exists() or place.is_symlink():
        raise CliError(f"{place} exists; name another with -o", Exit.CONFLICT)
    return place


async def _write(pieces: AsyncGenerator[bytes, None], place: Path | None) -> None:
    """All of it is there, or nothing."""
    if place is None:
        async with aclosing(pieces):
            async for piece in pieces:
                sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    try:
        file = place.open("xb")
    except FileExistsError as error:
        raise CliError(f"{place} exists; name another with -o", Exit.CONFLICT) from error
    except OSError as error:
        raise CliError(f"{place} cannot be written: {os.strerror(error.errno or 0)}") from error
    try:
        with file:
            async with aclosing(pieces):
                async for piece in pieces:
                    file.write(piece)
    except BaseException:  # also Ctrl-C, which comes as a cancellation
        os.unlink(place)  # noqa: PTH108 - no wait
        raise
    say(f"written: {place}")
