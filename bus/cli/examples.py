"""Where the example apps lie: beside the sources of a checkout, or inside an installed wheel."""

from pathlib import Path

import bus
from bus.cli.exits import CliError


def example_apps() -> Path:
    """The folder with the example apps.

    Raises:
        CliError: this installation came without them.
    """
    package = Path(bus.__file__).resolve().parent
    for folder in (package / "examples" / "apps", package.parent / "examples" / "apps"):
        if (folder / "Demo" / "jobs").is_dir():
            return folder
    raise CliError("this installation of jobbus has no example apps; install it anew")
