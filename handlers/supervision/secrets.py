"""The values of secrets, read from where `[secrets]` says at each spawn, and not kept."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from bus.model import SecretRef, Value
from bus.secret_sources import SecretSource

VALUE_BYTES_MAX = 65_536
"""Less than what Linux takes as one environment variable (128 KiB)."""

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class SecretUnavailable(Exception):
    """The value of a secret cannot be had; the text says why and never what it is."""


class SecretValues:
    """Looks values up by name. `environ` is the service's own environment."""

    def __init__(
        self, sources: Mapping[str, SecretSource], environ: Mapping[str, str] | None = None
    ) -> None:
        self._sources = sources
        self._environ = os.environ if environ is None else environ

    def go_by(self, sources: Mapping[str, SecretSource]) -> None:
        """Values are looked up there from now on."""
        self._sources = sources

    def read(self, job_id: str, references: Mapping[str, SecretRef]) -> dict[str, str]:
        """The value of each variable of the job that refers to a secret. Blocking.

        Raises:
            SecretUnavailable: one of them cannot be had, or is not for this job (any more).
        """
        for reference in references.values():
            source = self._sources.get(reference.secret)
            if source is not None and not source.is_for(job_id):
                raise SecretUnavailable(f"the secret {reference.secret} is not for {job_id}")
        return {variable: self.value(each.secret) for variable, each in references.items()}

    def value(self, name: str) -> str:
        """The value of one secret, without its last newline. Blocking; raises as `read` does."""
        source = self._sources.get(name)
        if source is None:
            raise SecretUnavailable(
                "a variable names a secret that does not stand in [secrets] of jobbus.toml"
            )
        if source.file is not None:
            text = _from_file(name, source.file)
        else:
            assert source.env is not None, name
            found = self._environ.get(source.env)
            if found is None:
                raise SecretUnavailable(
                    f"the secret {name} comes from the variable {source.env}, which the service's "
                    "environment does not have"
                )
            text = found
        return _checked(name, text)

    def complaints(self) -> list[str]:
        """What would keep jobs from starting if they asked now. Blocking."""
        found = []
        for name in self._sources:
            try:
                self.value(name)
            except SecretUnavailable as error:
                found.append(str(error))
        return found


def references_in(variables: Mapping[str, Value]) -> dict[str, SecretRef]:
    """The variables that hold references, by name."""
    return {name: value for name, value in variables.items() if isinstance(value, SecretRef)}


def _from_file(name: str, path: Path) -> str:
    try:
        # A FIFO must not hold us up; its kind is read from the descriptor, so it cannot be swapped.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise SecretUnavailable(f"the secret {name}: {path}: {error.strerror}") from error
    try:
        _check_file(name, path, os.fstat(descriptor))
        data = os.read(descriptor, VALUE_BYTES_MAX + 1)
    except OSError as error:
        raise SecretUnavailable(f"the secret {name}: {path}: {error.strerror}") from error
    finally:
        os.close(descriptor)
    try:
        return data.decode()
    except UnicodeDecodeError:
        # Its text would repeat the bytes.
        raise SecretUnavailable(f"the secret {name}: {path} holds no UTF-8 text") from None


def _check_file(name: str, path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise SecretUnavailable(f"the secret {name}: {path} is no regular file")
    if found.st_uid not in (0, os.geteuid()):
        raise SecretUnavailable(
            f"the secret {name}: {path} belongs to another account (uid {found.st_uid}); "
            f"chown it to uid {os.geteuid()}"
        )
    if found.st_mode & _OTHERS:
        mode = stat.S_IMODE(found.st_mode)
        raise SecretUnavailable(
            f"the secret {name}: {path} can be read or written by others (mode {mode:04o}); "
            f"run: chmod 600 {path}"
        )


def _checked(name: str, text: str) -> str:
    value = text.removesuffix("\n").removesuffix("\r")
    if not value:
        raise SecretUnavailable(f"the secret {name} is empty")
    if len(value.encode("utf-8", "surrogateescape")) > VALUE_BYTES_MAX:
        raise SecretUnavailable(f"the secret {name} is longer than {VALUE_BYTES_MAX} bytes")
    if "\0" in value:
        raise SecretUnavailable(f"the secret {name} holds a NUL, which no environment can")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise SecretUnavailable(f"the secret {name} holds no UTF-8 text")
    return value
