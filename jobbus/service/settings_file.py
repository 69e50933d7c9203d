"""Which `jobbus.toml` is meant, if nothing names one. Blocking IO."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec
import structlog

from bus.errors import ConfigError
from bus.scarcity import reason_of
from jobbus.service.settings import DATA_DEFAULT, Settings
from jobbus.service.settings_reading import load_settings, named_data

NAME = "jobbus.toml"
VARIABLE = "JOBBUS_CONFIG"
SYSTEM_FOLDER = Path("/etc/jobbus")

log = structlog.get_logger("jobbus")


class ConfigFile(msgspec.Struct, frozen=True, kw_only=True):
    """`path` is the file to be read, None without one; `passed_over` are others that are there."""

    path: Path | None = None
    passed_over: tuple[Path, ...] = ()


def find_config(
    given: Path | None, data: Path | None, environ: Mapping[str, str], *, system: Path | None = None
) -> ConfigFile:
    """The file that `--config` or JOBBUS_CONFIG names; else the first there is of the working
    directory, the folder that the data directory lies in, and /etc/jobbus.

    `data` is the data directory that flags or environment name; `system` stands in for /etc/jobbus.

    Raises:
        ConfigError: it cannot be seen whether one is there, or others could have put it there.
    """
    named = given or (Path(environ[VARIABLE]) if environ.get(VARIABLE) else None)
    here = _working_directory()
    if named is not None:
        return ConfigFile(path=_absolute(here, named))
    beside = _absolute(here, data or DATA_DEFAULT).parent
    system = system or SYSTEM_FOLDER
    there: list[Path] = []
    for folder in dict.fromkeys((*((here,) if here else ()), beside, system)):
        path = folder / NAME
        if _is_there(path, matters=not there):
            if not there and folder != system:
                _check_writers(path)
            there.append(path)
    return ConfigFile(path=there[0], passed_over=tuple(there[1:])) if there else ConfigFile()


def _working_directory() -> Path | None:
    """None if it was removed, which is no obstacle for whole paths."""
    try:
        return Path.cwd()
    except OSError:
        return None


def _absolute(here: Path | None, path: Path) -> Path:
    if path.is_absolute():
        return path
    if here is None:
        raise ConfigError(
            f"{path} counts from the working directory, which was removed; go to another one, or "
            "write the whole path"
        )
    return here / path


def _is_there(path: Path, *, matters: bool) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        if not matters:
            return False
        # It may say who may do what: a service must not start as if it said nothing.
        raise ConfigError(
            f"{path} cannot be looked at: {reason_of(error)}; give this account access, or name "
            f"another file with --config or {VARIABLE}"
        ) from error
    return True


def _check_writers(path: Path) -> None:
    """Raises if others could have put the file there. It says who may do what, and the working
    directory, unlike a name or /etc, may be a folder in which anybody can write."""
    link, file = path.lstat(), path.stat()
    trusted = (os.geteuid(), 0)
    owner = next((each.st_uid for each in (link, file) if each.st_uid not in trusted), None)
    if owner is not None:
        fault = f"belongs to another account (uid {owner})"
    elif file.st_mode & stat.S_IWOTH:
        fault = f"may be written by everybody (mode {stat.S_IMODE(file.st_mode):o})"
    else:
        return
    raise ConfigError(
        f"{path} {fault} and would count without being named; if it is meant, name it with "
        f"--config or {VARIABLE}, else move it away or start in another folder"
    )


class SettingsSource:
    """Where the settings of this process come from. `file` is what the last `read` went by."""

    def __init__(
        self, config: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]
    ) -> None:
        self._config = config
        self._environ = dict(environ)
        self._flags = dict(flags)
        self.file: ConfigFile | None = None

    def read(self) -> Settings:
        """The settings as they are now; a file is looked for again.

        Raises:
            ConfigError: see `load_settings`.
        """
        data = self._flags.get("serve.data") or named_data(self._environ)
        found = find_config(
            self._config, Path(str(data)) if data is not None else None, self._environ
        )
        settings = load_settings(found.path, self._environ, self._flags)
        before, self.file = self.file, found
        if before is not None and before != found:
            self.say()
        return settings

    def say(self) -> None:
        """The log says which file counts."""
        file = self.file or ConfigFile()
        if file.path is None:
            log.info("no jobbus.toml was found; settings are defaults, environment and flags")
            return
        others = [str(path) for path in file.passed_over]
        log.info("settings are from %s", file.path, **({"passed_over": others} if others else {}))
