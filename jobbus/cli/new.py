"""`new`: the folder of a new job, with a commented definition that runs as it is."""

import os
import stat
from pathlib import Path
from typing import Annotated, Final, NamedTuple

from cyclopts import Parameter

from bus.job_definition import DefinitionFault
from bus.scarcity import reason_of
from bus.wording import quoted
from handlers.catalog.definition_decoding import decode_definition
from handlers.catalog.definition_files import ID_PART
from handlers.catalog.near_jobs import FILE_NAME, JOBS_FOLDER
from jobbus.authoring.script_variables import Taken
from jobbus.authoring.starter import (
    PROGRAMS,
    command_of,
    definition_text,
    starter_program,
    taken_by,
    taken_by_starter,
)
from jobbus.cli.checking import apps_folder, found_config
from jobbus.cli.exits import CliError, Exit
from jobbus.cli.show import clean, say
from jobbus.service.settings_mistakes import read_settings
from jobbus.service.settings_reading import FILE_SIZE_MAX

SCRIPT_SIZE_MAX: Final = 16 * 1024 * 1024
_SCRIPT: Final = "run.sh"
_MODE_OF_PROGRAMS: Final = 0o755


class _Program(NamedTuple):
    """The program of the job, by the name that it gets; `is_there` already in the job's folder, or
    `is_starter`, which we write."""

    name: str
    content: bytes
    mode: int
    taken: Taken
    is_there: bool = False
    is_starter: bool = False


def new(
    job: Annotated[str, Parameter(name="App/Job")],
    /,
    *,
    from_: Annotated[Path | None, Parameter(name="--from", show_default=False)] = None,
    apps: Annotated[Path | None, Parameter(show_default=False)] = None,
) -> int:
    """Write a commented definition for a new job that runs as it is; nothing is overwritten.

    It goes into the folder of the apps that serve would take, and stdout is its path.

    Parameters
    ----------
    job
        The id of the job; the folders that it needs are made.
    from_
        A script, which is copied beside the definition. What it takes by argparse, param() or
        JOBBUS_VAR_NAME is read, without running it, and becomes variables. A plain name such as
        run.py that is no file gives a starter in that language; without it, run.sh.
    apps
        The folder of the apps.
    """
    app, _, name = job.partition("/")
    for part, kind in ((app, "app"), (name, "job")):
        if not ID_PART.fullmatch(part):
            raise CliError(
                f"{quoted(job)} is no id of a job: that is App/Job, the {kind} of letters, digits, "
                "dot, dash and underscore, beginning with a letter or digit, at most 64",
                Exit.USAGE,
            )
    folder = (apps or apps_folder(_apps_in_settings())) / app / JOBS_FOLDER / name
    file = folder / FILE_NAME
    if os.path.lexists(file):
        raise CliError(f"{file} is there already; nothing was changed", Exit.CONFLICT)
    program = _given(from_, folder) if from_ is not None else _started(_SCRIPT)
    text = _definition(job, program, folder)
    _write(folder, program, text)
    print(clean(str(file)))
    if program.is_starter and from_ is not None:
        say(f"there is no file {from_} here: the job has a starter of that name")
    for left in program.taken.left:
        say(f"left to you: {left}")
    say(f"look at it, then: jobbus run {job}")
    return Exit.OK


def _apps_in_settings() -> Path | None:
    """What jobbus.toml names; one with mistakes names what it can."""
    config = found_config()
    if config is None:
        return None
    with config.open("rb") as opened:
        reading = read_settings(opened.read(FILE_SIZE_MAX + 1), config, str(config))
    return reading.settings.serve.apps if reading.settings else None


def _given(script: Path, folder: Path) -> _Program:
    """The script of the person, or a starter where only a language was named."""
    try:
        with script.open("rb") as opened:
            content = opened.read(SCRIPT_SIZE_MAX + 1)
            mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
    except FileNotFoundError:
        if script.parent == Path() and starter_program(script.name) is not None:
            return _started(script.name)
        raise CliError(f"there is no {script}", Exit.NOT_FOUND) from None
    except OSError as error:
        raise CliError(f"{script} cannot be read: {reason_of(error)}") from error
    if len(content) > SCRIPT_SIZE_MAX:
        raise CliError(f"{script} is larger than {SCRIPT_SIZE_MAX >> 20} MiB; is it a script?")
    taken = taken_by(script.name, content.decode("utf-8-sig", "replace"))
    is_there = script.resolve().parent == folder.resolve()
    return _Program(script.name, content, mode, taken, is_there)


def _started(name: str) -> _Program:
    text = starter_program(name)
    assert text is not None, name
    mode, taken = _MODE_OF_PROGRAMS, taken_by_starter(name)
    return _Program(name, text.encode(), mode, taken, is_starter=True)


def _definition(job: str, program: _Program, folder: Path) -> str:
    """The text; it is read once as a service would."""
    first_line = program.content[:200].partition(b"\n")[0].decode("utf-8", "replace")
    command = command_of(program.name, first_line, is_executable=bool(program.mode & 0o100))
    if command is None:
        known = ", ".join(sorted(PROGRAMS))
        raise CliError(
            f"{program.name} does not say what runs it: begin it with a line such as #!/bin/sh and "
            f"make it executable, or give it one of the endings {known}",
            Exit.USAGE,
        )
    text = definition_text(job, program.name, command, program.taken)
    read = decode_definition(text.encode(), file=FILE_NAME, directory=str(folder))
    if isinstance(read, DefinitionFault):
        raise CliError(f"what was read from {program.name} makes no definition: {read.reason}")
    return text


def _write(folder: Path, program: _Program, text: str) -> None:
    """The program, then the definition, since a service starts to read with that."""
    script, made = folder / program.name, False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not program.is_there:
            with script.open("xb") as opened:
                made = True
                opened.write(program.content)
            script.chmod(program.mode)
        with (folder / FILE_NAME).open("x", encoding="utf-8") as opened_text:
            opened_text.write(text)
    except FileExistsError as error:
        if made:
            script.unlink(missing_ok=True)
        place = error.filename or folder
        raise CliError(f"{place} is there already; nothing was changed", Exit.CONFLICT) from error
    except OSError as error:
        raise CliError(f"{folder} cannot be written: {reason_of(error)}") from error
