"""Programs of others that tests run against: found, or the test says visibly what is missing."""

import os
import shutil
from typing import NoReturn

import pytest

REQUIRED = "JOBBUS_REQUIRE_ALL"
"""Set to 1, a missing counterpart fails the test: a machine that checks changes has them all."""

# Debian keeps servers where only root's PATH looks.
_PLACES = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def needs(program: str) -> str:
    """The path of the program; without it the test is skipped, or fails where all are required."""
    return shutil.which(program, path=_PLACES) or missing(f"{program} is not installed")


def missing(reason: str) -> NoReturn:
    """The test ends here: skipped with the reason, or failed where nothing may be missing."""
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{reason}, and {REQUIRED}=1", pytrace=False)
    pytest.skip(reason)
