"""Ecosystem files of pm2: JSON, and ecosystem.config.js as far as it holds plain values. Pure.

Each app becomes a job that is kept up as pm2 keeps it up; each further instance one more job.
"""

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from handlers.catalog.program_call import RESERVED_NAMES, RESERVED_PREFIX
from jobbus.importing.imported import Import, ImportedJob, JobNames, Notes, Source, Table, lines_of
from jobbus.importing.loose_json import Array, Entry, Object, Unreadable, plain, read_json

APP = "Pm2"
INSTANCES_MAX = 100

RESTARTS = 16
MIN_UPTIME_MS = 1000.0
KILL_TIMEOUT_MS = 1600.0
"""What pm2 does where a file says nothing."""

_INTERPRETERS = {
    ".js": "node", ".cjs": "node", ".mjs": "node", ".py": "python3", ".sh": "bash", ".rb": "ruby",
    ".php": "php", ".pl": "perl", ".ps1": "pwsh",
}  # fmt: skip
_SIZE = re.compile(r"(\d{1,15})\s*([KMG]?)B?", re.IGNORECASE)
_SIZES = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}
_TIME = re.compile(r"(\d{1,15}(?:\.\d+)?)\s*(ms|s|m|h)?", re.IGNORECASE)
_TIMES_MS = {"": 1, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_SPELLINGS = {
    "exec_interpreter": "interpreter", "node_args": "interpreter_args", "exec": "script",
    "interpreterArgs": "interpreter_args", "out_file": "log_file", "error_file": "log_file",
    "output": "log_file", "out": "log_file", "error": "log_file", "err": "log_file",
    "err_file": "log_file", "log": "log_file", "logs": "log_file",
    "cron": "cron_restart", "combine_logs": "merge_logs", "execMode": "exec_mode",
    "maxMemoryRestart": "max_memory_restart", "maxRestarts": "max_restarts",
    "killTimeout": "kill_timeout", "cronRestart": "cron_restart", "user": "uid",
}  # fmt: skip
_PM2S_OWN = frozenset(
    ("merge_logs", "pid_file", "pid", "vizion", "pmx", "automation", "force", "log_type",
     "source_map_support", "disable_source_map_support", "trace", "disable_trace", "windowsHide",
     "increment_var", "vizion_running", "filter_env", "time", "log_date_format", "listen_timeout")
)  # fmt: skip
"""Keys that steer pm2, its log files or its own page."""


def import_pm2(source: Source, names: JobNames, *, app: str = "") -> Import:
    """The jobs and notes of one ecosystem file; its folders count from where the file lies."""
    notes = Notes(source)
    if PurePosixPath(source.file).suffix.lower() in (".yml", ".yaml"):
        notes.left_out(0, "YAML is not read; write the same as JSON, which pm2 takes as well")
        return Import(notes=notes.all())
    try:
        document = read_json(source.text)
    except Unreadable as fault:
        notes.left_out(fault.line, f"nothing of the file is imported: {fault.reason}")
        return Import(notes=notes.all())
    jobs: list[ImportedJob] = []
    for entry in _apps_of(document, notes):
        if isinstance(entry.value, dict):
            jobs += _App(source, entry, notes).jobs(entry.value, names, app)
        else:
            _note_all(notes, entry, "this is no app: an object with a script")
    return Import(jobs=tuple(jobs), notes=notes.all())


def _apps_of(document: Entry, notes: Notes) -> Array:
    """The apps of a file, which may be a list, one app, or an object with `apps`."""
    match document.value:
        case list() as entries:
            return entries
        case dict() as table if "apps" in table:
            for key, entry in table.items():
                if key != "apps":
                    _note_all(notes, entry, f"{key} has no equal here")
            apps = table["apps"]
            if not apps.value:
                _note_all(notes, apps, "no apps stand here")
            return apps.value if isinstance(apps.value, list) else [apps]
        case dict():
            return [document]
        case _:
            _note_all(notes, document, "the file holds no apps")
            return []


def _note_all(notes: Notes, entry: Entry, reason: str) -> None:
    for line in range(entry.first, entry.last + 1):
        notes.left_out(line, reason)


@dataclass
class _App:
    """What the keys of one app said, each taken or noted by `_take`."""

    source: Source
    place: Entry
    notes: Notes
    script: str = ""
    name: str = ""
    namespace: str = ""
    arguments: list[str] = field(default_factory=list)
    interpreter: str | None = None
    interpreter_arguments: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    instances: int = 1
    instance_var: str = "NODE_APP_INSTANCE"
    autorestart: bool = True
    autostart: bool = True
    success_codes: list[int] = field(default_factory=list)
    max_restarts: int = RESTARTS
    min_uptime_ms: float = MIN_UPTIME_MS
    restart_delay_ms: float = 0.0
    exp_backoff_restart_delay_ms: float = 0.0
    kill_timeout_ms: float = KILL_TIMEOUT_MS
    cron: str = ""
    memory_bytes: int = 0
    more: Table = field(default_factory=dict)

    def jobs(self, table: Object, names: JobNames, app: str) -> list[ImportedJob]:
        """The jobs of the app: one for each instance."""
        for key, entry in table.items():
            if not self._take(_SPELLINGS.get(key, key), key, entry):
                self._left_out(entry, f"{key} has no such value: {_shown(entry)}")
        if not self.script:
            _note_all(self.notes, self.place, "an app without a script is not imported")
            return []
        name = self.name or PurePosixPath(self.script).stem
        if not re.search(r"[/\s]", self.script) and not self._interpreter():
            self._changed(
                self.place,
                f"{self.script} is looked for in PATH; write ./ before it if it lies in cwd",
            )
        made = []
        for number in range(self.instances):
            ending = f"-{number}" if self.instances > 1 else ""
            job_id = names.unique(app or self.namespace or APP, name + ending)
            made.append(self._job(job_id, self._definition(name, number)))
        return made

    def _job(self, job_id: str, definition: Table) -> ImportedJob:
        first, last = self.place.first, self.place.last
        return ImportedJob(
            job_id=job_id,
            definition=definition,
            file=self.source.file,
            lines=tuple(range(first, last + 1)),
            source=tuple(lines_of(self.source.text)[first - 1 : last]),
        )

    def _take(self, key: str, written: str, entry: Entry) -> bool:
        """Whether the key and its value were understood, or have a note of their own."""
        value = entry.value
        match key, value:
            case "script" | "name" | "namespace" | "interpreter" | "instance_var", str():
                setattr(self, key, value)
            case "args", _:
                return self._set_words("arguments", value)
            case "interpreter_args", _:
                return self._set_words("interpreter_arguments", value)
            case "cwd", str():
                self.more["cwd"] = value
            case "uid" | "gid", str() | int():
                self.more["user" if key == "uid" else "group"] = str(value)
            case "env", dict():
                for name, each in value.items():
                    self._set_env(name, each)
            case "cron_restart", str() | int():
                self.cron = str(value) if value not in ("0", 0) else ""
            case "autorestart" | "autostart", bool():
                setattr(self, key, value)
            case "max_restarts", int():
                self.max_restarts = value
            case "stop_exit_codes", list():
                codes = [each.value for each in value if isinstance(each.value, int)]
                self.success_codes = sorted({0, *codes})
                return len(codes) == len(value)
            case "max_memory_restart", str() | int():
                return self._set_memory(entry, str(value))
            case "min_uptime" | "restart_delay" | "kill_timeout" | "exp_backoff_restart_delay", (
                str() | int()
            ):
                return self._set_time(f"{key}_ms", str(value))
            case "instances", int() | str():
                return self._set_instances(entry, str(value))
            case _:
                self._note(key, written, entry)
        return True

    def _note(self, key: str, written: str, entry: Entry) -> None:
        """A key that makes nothing of the job: why."""
        value = entry.value
        match key, value:
            case "log_file", str():
                self._changed(entry, "the output is kept by jobbus, see `jobbus logs`")
            case "exec_mode", "fork" | "fork_mode":
                self._not_needed(entry, "each job is a process of its own")
            case "exec_mode", "cluster" | "cluster_mode":
                self._left_out(
                    entry,
                    "a cluster shares one port by a module of Node's; here each instance is a "
                    "process of its own",
                )
            case "wait_ready", True:
                self._left_out(
                    entry,
                    'process.send("ready") is not received; send READY=1 to NOTIFY_SOCKET and '
                    'write ready = "notify"',
                )
            case "treekill", True:
                self._not_needed(entry, "the whole tree is stopped")
            case _ if not value and not isinstance(value, str):
                self._not_needed(entry, f"{written} is off")
            case _ if key in _PM2S_OWN:
                self._not_needed(entry, "it is about pm2 itself")
            case _ if key.startswith("env_"):
                self._left_out(
                    entry, f"one set of variables is taken, env; write those of {written} there"
                )
            case _:
                self._left_out(entry, f"{written} has no equal here")

    def _set_words(self, name: str, value: object) -> bool:
        match value:
            case str():
                try:
                    words = shlex.split(value)
                except ValueError:
                    return False
            case list():
                words = [
                    _spelled(each) for each in value if not isinstance(each.value, dict | list)
                ]
                if len(words) != len(value):
                    return False
            case _:
                return False
        setattr(self, name, words)
        return True

    def _set_env(self, name: str, entry: Entry) -> None:
        if name.startswith(RESERVED_PREFIX) or name in RESERVED_NAMES:
            self._left_out(entry, f"{name} is set by jobbus itself")
        elif not name or "=" in name or "\0" in name:
            self._left_out(entry, "this cannot be the name of a variable")
        elif entry.value is None:
            self._left_out(entry, f"{name} has no value")
        else:
            value = plain(entry)
            self.env[name] = _json(value) if isinstance(value, dict | list) else _spelled(entry)

    def _set_memory(self, entry: Entry, text: str) -> bool:
        size = _SIZE.fullmatch(text)
        if size is None or not int(size[1]):
            return False
        self.memory_bytes = int(size[1]) * _SIZES[size[2].upper()]
        self._changed(
            entry, "memory is a limit that the program cannot pass; pm2 looks now and then"
        )
        return True

    def _set_time(self, name: str, text: str) -> bool:
        time = _TIME.fullmatch(text)
        if time is None:
            return False
        setattr(self, name, float(time[1]) * _TIMES_MS[(time[2] or "").lower()])
        return True

    def _set_instances(self, entry: Entry, text: str) -> bool:
        if text in ("max", "0", "-1"):
            self._left_out(entry, "one for each processor: write how many are wanted; one is made")
        elif not text.isascii() or not text.isdigit() or int(text[:9]) > INSTANCES_MAX:
            return False
        else:
            self.instances = int(text)
        return True

    def _definition(self, name: str, number: int) -> Table:
        env = dict(self.env)
        if self.instances > 1:
            env[self.instance_var] = str(number)
        table: Table = {"name": name, "command": self._command()}
        if (cwd := self.more.get("cwd", "")) or self.source.folder:
            table["cwd"] = str(PurePosixPath(self.source.folder) / str(cwd))
        table |= {
            "stop_signal": "INT",
            "stop_to": "group",
            "stop_grace_s": _s(self.kill_timeout_ms),
        }
        table |= {key: self.more[key] for key in ("user", "group") if key in self.more}
        if self.success_codes:
            table["success_codes"] = self.success_codes
        if self.cron:
            table["overlap"] = "replace"
        if env:
            table["env"] = env
        if self.autorestart:
            table["restart"] = self._restart()
            if delay_s := _s(self.restart_delay_ms or self.exp_backoff_restart_delay_ms):
                steady: Table = {"backoff": 1.0, "jitter": 0.0} if self.restart_delay_ms else {}
                table["retry"] = {"delay_s": delay_s, **steady}
        if self.memory_bytes:
            table["limits"] = {"memory": self.memory_bytes}
        times: list[Table] = []
        if self.autostart:
            times.append({"cron": "@reboot"})
        if self.cron:
            times.append({"cron": self.cron, "missed": "skip"})
        if times:
            table["schedule"] = times
        return table

    def _restart(self) -> Table:
        restarts = max(1, self.max_restarts)
        window_s = max(
            1.0, round(restarts * (self.min_uptime_ms + self.restart_delay_ms) / 1000 + 60)
        )
        policy = "on-failure" if self.success_codes else "always"
        return {"policy": policy, "limit": restarts, "limit_window_s": window_s}

    def _command(self) -> tuple[str, ...]:
        if interpreter := self._interpreter():
            return (interpreter, *self.interpreter_arguments, self.script, *self.arguments)
        return (*self.script.split(), *self.arguments)  # pm2 takes a whole call, too: "npm start"

    def _interpreter(self) -> str:
        """The program that runs the script; empty if it runs by itself."""
        if self.interpreter is None:
            return _INTERPRETERS.get(PurePosixPath(self.script).suffix.lower(), "")
        return "" if self.interpreter == "none" else self.interpreter

    def _left_out(self, entry: Entry, reason: str) -> None:
        self.notes.left_out(entry.first, reason)

    def _changed(self, entry: Entry, reason: str) -> None:
        self.notes.changed(entry.first, reason)

    def _not_needed(self, entry: Entry, reason: str) -> None:
        self.notes.not_needed(entry.first, reason)


def _s(time_ms: float) -> float:
    return round(time_ms / 1000, 3)


def _spelled(entry: Entry) -> str:
    """A value as JavaScript makes a text of it."""
    value = entry.value
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _shown(entry: Entry) -> str:
    return _json(plain(entry))[:60]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
