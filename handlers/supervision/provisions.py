"""What a program call takes from outside of its definition: the values of secrets, the variables
in its `env_file`, its account.

Read at each start and not kept; what is missing fails the start with a sentence.
"""

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec

from bus.job_definition import JobSpec
from bus.layout import DataLayout
from bus.model import Execution, SecretRef
from handlers.catalog.accounts import Account, NoAccount, account_of, name_of
from handlers.catalog.env_lines import SIZE_MAX, LineFault, parse_env
from handlers.supervision.path_owners import first_foreign_owner
from handlers.supervision.secrets import SecretUnavailable, SecretValues, references_in

_OTHERS_PASS = 0o001


class Provisions(msgspec.Struct, frozen=True, kw_only=True):
    """`secrets` are values by variable, `env_file` those of that file; `account` is the program's,
    None for the service's own."""

    secrets: Mapping[str, str] = MappingProxyType({})
    env_file: Mapping[str, str] = MappingProxyType({})
    account: Account | None = None


NO_PROVISIONS = Provisions()


class NotProvided(Exception):
    """Something cannot be had; the text says what and why, and never what a secret is."""


def are_needed(execution: Execution, spec: JobSpec) -> bool:
    """Whether anything has to be read before the program can be called."""
    has_secrets = any(isinstance(value, SecretRef) for value in execution.variables.values())
    return has_secrets or spec.names_account or spec.env_file is not None


def provisions_of(
    execution: Execution, spec: JobSpec, *, secrets: SecretValues, layout: DataLayout
) -> Provisions:
    """All that this start takes. Blocking.

    Raises:
        NotProvided: something cannot be had.
    """
    try:
        values = secrets.read(execution.job_id, references_in(execution.variables))
        account = account_of(spec)
        env_file = _read_env(spec)
    except (SecretUnavailable, NoAccount) as fault:
        raise NotProvided(str(fault)) from fault
    if account is not None and not account.is_own:
        let_pass(layout)
    return Provisions(secrets=values, env_file=env_file, account=account)


def _read_env(spec: JobSpec) -> dict[str, str]:
    """The variables of the definition's `env_file`."""
    if spec.env_file is None:
        return {}
    path = Path(spec.directory, spec.env_file.removeprefix("?"))
    try:
        data = _content(path, spec.directory)
    except FileNotFoundError:
        if spec.env_file.startswith("?"):
            return {}
        raise NotProvided(f'env_file: there is no file {path}; "?" before it allows that') from None
    except OSError as error:
        raise NotProvided(f"env_file: {path} cannot be read: {error.strerror}") from error
    if len(data) > SIZE_MAX:
        raise NotProvided(f"env_file: {path} is larger than {SIZE_MAX // 1024} KiB")
    try:
        return parse_env(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise NotProvided(f"env_file: {path} holds no UTF-8 text") from None
    except LineFault as fault:
        raise NotProvided(f"env_file: {path}: {fault}") from fault


def _content(path: Path, directory: str) -> bytes:
    """The bytes of a regular file, one more than allowed at most; a pipe never holds us up.

    We may read more than those who can put links there: what they lead to must be theirs. Who owns
    the job's folder could write another definition, and is believed.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        trusted = {0, os.geteuid(), Path(directory).stat().st_uid}
        owner = first_foreign_owner(path, trusted)
        if owner is not None and owner != found.st_uid:
            raise NotProvided(
                f"env_file: {path} leads through a folder or link of {name_of(owner)} to a file of "
                f"{name_of(found.st_uid)}; give the file to {name_of(owner)}, or keep it where "
                f"only {name_of(os.geteuid())} can put files"
            )
        return file.read(SIZE_MAX + 1)


def let_pass(layout: DataLayout) -> None:
    """Programs of other accounts can reach their own files and their socket below the data
    directory, by name: they can list nothing, and read nothing that is not theirs."""
    for folder in (layout.root, layout.output, layout.sockets):
        mode = folder.stat().st_mode
        if not mode & _OTHERS_PASS:
            folder.chmod(mode & 0o7777 | _OTHERS_PASS)
