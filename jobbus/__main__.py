"""`jobbus` and `python -m jobbus`: the program, run with its own packages.

`bus`, `handlers` and `transports` are common names. A folder of jobs, a project or PYTHONPATH may
hold others, and the working directory comes first with `python -m`: so these three are looked for
in one place only.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

OWN = ("bus", "handlers", "transports")


def main() -> None:
    """Runs the command line and exits with its code."""
    claim_own_packages()
    from jobbus.cli.main import main as run  # here, since it imports what has just been claimed

    run()


def claim_own_packages() -> None:
    """Imports of our own packages find ours, until the process ends."""
    folder = _folder()
    for name in list(sys.modules):
        # A sitecustomize, say, may have imported a package of the same name before us.
        root = name.partition(".")[0]
        if root in OWN and root not in _found_in(folder):
            del sys.modules[name]
    sys.meta_path.insert(0, _OwnPackages(folder))


class _OwnPackages:
    """Finds our own packages in `folder`, and nothing else anywhere."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in OWN:
            return None  # what is inside of a package is found by the path of the package
        return PathFinder.find_spec(name, [self._folder], target)


def _folder() -> Path:
    """An installation has the three below `jobbus`, where they are in the way of no others; the
    sources have them beside it."""
    here = Path(__file__).absolute().parent
    installed = here / "_packages"
    return installed if installed.is_dir() else here.parent


def _found_in(folder: Path) -> frozenset[str]:
    """Those of our packages that have been imported, and from there."""
    return frozenset(
        name
        for name in OWN
        if getattr(sys.modules.get(name), "__file__", None) == str(folder / name / "__init__.py")
    )


if __name__ == "__main__":
    main()
