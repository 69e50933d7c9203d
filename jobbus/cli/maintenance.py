"""`maintenance`: while it is on, no execution starts."""

from typing import Annotated

from cyclopts import Parameter

from bus.wording import did_you_mean, quoted
from jobbus.cli.exits import CliError, Exit
from jobbus.cli.show import Json, say, show_json, show_line
from jobbus.cli.target import HERE, Target, service_at
from jobbus.client.client import Client


async def maintenance(
    word: Annotated[str | None, Parameter(show_default=False)] = None,
    /,
    *,
    reason: Annotated[str, Parameter(help="Why, for those who meet it", show_default=False)] = "",
    as_json: Json = False,
    target: Target = HERE,
) -> int:
    """Show whether there is a maintenance, begin or end one; needs the role admin. What runs goes
    on; starts are refused until it is off.

    Parameters
    ----------
    word
        on, off, or nothing to show it.
    """
    if word not in (None, "on", "off"):
        hint = did_you_mean(word, ("on", "off"))
        raise CliError(f"maintenance is on or off, not {quoted(word)}{hint}", Exit.USAGE)
    if reason and word != "on":
        raise CliError("--reason counts only with: jobbus maintenance on", Exit.USAGE)
    async with Client(*service_at(target)) as client:
        if word is None:
            found = await client.maintenance()
        else:
            found = await client.set_maintenance(word == "on", reason)
    if as_json:
        show_json({"maintenance": found})
    elif found is None:
        show_line("off")
    else:
        why = f": {found['reason']}" if found.get("reason") else ""
        show_line("on", f"by {found.get('by', '')}{why}")
        if word == "on":
            say("  nothing starts until: jobbus maintenance off")
    return Exit.OK
