"""Who may do what with a job: one pure function that every way in asks. No IO, no clock."""

from collections.abc import Collection, Iterable
from enum import StrEnum

import msgspec

from bus.job_definition import RolesSpec
from bus.model import Principal
from bus.wording import did_you_mean, quoted

ADMIN = "admin"
METRICS = "metrics"
"""May read `/metrics`, and nothing else by that."""


class Action(StrEnum):
    """What the `[roles]` of a job allow."""

    VIEW = "view"
    START = "start"
    STOP = "stop"
    RESTART = "restart"
    OUTPUT = "output"


class RoleDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """Which roles may what where a job says nothing; `[roles]` of jobbus.toml."""

    view: tuple[str, ...] = ("viewer", "operator")
    start: tuple[str, ...] = ("operator",)
    stop: tuple[str, ...] = ("operator",)
    restart: tuple[str, ...] = ("operator",)
    output: tuple[str, ...] = ("operator",)


OWNERS_RIGHTS = frozenset({Action.VIEW, Action.OUTPUT, Action.STOP})
"""What the user who started an execution may do with it, whatever the job's lists say."""


def may(
    principal: Principal,
    action: Action,
    roles: RolesSpec | None,
    defaults: RoleDefaults,
    *,
    owner: str | None = None,
) -> bool:
    """Whether `principal` may do `action` with a job whose lists are `roles`.

    `owner` is the user of the execution in question, if the question is about one. `roles` of None
    stands for a job that has never had lists of its own: the configured defaults hold.
    Without the right to view there is no other: for that user the job does not exist.
    """
    if ADMIN in principal.roles or principal.via == "system":
        return True
    owns = owner is not None and owner == principal.user_id
    if owns and action in OWNERS_RIGHTS:
        return True
    sees = owns or _has_one_of(principal, needed(Action.VIEW, roles, defaults))
    return sees and _has_one_of(principal, needed(action, roles, defaults))


def needed(action: Action, roles: RolesSpec | None, defaults: RoleDefaults) -> tuple[str, ...]:
    """The roles of which one is needed for `action`; `admin` may all and is not among them."""
    listed: tuple[str, ...] | None = getattr(roles, action.value) if roles is not None else None
    if listed is not None:
        return listed
    default: tuple[str, ...] = getattr(defaults, action.value)
    return default


def notes_on_roles(roles: Iterable[str], known: Collection[str]) -> tuple[str, ...]:
    """A sentence for each role that gives no right: it may be meant for later, or misspelled."""
    return tuple(
        f"no job and no default gives the role {quoted(role)} a right{did_you_mean(role, known)}"
        for role in roles
        if role not in known
    )


def role_words(defaults: RoleDefaults, lists: Iterable[RolesSpec | None]) -> set[str]:
    """Every role that gives a right, by the defaults or by the list of a job."""
    words: set[str] = set()
    for roles in (defaults, *lists):
        for action in Action if roles is not None else ():
            words.update(getattr(roles, action.value) or ())
    return words


def _has_one_of(principal: Principal, roles: tuple[str, ...]) -> bool:
    return not set(roles).isdisjoint(principal.roles)
