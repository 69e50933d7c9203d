"""Compiles the small C programs that show what the machine itself can do."""

import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

SOURCES = Path(__file__).parent / "native"


@cache
def compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def missing() -> str | None:
    """Why the C rows are skipped, or None."""
    return None if compiler() else "no C compiler here"


@cache
def program(name: str) -> Path:
    """The executable made from `native/{name}.c`, compiled once a run."""
    found = compiler()
    assert found is not None, "ask missing() first"
    target = _place() / name
    source = SOURCES / f"{name}.c"
    subprocess.run([found, "-O2", "-Wall", "-o", target, source], check=True)
    return target


@cache
def _place() -> Path:
    return Path(mkdtemp(prefix="jobbus-native-"))


def clean() -> None:
    """The executables of this run are gone."""
    if _place.cache_info().currsize:
        shutil.rmtree(_place())
