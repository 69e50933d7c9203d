"""Whether what a definition says about slots across jobs makes sense: groups, priority, start
limit. Pure."""

from collections.abc import Collection, Iterator

from bus.groups import GROUPS_OF_A_JOB_MAX, PRIORITY_MAX, STARTS_MAX
from bus.job_definition import JobSpec
from bus.wording import did_you_mean, quoted
from handlers.catalog.problem import SECONDS_MAX, Problem, within


def slots(spec: JobSpec) -> Iterator[Problem]:
    """What is wrong whatever the groups are that the settings name."""
    yield from within(("priority",), spec.priority, -PRIORITY_MAX, PRIORITY_MAX)
    if spec.start_limit is not None:
        yield from within(("start_limit", "count"), spec.start_limit.count, 1, STARTS_MAX)
        yield from within(("start_limit", "within_s"), spec.start_limit.within_s, 1, SECONDS_MAX)
    if len(spec.groups) > GROUPS_OF_A_JOB_MAX:
        yield Problem(("groups",), f"a job can be in {GROUPS_OF_A_JOB_MAX} groups at most")
    for index, name in enumerate(spec.groups):
        if name in spec.groups[:index]:
            yield Problem(("groups", index), f"groups names {quoted(name)} twice")


def unknown_groups(spec: JobSpec, known: Collection[str] | None) -> Iterator[Problem]:
    """Groups that the settings do not name; with `known` of None these were not read."""
    for index, name in enumerate(spec.groups if known is not None else ()):
        if known is not None and name not in known:
            hint = did_you_mean(name, sorted(known)) or "; jobbus.toml names none"
            yield Problem(
                ("groups", index),
                f"there is no group {quoted(name)}{hint}: a group is [group.NAME] of jobbus.toml",
            )
