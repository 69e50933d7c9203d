"""What programs inherit of the service's environment, without what is the service's alone."""

import os
import pwd
import sys
from collections.abc import Mapping
from pathlib import Path

ACCOUNT_NAMES = ("HOME", "USER", "LOGNAME", "SHELL")
"""What a login sets; a service started by systemd or cron may lack them."""


def base_environment(
    environ: Mapping[str, str], *, prefix: str = sys.prefix, base_prefix: str = sys.base_prefix
) -> dict[str, str]:
    """The environment with the names of the account, and without the service's own virtual
    environment in `PATH`: `python3` in a job is that of the machine, whatever jobbus runs in."""
    base = {**_of_account(), **{name: text for name, text in environ.items() if text}}
    if "PATH" in base and prefix != base_prefix:
        own = Path(prefix).resolve()
        kept = [place for place in base["PATH"].split(":") if not _is_below(place, own)]
        base["PATH"] = ":".join(kept)
        if not kept:
            del base["PATH"]
    return base


def _is_below(place: str, folder: Path) -> bool:
    # Not the link itself: `bin` of a virtual environment may be reached by another name.
    return bool(place) and Path(place).resolve().is_relative_to(folder)


def _of_account() -> dict[str, str]:
    try:
        account = pwd.getpwuid(os.geteuid())
    except KeyError:  # a number without an account, as in a container
        return {"HOME": "/"}
    home, shell = account.pw_dir or "/", account.pw_shell or "/bin/sh"
    return dict(zip(ACCOUNT_NAMES, (home, account.pw_name, account.pw_name, shell), strict=True))
