"""What a script takes, as variables of a job: what every reader of scripts answers. No IO.

Scripts are read and never run. What cannot be carried over without a change of its meaning is left
to the person, with the reason.
"""

import re
from typing import Final, NamedTuple

from bus.job_definition import JobSpec, VariableSpec
from handlers.catalog.program_call import VARIABLE_PREFIX
from handlers.catalog.variable_checks import VARIABLE_NAME, variables

_READ: Final = re.compile(rf"{VARIABLE_PREFIX}({VARIABLE_NAME.pattern})")


class Variable(NamedTuple):
    """A variable, and the arguments by which the program gets it."""

    name: str
    spec: VariableSpec
    arguments: tuple[str, ...] = ()


class Taken(NamedTuple):
    """All that was found in a script; `left` are sentences on what a person must decide about."""

    variables: tuple[Variable, ...] = ()
    left: tuple[str, ...] = ()


def why_unfit(spec: VariableSpec) -> str | None:
    """Why a variable that was read cannot be one of a job; None if it can."""
    job = JobSpec(command=("x",), variables={"X": spec})
    return next((problem.reason for problem in variables(job)), None)


def read_from_environment(source: str) -> Taken:
    """The variables that a script in any language reads by our names: `JOBBUS_VAR_NAME`."""
    names = dict.fromkeys(found[1] for found in _READ.finditer(source))
    return Taken(tuple(Variable(name, VariableSpec()) for name in names))
