"""Former names that cannot be a job's: one of that name is there, or two claim it. Pure."""

from collections.abc import Iterable, Iterator, Mapping

from bus.commands import Definition
from bus.job_definition import JobSpec
from bus.wording import quoted
from handlers.catalog.chain_checks import JOB_ID
from handlers.catalog.problem import Problem


def names(spec: JobSpec) -> Iterator[Problem]:
    """What is wrong with `formerly` by itself."""
    for index, name in enumerate(spec.formerly):
        if not JOB_ID.fullmatch(name):
            reason = f'formerly must list job ids such as "App/Job", not {quoted(name)}'
            yield Problem(("formerly", index), reason)


def clashes(definitions: Mapping[str, Definition]) -> Iterable[tuple[Definition, int, str]]:
    """Definitions whose `formerly` is wrong beside the others, with the index and the reason."""
    heirs: dict[str, str] = {}
    for definition in definitions.values():
        for index, name in enumerate(definition.spec.formerly if definition.spec else ()):
            reason = _reason(definition.job_id, name, definitions, heirs)
            if reason:
                yield definition, index, reason
                break
            heirs[name] = definition.job_id


def _reason(
    job_id: str, name: str, definitions: Mapping[str, Definition], heirs: Mapping[str, str]
) -> str:
    if name == job_id:
        return f"formerly names the job itself, {quoted(name)}"
    if name in definitions:
        return (
            f"formerly names {quoted(name)}, which is there as well: remove its folder, or the name"
        )
    if name in heirs:
        return f"formerly names {quoted(name)}, which {heirs[name]} does already"
    return ""
