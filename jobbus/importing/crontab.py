"""Crontabs: of people, of the system with an account in each line, and of /etc/cron.d. Pure.

A line becomes a job whose command is the shell that cron would call, with the line's own text as
one argument: nothing is taken apart, so it does what it did.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from handlers.catalog.program_call import RESERVED_NAMES, RESERVED_PREFIX
from jobbus.importing.imported import (
    Import,
    ImportedJob,
    JobNames,
    Notes,
    Source,
    Table,
    numbered,
    unusable,
)

APP = "Cron"
SHELL = "/bin/sh"
STDIN_FILE = "stdin.txt"

DESCRIPTION_MAX = 200
"""So long a comment above a line is taken for what the job is for."""

_SETTING = re.compile(r"""\s*("[^"]*"|'[^']*'|[^\s="'@*0-9-][^\s="']*)\s*=\s*(.*?)\s*""", re.DOTALL)
_FIELDS = re.compile(r"\s*((?:\S+\s+){4}\S+)\s+(\S.*)", re.DOTALL)
_ALIAS = re.compile(r"\s*(@\S+)\s+(\S.*)", re.DOTALL)
_USER = re.compile(r"(\S+)\s+(\S.*)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ENTRY_IN_COMMENT = re.compile(r"#\s*(?:@\w+\s|(?:[\d*/,~-]+\s+){4}\S+\s+\S)")
_CODE = re.compile(r"-[A-Za-z]*[cer]|--eval|-Command")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=\S*")
_SPLIT = re.compile(r"\s*(?:&&|\|\||[;|])\s*")

_ALIASES = {
    **{name: name for name in ("@reboot", "@hourly", "@daily", "@weekly", "@monthly", "@yearly")},
    "@midnight": "@daily",
    "@annually": "@yearly",
    "@every_minute": "* * * * *",
}
_MAIL = ("MAILTO", "MAILFROM", "CONTENT_TYPE", "CONTENT_TRANSFER_ENCODING")
_SILENT = frozenset(
    ("cd", "test", "[", "[[", "sleep", "export", "set", "if", ".", "source", "true")
)
"""Commands of a line that say nothing of what it is for."""

_WRAPPERS: dict[str, tuple[str, int]] = {
    **dict.fromkeys(("exec", "command", "nohup", "setsid", "chronic", "time", "env"), ("", 0)),
    "nice": ("-n", 0),
    "ionice": ("-c -n -p", 0),
    "sudo": ("-u -g -H", 0),
    "su": ("-c -s", 1),
    "timeout": ("-k -s", 1),
    "flock": ("-w -E", 1),
}
"""Programs that run another: their options with a value, and how many words come before it."""

_INTERPRETERS = re.compile(
    r"(?:ba|da|z|k|c|tc|fi)?sh|python[0-9.]*|perl|ruby|php[0-9.]*|node|java|pwsh"
)


@dataclass
class _Settings:
    """The settings in force at a line of the crontab, and the lines that made them."""

    env: dict[str, str] = field(default_factory=dict)
    zone: str = ""
    delay_min: int = 0
    lines: dict[str, int] = field(default_factory=dict)
    used: set[int] = field(default_factory=set)


def import_crontab(
    source: Source,
    names: JobNames,
    *,
    with_user: bool,
    homes: Mapping[str, str],
    home: str,
    app: str = APP,
) -> Import:
    """The jobs and notes of one crontab.

    `with_user` says that the sixth word of a line is an account, as in /etc/crontab. `homes` are
    the home folders of the accounts of this machine; `home` is that of a crontab without any.
    """
    return _Crontab(source, names, with_user, homes, home, app).read()


class _Crontab:
    """One crontab, read line by line: settings count for the lines below them."""

    def __init__(
        self,
        source: Source,
        names: JobNames,
        with_user: bool,
        homes: Mapping[str, str],
        home: str,
        app: str,
    ) -> None:
        self._source = source
        self._names = names
        self._with_user = with_user
        self._homes = homes
        self._home = home
        self._app = app
        self._notes = Notes(source)
        self._settings = _Settings()
        self._comments: list[tuple[int, str]] = []
        self._jobs: list[ImportedJob] = []

    def read(self) -> Import:
        for number, line in numbered(self._source.text):
            self._line(number, line)
        self._drop_comments()
        self._unused_settings()
        if self._jobs:
            self._notes.changed(
                0,
                "cron starts a line again while it still runs; here a start that comes meanwhile "
                "is refused, see overlap and max_running",
            )
            if not self._with_user and not self._source.account:
                self._notes.changed(
                    0,
                    "the crontab does not say whose it is: its jobs run as the account of the "
                    "service; --user NAME names it",
                )
        return Import(jobs=tuple(self._jobs), notes=self._notes.all())

    def _line(self, number: int, line: str) -> None:
        if not line.strip():
            self._drop_comments()
        elif line.lstrip().startswith("#"):
            self._comments.append((number, line))
        elif fault := unusable(line):
            self._drop_comments()
            self._notes.left_out(number, f"the line {fault}")
        elif setting := _SETTING.fullmatch(line):
            self._drop_comments()
            self._set(number, _unquoted(setting[1]), _unquoted(setting[2]))
        else:
            self._entry(number, line)
            self._drop_comments()

    def _set(self, number: int, name: str, value: str) -> None:
        settings = self._settings
        if name in _MAIL:
            if name == "MAILTO" and value:
                self._notes.left_out(
                    number,
                    "nothing is sent by mail; the output of every execution is kept, see "
                    "`jobbus logs`",
                )
            else:
                self._notes.not_needed(number, "nothing is sent by mail; output is kept instead")
            return
        if name == "RANDOM_DELAY" and value.isascii() and value.isdigit():
            settings.delay_min = int(value[:6])
        elif name == "CRON_TZ":
            settings.zone = value
        elif not _NAME.fullmatch(name):
            self._notes.left_out(number, f"{name or 'an empty word'} is no name of a variable")
            return
        elif name.startswith(RESERVED_PREFIX) or name in RESERVED_NAMES:
            self._notes.left_out(number, f"{name} is set by jobbus itself")
            return
        elif name in ("LOGNAME", "USER", "RANDOM_DELAY", "START_HOURS_RANGE"):
            self._notes.left_out(number, f"{name} has no equal here; cron itself limits it, too")
            return
        else:
            settings.env = {**settings.env, name: value}
        before = settings.lines.get(name)
        if before is not None and before not in settings.used:
            self._notes.left_out(before, f"line {number} sets {name} again, before any use")
        settings.lines = {**settings.lines, name: number}

    def _entry(self, number: int, line: str) -> None:
        when, rest, is_quiet = _when_of(line)
        if not when or not rest:
            self._notes.left_out(number, "this is no line of a crontab: five times and a command")
            return
        if when.startswith("@") and when.casefold() not in _ALIASES:
            self._notes.left_out(
                number, f"{when} is no time that jobbus knows; write a job with [[schedule]]"
            )
            return
        user, group, command = self._source.account, "", rest
        if self._with_user:
            split = _USER.fullmatch(rest)
            if split is None:
                self._notes.left_out(number, "the account or the command is missing")
                return
            account, command = split[1], split[2]
            user, _, group = account.partition("/")[0].partition(":")
        command, stdin = _split_percent(command)
        if not command.strip():
            self._notes.left_out(number, "the command is empty")
            return
        job_id = self._names.unique(self._app, name_of(command) or f"Line{number}")
        if is_quiet:
            self._notes.not_needed(
                number, "the - before the minute keeps cron's own log short; it is left out", job_id
            )
        definition = self._definition(command.strip(), user, group)
        files: dict[str, str] = {}
        if stdin is not None:
            definition["stdin"] = f"file:{STDIN_FILE}"
            files[STDIN_FILE] = stdin
        if user and user not in self._homes and "HOME" not in self._settings.env:
            self._notes.changed(
                number, f"there is no account {user} here; cwd is the folder of the job", job_id
            )
        if schedule := self._schedule(number, when, job_id):
            definition["schedule"] = (schedule,)
        self._jobs.append(
            ImportedJob(
                job_id=job_id,
                definition=definition,
                file=self._source.file,
                lines=(
                    *(n for n, _ in self._comments),
                    *sorted(self._settings.lines.values()),
                    number,
                ),
                source=(*(text for _, text in self._comments), line),
                files=files,
            )
        )
        self._comments = []
        self._settings.used.update(self._settings.lines.values())

    def _definition(self, command: str, user: str, group: str) -> Table:
        env = self._settings.env
        table: Table = {}
        if description := _description([text for _, text in self._comments]):
            table["description"] = description
        table["command"] = (env.get("SHELL") or SHELL, "-c", command)
        home = env.get("HOME") or (self._homes.get(user, "") if user else self._home)
        if PurePosixPath(home).is_absolute():
            table["cwd"] = home
        table["stop_to"] = "group"
        if user:
            table["user"] = user
        if group:
            table["group"] = group
        if env:
            table["env"] = dict(env)
        return table

    def _schedule(self, number: int, when: str, job_id: str) -> Table:
        if when.startswith("@"):
            when = _ALIASES[when.casefold()]
        elif "~" in when:
            self._notes.left_out(
                number,
                "~ is a time by chance; write a [[schedule]] with fixed times and jitter_s",
                job_id,
            )
            return {}
        schedule: Table = {"cron": when}
        if self._settings.zone:
            schedule["zone"] = self._settings.zone
        if when != "@reboot":
            schedule["missed"] = "skip"  # as cron does
        if self._settings.delay_min:
            schedule["jitter_s"] = self._settings.delay_min * 60
        return schedule

    def _drop_comments(self) -> None:
        """The comments collected so far belong to no line below."""
        for number, _ in self._comments:
            self._notes.not_needed(number, "a comment that belongs to no job")
        self._comments = []

    def _unused_settings(self) -> None:
        for name, number in self._settings.lines.items():
            if number not in self._settings.used:
                self._notes.left_out(number, f"no line below it uses {name}")


def with_accounts(text: str, accounts: Mapping[str, str]) -> bool:
    """Whether the sixth word of every line is an account of this machine, and root is among them:
    other accounts have the names of programs, e.g. `backup` and `mail`."""
    words = [
        split[1]
        for _, line in numbered(text)
        if not line.lstrip().startswith("#") and not _SETTING.fullmatch(line)
        if (split := _USER.fullmatch(_when_of(line)[1]))
    ]
    return "root" in words and all(word in accounts for word in words)


def _when_of(line: str) -> tuple[str, str, bool]:
    """The times, the rest of the line, and whether a `-` stood before them."""
    text = line.strip()
    is_quiet = text.startswith("-")
    text = text.removeprefix("-")
    if found := _ALIAS.fullmatch(text):
        return found[1], found[2], is_quiet
    if found := _FIELDS.fullmatch(text):
        return " ".join(found[1].split()), found[2], is_quiet
    return "", "", is_quiet


def _split_percent(command: str) -> tuple[str, str | None]:
    r"""The command up to its first `%`, and its input: further ones are line feeds, `\%` is `%`."""
    parts = [part.replace("\\%", "%") for part in re.split(r"(?<!\\)%", command)]
    if len(parts) == 1:
        return parts[0], None
    return parts[0], "\n".join(parts[1:]) + "\n"


def name_of(command: str) -> str:
    """A name for a job, from the first program in a shell line that says what is done."""
    words = [
        word.strip("\"'(){}!")
        for piece in _SPLIT.split(command)
        for word in _telling(piece.split())
    ]
    for word in words:
        stem = PurePosixPath(word).name
        plain = stem.rpartition(".")[0] or stem
        if plain and plain[0].isascii() and plain[0].isalnum():
            return plain
    return ""


def _telling(words: list[str]) -> list[str]:
    """The word of a simple command that names it best, or nothing."""
    rest = [word for word in words if not _ASSIGNMENT.fullmatch(word)]
    while rest and (name := PurePosixPath(rest[0]).name) in _WRAPPERS:
        with_value, before = _WRAPPERS[name]
        rest = rest[1:]
        while rest and rest[0].startswith("-"):
            rest = rest[2 if rest[0] in with_value.split() else 1 :]
        rest = rest[before:]
    if not rest or rest[0] in _SILENT:
        return []
    if _INTERPRETERS.fullmatch(PurePosixPath(rest[0]).name):
        if any(_CODE.fullmatch(word) for word in rest):
            return []
        scripts = [word for word in rest[1:] if not word.startswith("-")]
        return scripts[:1] or rest[:1]
    return rest[:1]


def _description(comments: list[str]) -> str:
    """The comment above a line, if it is for people and not another line taken out."""
    if any(_ENTRY_IN_COMMENT.match(text.strip()) for text in comments):
        return ""
    words = " ".join(text.strip().lstrip("#").strip() for text in comments).strip()
    if len(words) > DESCRIPTION_MAX or "{{" in words or unusable(words):
        return ""
    return words


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    return text
