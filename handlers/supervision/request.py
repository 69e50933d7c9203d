"""From an execution and its definition to what a shim is to do; reads nothing but the account."""

import math
import os
import pwd
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from bus.job_definition import JobSpec
from bus.layout import DataLayout, ExecutionLayout
from bus.model import Execution, Value
from handlers.catalog.accounts import Account
from handlers.catalog.probe_targets import NoTarget, health_target, ready_target
from handlers.catalog.program_call import build_launch
from handlers.catalog.templates import render, spell
from handlers.shim.assignment import PROBED_READINESS, Assignment, ShimAccount
from handlers.supervision.provisions import Provisions

ACCOUNT_NAMES = ("HOME", "USER", "LOGNAME", "SHELL")
"""What a login sets; a service started by systemd or cron may lack them."""


class SupervisorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How often shims and service look by themselves, and whether control groups are used.

    Looks are for what no hint announced. Of a shim's: a wake-up that stayed out for seconds because
    the program floods the shim's socket, or an order by a service that died before it gave the
    wake-up and was not started again. Of the service's: a file system that has no sockets.
    """

    look_s: float = 10.0
    shim_look_s: float = 30.0
    cgroups: bool = True


class ProgramDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """What programs get where their definitions say nothing: not what the service itself has.

    The umask of a service's unit guards its data directory, and its limit on open files is for its
    connections; a program that uses `select` breaks above 1024.
    """

    umask: int = 0o022
    open_files: int = 1024


class Requests:
    """Makes the assignments of one service. A shim that begins looks by itself at least every
    `look_s_max` seconds: often, where nothing else would make it look."""

    def __init__(
        self,
        layout: DataLayout,
        instance: str,
        settings: SupervisorSettings,
        base_env: Mapping[str, str],
        look_s_max: Callable[[], float] = lambda: math.inf,
    ) -> None:
        self._look_s_max = look_s_max
        self._layout = layout
        self._instance = instance
        self._settings = settings
        self._base_env = base_env
        self._programs = ProgramDefaults()

    def go_by(self, programs: ProgramDefaults) -> None:
        """From now on these are the defaults."""
        self._programs = programs

    def assignment(
        self, execution: Execution, spec: JobSpec, generation: int, provisions: Provisions
    ) -> Assignment:
        """The assignment under the claim of that generation.

        Raises:
            ValueError: the definition asks for something that cannot be had; the text says what.
        """
        place = self._layout.execution(execution.id)
        secrets, account = provisions.secrets, provisions.account
        own = program_place(self._layout, execution.id, spec)
        of_account = {} if account is None else account.environment
        launch = build_launch(
            execution,
            spec,
            base_env={**self._base_env, **of_account},
            notify_socket=str(self._layout.sockets / execution.id),
            progress_file=str(own.progress),
            result_file=str(own.result),
            artifacts_folder=str(own.artifacts),
            instance=self._instance,
            secrets=secrets,
            env_file=provisions.env_file,
        )
        stdin, _, stdin_name = spec.stdin.partition(":")
        stdin_value = {**execution.variables, **secrets}.get(stdin_name)
        return Assignment(
            execution_id=execution.id,
            folder=str(place.root),
            argv=list(launch.argv),
            cwd=launch.cwd,
            env=launch.env,
            sockets=str(self._layout.sockets),
            generation=generation,
            max_bytes=spec.output.max_bytes,
            ready=shim_readiness(spec, execution.variables),
            timeout_s=spec.timeout_s,
            start_timeout_s=spec.start_timeout_s,
            watchdog_s=spec.watchdog_s,
            stop_signal=signal_number(spec.stop_signal),
            stop_to=spec.stop_to.value,
            stop_grace_s=spec.stop_grace_s,
            leftover=spec.leftover.value,
            look_s=min(self._settings.shim_look_s, self._look_s_max()),
            cgroup="" if self._settings.cgroups else None,
            nice=spec.niceness,
            cpu_s=spec.limits.cpu_s,
            memory_bytes=spec.memory_limit,
            cpu_weight=spec.limits.cpu_weight,
            pids=spec.limits.pids,
            oom_score_adj=spec.oom_adjustment,
            umask=int(spec.umask, 8) if spec.umask is not None else self._programs.umask,
            open_files=spec.limits.open_files,
            open_files_default=self._programs.open_files,
            masks=list(secrets.values()) or None,
            instance=self._instance,
            job_id=execution.job_id,
            health=_health_command(spec, execution.variables),
            health_timeout_s=spec.health.timeout_s if spec.health is not None else 0.0,
            artifact_files_max=spec.artifacts.max_files,
            artifact_bytes_max=spec.artifacts.max_bytes,
            account=_shim_account(account),
            stdin_file=str(Path(spec.directory, stdin_name)) if stdin == "file" else None,
            stdin_text=spell(stdin_value) if stdin == "variable" else None,
        )


def _health_command(spec: JobSpec, values: Mapping[str, Value]) -> list[str] | None:
    """The command beside the program that says if it is well.

    Raises:
        ValueError: with these values of the variables there is nothing to be asked.
    """
    if spec.health is None:
        return None
    try:
        health_target(spec.health, values)
    except NoTarget as wrong:
        raise ValueError(f"health.url {wrong}") from None
    return [render(element, values) for element in spec.health.command] or None


def program_place(layout: DataLayout, execution_id: str, spec: JobSpec | None) -> ExecutionLayout:
    """Where the files are that the program of an execution writes."""
    place = layout.execution(execution_id)
    return place.own if spec is not None and spec.names_account else place


def _shim_account(account: Account | None) -> ShimAccount | None:
    if account is None:
        return None
    return ShimAccount(account.name, account.uid, account.gid, list(account.groups))


def signal_number(name: str) -> int:
    """The number of `TERM`, `SIGTERM` or `15`.

    Raises:
        ValueError: there is no such signal.
    """
    if name.isdecimal() and int(name) in set(signal.Signals):
        return int(name)
    word = name.upper()
    word = word if word.startswith("SIG") else "SIG" + word
    try:
        return signal.Signals[word].value
    except KeyError:
        raise ValueError(f"there is no signal {name!r}; e.g. TERM, INT, HUP") from None


def shim_readiness(spec: JobSpec, values: Mapping[str, Value]) -> str:
    """`ready` as the shim knows it.

    Raises:
        ValueError: with these values of the variables it makes no sense.
    """
    try:
        target = ready_target(spec, values)
    except NoTarget as wrong:
        raise ValueError(f"ready {wrong}") from None
    return spec.ready if target is None else PROBED_READINESS


def base_environment(
    environ: Mapping[str, str], *, prefix: str = sys.prefix, base_prefix: str = sys.base_prefix
) -> dict[str, str]:
    """The environment with the names of the account, and without the service's own virtual
    environment in `PATH`: `python3` in a job is that of the machine, whatever jobbus runs in."""
    base = {**_of_account(), **{name: text for name, text in environ.items() if text}}
    if "PATH" in base and prefix != base_prefix:
        own = Path(prefix).resolve()
        kept = [place for place in base["PATH"].split(":") if not _is_below(place, own)]
        base["PATH"] = ":".join(kept)
        if not kept:
            del base["PATH"]
    return base


def _is_below(place: str, folder: Path) -> bool:
    # Not the link itself: `bin` of a virtual environment may be reached by another name.
    return bool(place) and Path(place).resolve().is_relative_to(folder)


def _of_account() -> dict[str, str]:
    try:
        account = pwd.getpwuid(os.geteuid())
    except KeyError:  # a number without an account, as in a container
        return {"HOME": "/"}
    home, shell = account.pw_dir or "/", account.pw_shell or "/bin/sh"
    return dict(zip(ACCOUNT_NAMES, (home, account.pw_name, account.pw_name, shell), strict=True))
