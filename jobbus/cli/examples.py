"""Where the examples lie: beside the sources of a checkout, or inside an installed wheel."""

from pathlib import Path

import jobbus
from jobbus.cli.exits import CliError


def example_apps() -> Path:
    """The folder with the example apps.

    Raises:
        CliError: this installation came without them.
    """
    return _example("apps", "Demo/jobs").parents[1]


def systemd_unit(name: str) -> Path:
    """The file with a unit for systemd: `jobbus.service` or `jobbus.socket`.

    Raises:
        CliError: as above.
    """
    return _example("systemd", name)


def _example(kind: str, name: str) -> Path:
    package = Path(jobbus.__file__).resolve().parent
    for folder in (package / "examples", package.parent / "examples"):
        if (folder / kind / name).exists():
            return folder / kind / name
    raise CliError(f"this installation of jobbus has no examples of {kind}; install it again")
