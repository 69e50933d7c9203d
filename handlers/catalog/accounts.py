"""Accounts of this machine, by name or number, and whether programs may be given to them. Blocking.

What a definition asks for is looked up twice: when it is read, so that a slip is shown at the job,
and at each start, since accounts come and go.
"""

import grp
import os
import pwd
from collections.abc import Iterator

import msgspec

from bus.job_definition import JobSpec
from bus.wording import did_you_mean, quoted
from handlers.catalog.problem import Problem
from handlers.shim.kernel import CAP_CHOWN, CAP_KILL, CAP_SETGID, CAP_SETUID, capabilities

_NEEDED = (CAP_SETUID, CAP_SETGID, CAP_CHOWN, CAP_KILL)
SHELL = "/bin/sh"


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Who a program runs as, with what a login would set. `is_own`: the service has it already."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str = "/"
    shell: str = SHELL
    is_own: bool = False

    @property
    def environment(self) -> dict[str, str]:
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name, "SHELL": self.shell}


class NoAccount(Exception):
    """There is none of that name, or programs cannot be given to it. `key` is `user` or `group`."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(reason)
        self.key = key


def account_of(spec: JobSpec) -> Account | None:
    """The account that the definition names; None if it names none.

    Raises:
        NoAccount: it is not to be had, and why.
    """
    if not spec.names_account:
        return None
    wanted = _with_group(_user(spec.user), spec.group)
    is_own = (wanted.uid, wanted.gid) == (os.geteuid(), os.getegid())
    if not is_own and not may_change():
        key = "user" if spec.user is not None else "group"
        raise NoAccount(
            key,
            f"{key} = {_shown(getattr(spec, key))}: only a service that runs as root can start "
            f"programs as another account; this one runs as {name_of(os.geteuid())}",
        )
    return msgspec.structs.replace(wanted, is_own=is_own)


def account_problems(spec: JobSpec) -> Iterator[Problem]:
    """What keeps programs of the definition from being given to its account, on this machine."""
    try:
        account_of(spec)
    except NoAccount as fault:
        yield Problem((fault.key,), str(fault))


def may_change() -> bool:
    """Whether programs can be given to other accounts, and be looked after there."""
    return os.geteuid() == 0 and capabilities().issuperset(_NEEDED)


def _user(user: str | int | None) -> Account:
    number = os.geteuid() if user is None else _number(user)
    try:
        found = pwd.getpwuid(number) if number is not None else pwd.getpwnam(str(user))
    except (KeyError, ValueError):
        if number is None:
            near = did_you_mean(str(user), (each.pw_name for each in pwd.getpwall()))
            raise NoAccount("user", f"there is no account {quoted(str(user))}{near}") from None
        if user is None:
            return Account(name=str(number), uid=number, gid=os.getegid(), groups=())
        return Account(name=str(number), uid=number, gid=-1, groups=())
    groups = tuple(os.getgrouplist(found.pw_name, found.pw_gid))
    return Account(
        name=found.pw_name,
        uid=found.pw_uid,
        gid=found.pw_gid,
        groups=groups,
        home=found.pw_dir or "/",
        shell=found.pw_shell or SHELL,
    )


def _with_group(account: Account, group: str | int | None) -> Account:
    if group is None:
        if account.gid < 0:
            raise NoAccount(
                "user", f"the account {account.uid} has no entry, so it takes a group beside it"
            )
        return account
    number = _number(group)
    if number is None:
        try:
            number = grp.getgrnam(str(group)).gr_gid
        except (KeyError, ValueError):
            near = did_you_mean(str(group), (each.gr_name for each in grp.getgrall()))
            raise NoAccount("group", f"there is no group {quoted(str(group))}{near}") from None
    # As initgroups(3) does it: the group of the entry counts only if it is named there.
    others = tuple(each for each in account.groups if each not in (number, account.gid))
    return msgspec.structs.replace(account, gid=number, groups=(number, *others))


def _number(name: str | int) -> int | None:
    """The number that `name` is; None if it is a name."""
    if isinstance(name, str) and not (name.isascii() and name.isdigit() and len(name) < 11):
        return None
    return int(name)


def _shown(name: str | int) -> str:
    return quoted(name) if isinstance(name, str) else str(name)


def name_of(uid: int) -> str:
    """The account as people know it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the account {uid}"
