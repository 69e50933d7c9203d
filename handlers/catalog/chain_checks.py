"""Whether chains make sense: each `[[after]]` by itself, and all of them together. Pure."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from bus.commands import Definition
from bus.job_definition import DefinitionFault, JobSpec, VariableType
from bus.wording import did_you_mean, quoted
from handlers.catalog.handed_on import RESULT, is_whole, references_in
from handlers.catalog.policy_checks import final_states
from handlers.catalog.problem import Problem, shown
from handlers.catalog.toml_lines import Path

FOLLOWERS_MAX = 20
"""`[[after]]` in one definition: an end starts so many jobs at most."""

_ID_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
JOB_ID = re.compile(f"{_ID_PART}/{_ID_PART}")


def followers(spec: JobSpec) -> Iterator[Problem]:
    """What is wrong with `[[after]]`; whether the other jobs exist is not known here."""
    if len(spec.after) > FOLLOWERS_MAX:
        yield Problem(("after", FOLLOWERS_MAX), f"at most {FOLLOWERS_MAX} [[after]] may stand here")
    for index, after in enumerate(spec.after):
        path: Path = ("after", index)
        if not after.on:
            yield Problem((*path, "on"), 'on is empty; name final states, e.g. ["Succeeded"]')
        yield from final_states((*path, "on"), after.on)
        if not JOB_ID.fullmatch(after.start):
            reason = f'start must be a job id such as "App/Job", not {quoted(after.start)}'
            yield Problem((*path, "start"), reason)
        for name, value in after.variables.items():
            if isinstance(value, str):
                yield from _references(spec, (*path, "variables", name), value)


def _references(spec: JobSpec, path: Path, text: str) -> Iterator[Problem]:
    for name in references_in(text):
        if name.startswith(f"{RESULT}."):
            continue
        if name not in spec.variables:
            hint = did_you_mean(name, spec.variables)
            reason = f"{shown(path)} refers to {{{{{name}}}}}, which this job does not declare"
            yield Problem(path, f"{reason}{hint or '; its result is {{result.KEY}}'}")
        elif spec.variables[name].type is VariableType.SECRET and not is_whole(text):
            yield Problem(
                path,
                f"{{{{{name}}}}} is a secret and is handed on by its name only: it must stand "
                "alone, and the other job's variable be of type secret",
            )


class Cycle(NamedTuple):
    """Which `[[after]]` of a job leads into a cycle, and the way back to the job."""

    place: int
    way: tuple[str, ...]


def cycles(specs: Mapping[str, JobSpec]) -> dict[str, Cycle]:
    """The jobs that a chain leads back to, whatever states it hangs on."""
    heirs = {name: job_id for job_id, spec in specs.items() for name in spec.formerly}

    def targets(spec: JobSpec) -> list[str]:
        """What it starts, under the names that these jobs have now."""
        starts = (after.start for after in spec.after)
        return [each if each in specs else heirs.get(each, each) for each in starts]

    onward = {
        job_id: tuple(each for each in targets(spec) if each in specs)
        for job_id, spec in specs.items()
        if spec.after
    }
    found: dict[str, Cycle] = {}
    for job_id in onward:
        way = _way_back(job_id, onward)
        if way is not None:
            place = targets(specs[job_id]).index(way[1])
            found[job_id] = Cycle(place, way)
    return found


def without_cycles(
    definitions: Iterable[Definition], fault_at: Callable[[Definition, Path, str], DefinitionFault]
) -> Iterator[Definition]:
    """The definitions; each whose chain leads back to it has a fault instead of a spec."""
    all_ = tuple(definitions)
    found = cycles({each.job_id: each.spec for each in all_ if each.spec is not None})
    for each in all_:
        cycle = found.get(each.job_id)
        if cycle is None:
            yield each
            continue
        reason = f"after leads in a circle: {' → '.join(cycle.way)}; take one of these out"
        fault = fault_at(each, ("after", cycle.place, "start"), reason)
        yield replace(each, spec=None, fault=fault)


def _way_back(job_id: str, onward: Mapping[str, tuple[str, ...]]) -> tuple[str, ...] | None:
    """The shortest way from the job to itself."""
    before: dict[str, str] = {}
    front = [job_id]
    while front:
        reached: list[str] = []
        for here in front:
            for there in onward.get(here, ()):
                if there == job_id:
                    return (*_way_to(here, job_id, before), job_id)
                if there not in before:
                    before[there] = here
                    reached.append(there)
        front = reached
    return None


def _way_to(here: str, start: str, before: Mapping[str, str]) -> tuple[str, ...]:
    way = [here]
    while way[-1] != start:
        way.append(before[way[-1]])
    return tuple(reversed(way))
