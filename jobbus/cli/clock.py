"""`clock`: whether the service believes its wall clock, and a person's word that it is right."""

from typing import Annotated

from cyclopts import Parameter

from bus.wording import did_you_mean, quoted
from jobbus.cli.answers import Json
from jobbus.cli.exits import CliError, Exit
from jobbus.cli.show import say, show_json, show_line
from jobbus.cli.target import HERE, Target, service_at
from jobbus.cli.words import local_time
from jobbus.client.client import Client


async def clock(
    word: Annotated[str | None, Parameter(show_default=False)] = None,
    /,
    *,
    as_json: Json = False,
    target: Target = HERE,
) -> int:
    """Show whether the service believes its clock, or say that it is right; needs the role admin.
    While it is not believed, nothing is started by schedule.

    Parameters
    ----------
    word
        believe, or nothing to show it.
    """
    if word not in (None, "believe"):
        hint = did_you_mean(word, ("believe",))
        raise CliError(f"clock takes believe or nothing, not {quoted(word)}{hint}", Exit.USAGE)
    async with Client(*service_at(target)) as client:
        found = await client.clock() if word is None else await client.believe_clock()
    if as_json:
        show_json({"clock": found})
    elif found.believed:
        show_line("believed")
    else:
        last = local_time(found.last_believed) or "never"
        show_line("not believed", f"it showed {local_time(found.shown)}; last believed: {last}")
        say("  nothing is started by schedule until it is set right, or: jobbus clock believe")
    return Exit.OK
