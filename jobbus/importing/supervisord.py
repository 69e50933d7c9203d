"""supervisord.conf and the files that it includes. Pure.

Each process of a `[program:x]` becomes a job that is kept up as supervisord keeps it up. A group
becomes the app of its programs.
"""

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bus.job_definition import UMASK
from handlers.catalog.definition_checks import SIGNALS
from handlers.catalog.program_call import RESERVED_NAMES, RESERVED_PREFIX
from jobbus.importing.imported import (
    Import,
    ImportedJob,
    JobNames,
    Notes,
    Source,
    Table,
    lines_of,
    numbered,
    unusable,
)

APP = "Supervisor"
PROCESSES_MAX = 100

_SECTION = re.compile(r"\[([^\]]*)\]\s*(?:[;#].*)?")
_OPTION = re.compile(r"([^=:\s][^=:]*?)\s*[=:]\s*(.*)", re.DOTALL)
_REMARK = re.compile(r"(?:^|\s)[;#].*", re.DOTALL)
_EXPANSION = re.compile(r"%(?:%|\(([^)]*)\)([0-9]*)([sd]))")
_PAIR = re.compile(
    r"""\s*([^=,\s]+)\s*=\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^,"']*?)\s*(?:,|\Z)""", re.DOTALL
)
_SIZE = re.compile(r"(\d{1,15})\s*(KB|MB|GB)?", re.IGNORECASE)
_SIZES = {"": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3}
_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")

_OF_PROGRAM = {
    "command": "", "process_name": "%(program_name)s", "numprocs": "1", "numprocs_start": "0",
    "autostart": "true", "autorestart": "unexpected", "startsecs": "1", "startretries": "3",
    "exitcodes": "0", "stopsignal": "TERM", "stopwaitsecs": "10", "stopasgroup": "false",
    "user": "", "environment": "", "directory": "", "umask": "", "stdout_logfile_maxbytes": "",
    "stdout_logfile_backups": "10",
}  # fmt: skip
"""Options of a program that are carried over, and what supervisord takes without them."""

_KEPT = "the output is kept by jobbus, see `jobbus logs`"
_LOG_FILES = ("stdout_logfile", "stderr_logfile")
_NOT_NEEDED = {
    "killasgroup": "the whole tree is always stopped",
    "redirect_stderr": "both streams are kept in the order in which they are written",
    **dict.fromkeys(
        ("stderr_logfile_maxbytes", "stderr_logfile_backups", "stdout_syslog", "stderr_syslog"),
        _KEPT,
    ),
}
_IF_NOT_ZERO = ("stdout_capture_maxbytes", "stderr_capture_maxbytes")
_IF_TRUE = ("stdout_events_enabled", "stderr_events_enabled", "stdout_syslog", "stderr_syslog")

_OTHER_SECTIONS = {
    "unix_http_server": "jobbus has its own gateway, see docs/access.md",
    "inet_http_server": "jobbus has its own gateway; addresses and tokens are said in jobbus.toml",
    "supervisorctl": "`jobbus` finds the service by its data directory",
    "rpcinterface:supervisor": "XML-RPC is not spoken; the API is HTTP and JSON",
    "include": "the files are read, too",
}
_OF_SUPERVISORD = ("user", "umask", "minfds", "environment", "directory")
_FEATURES = {
    "eventlistener": "event listeners are not started; changes are streamed by GET /events",
    "fcgi-program": "sockets of FastCGI are not made; start the program with a socket of its own",
    "rpcinterface": "XML-RPC is not spoken; the API is HTTP and JSON",
    "ctlplugin": "plugins of supervisorctl have no equal here",
}


@dataclass
class _Option:
    """One option as it stands in a file: its text and number of each line that it takes."""

    texts: list[str]
    lines: list[int]

    @property
    def value(self) -> str:
        return "\n".join(self.texts).strip()


@dataclass
class _Section:
    name: str
    line: int
    source: Source
    notes: Notes
    options: dict[str, _Option] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return self.name.partition(":")[0]

    @property
    def label(self) -> str:
        return self.name.partition(":")[2]

    def last(self) -> int:
        return max([self.line, *(n for option in self.options.values() for n in option.lines)])


def include_patterns(source: Source, host: str) -> tuple[tuple[str, int], ...]:
    """The patterns of the files that `[include]` names, each with its line; relative ones count
    from the folder of `source`."""
    sections, _ = _sections(source)
    return tuple(
        (pattern.replace("%(here)s", source.folder).replace("%(host_node_name)s", host), line)
        for section in sections
        if section.name == "include" and "files" in section.options
        for text, line in zip(
            section.options["files"].texts, section.options["files"].lines, strict=True
        )
        for pattern in text.split()
    )


def import_supervisord(
    sources: Sequence[Source], names: JobNames, *, host: str, app: str = ""
) -> Import:
    """The jobs and notes of one configuration: its main file and those that it includes.

    `host` is what `%(host_node_name)s` stands for.
    """
    sections: list[_Section] = []
    all_notes: list[Notes] = []
    here = sources[0].folder if sources else ""
    for source in sources:
        found, notes = _sections(source)
        sections += found
        all_notes.append(notes)
    groups = _groups(sections)
    service = _service_options(sections)
    jobs: list[ImportedJob] = []
    for section in sections:
        match section.kind:
            case "program" if section.label:
                group = groups.get(section.label, "")
                program = _Program(
                    section, service, group, {"here": here, "host_node_name": host}, app
                )
                jobs += program.jobs(names)
            case "group":
                _note_group(section, sections)
            case "supervisord":
                _note_service(section)
            case "include":
                _note_all(section, section.notes.not_needed, _OTHER_SECTIONS["include"])
            case _ if section.name in _OTHER_SECTIONS:
                _note_all(section, section.notes.not_needed, _OTHER_SECTIONS[section.name])
            case kind:
                reason = _FEATURES.get(kind, f"a section [{section.name}] has no equal here")
                _note_all(section, section.notes.left_out, reason)
    return Import(jobs=tuple(jobs), notes=tuple(note for each in all_notes for note in each.all()))


def _sections(source: Source) -> tuple[list[_Section], Notes]:
    """The sections of a file; lines that are part of none have a note."""
    notes = Notes(source)
    sections: list[_Section] = []
    option: _Option | None = None
    for number, line in numbered(source.text):
        if not line.strip():
            option = None
            continue
        if line.lstrip()[0] in ";#":
            notes.not_needed(number, "a comment; it is not carried over")
            continue
        if fault := unusable(line):
            notes.left_out(number, f"the line {fault}")
            continue
        if line[0].isspace() and option is not None:
            option.texts.append(_REMARK.sub("", line).strip())
            option.lines.append(number)
            continue
        option = None
        if header := _SECTION.fullmatch(line.strip()):
            sections.append(_Section(header[1].strip(), number, source, notes))
        elif not sections:
            notes.left_out(number, "it stands before the first [section]")
        elif found := _OPTION.fullmatch(line.strip()):
            name = found[1].strip().lower()
            option = _Option([_REMARK.sub("", found[2]).strip()], [number])
            before = sections[-1].options.get(name)
            if before is not None:
                for line_before in before.lines:
                    notes.left_out(line_before, f"line {number} gives {name} again")
            sections[-1].options[name] = option
        else:
            notes.left_out(number, "this is no line of supervisord: option = value")
    return sections, notes


def _groups(sections: Iterable[_Section]) -> dict[str, str]:
    """The group of each program that is in one."""
    return {
        program.strip(): section.label
        for section in sections
        if section.kind == "group" and "programs" in section.options
        for program in section.options["programs"].value.split(",")
    }


def _note_all(section: _Section, note: Callable[[int, str], None], reason: str) -> None:
    note(section.line, reason)
    for option in section.options.values():
        for line in option.lines:
            note(line, reason)


def _note_group(section: _Section, sections: Iterable[_Section]) -> None:
    known = {other.label for other in sections if other.kind == "program"}
    section.notes.changed(section.line, f"its programs are jobs of the app {section.label}")
    for name, option in section.options.items():
        for line in option.lines:
            if name != "programs":
                section.notes.left_out(line, f"{name} of a group has no equal here")
                continue
            wanted = [word.strip() for word in option.value.split(",")]
            if missing := [word for word in wanted if word and word not in known]:
                section.notes.left_out(line, f"there is no program {', '.join(missing)}")
            else:
                section.notes.not_needed(line, f"its programs are jobs of the app {section.label}")


def _service_options(sections: Iterable[_Section]) -> dict[str, _Option]:
    return {
        name: option
        for section in sections
        if section.name == "supervisord"
        for name, option in section.options.items()
        if name in _OF_SUPERVISORD
    }


def _note_service(section: _Section) -> None:
    section.notes.not_needed(section.line, "the service has its own settings in jobbus.toml")
    for name, option in section.options.items():
        for line in option.lines:
            if name in _OF_SUPERVISORD:
                section.notes.changed(line, f"{name} is written into each job")
            else:
                section.notes.not_needed(line, "the service has its own settings in jobbus.toml")


class _Program:
    """One `[program:x]`, with what `[supervisord]` says for all."""

    def __init__(
        self,
        section: _Section,
        service: Mapping[str, _Option],
        group: str,
        machine: Mapping[str, str],
        app: str,
    ) -> None:
        self._section = section
        self._notes = section.notes
        self._service = service
        self._group = group
        self._machine = machine
        self._app = app or group or APP
        self._problems: list[str] = []

    def jobs(self, names: JobNames) -> list[ImportedJob]:
        """One job for each process."""
        section = self._section
        if not self._given("command"):
            _note_all(section, self._notes.left_out, "a program without a command is not imported")
            return []
        self._note_options()
        count, first = self._number("numprocs", 1), self._number("numprocs_start", 0)
        if count > PROCESSES_MAX:
            self._left_out("numprocs", f"only the first {PROCESSES_MAX} processes are imported")
            count = PROCESSES_MAX
        return [self._job(first + number, names) for number in range(count)]

    def _job(self, number: int, names: JobNames) -> ImportedJob:
        section = self._section
        self._problems = []
        name = self._expanded("process_name", number) or section.label
        definition = self._definition(number)
        if self._problems:
            definition = {"disabled": True, **definition}
        lines = lines_of(section.source.text)[section.line - 1 : section.last()]
        job_id = names.unique(self._app, name)
        if job_id.partition("/")[2] != name:
            definition = {"name": name, **definition}
        return ImportedJob(
            job_id=job_id,
            definition=definition,
            file=section.source.file,
            lines=tuple(range(section.line, section.last() + 1)),
            source=tuple(line for line in lines if line.strip()),
        )

    def _definition(self, number: int) -> Table:
        table: Table = {"command": self._command(number)}
        cwd = self._expanded("directory", number) or self._of_service("directory")
        if cwd:
            table["cwd"] = cwd
        stop = self._given("stopsignal").upper().removeprefix("SIG")
        if stop in SIGNALS:
            table["stop_signal"] = stop
        else:
            self._left_out("stopsignal", f"{stop} is no signal that asks a program to end")
        if self._is_true("stopasgroup"):
            table["stop_to"] = "group"
        table["stop_grace_s"] = self._number("stopwaitsecs", 10)
        if codes := self._codes():
            table["success_codes"] = codes
        if seconds := self._number("startsecs", 1):
            table["ready"] = f"after_s:{seconds}"
        if user := self._expanded("user", number) or self._of_service("user"):
            table["user"] = user
        umask = self._given("umask") or self._of_service("umask")
        if umask and re.fullmatch(UMASK, umask):
            table["umask"] = umask
        elif umask:
            self._left_out("umask", f"{umask} is no umask such as 022")
        if env := self._environment(number):
            table["env"] = env
        if restart := self._restart():
            table["restart"] = restart
        if max_bytes := self._output_bytes():
            table["output"] = {"max_bytes": max_bytes}
        files = self._of_service("minfds")
        if re.fullmatch(r"[0-9]{2,9}", files) and int(files) >= 16:
            table["limits"] = {"open_files": int(files)}
        if self._is_true("autostart"):
            table["schedule"] = ({"cron": "@reboot"},)
        return table

    def _command(self, number: int) -> tuple[str, ...]:
        text = self._expanded("command", number)
        try:
            words = tuple(shlex.split(text))
        except ValueError:
            self._problem("command", "a quote of the command is not closed")
            return tuple(text.split())
        return words or (text,)

    def _environment(self, number: int) -> dict[str, str]:
        env: dict[str, str] = {}
        texts = (
            ("", self._of_service("environment")),
            ("environment", self._expanded("environment", number)),
        )
        for name, text in texts:
            at = 0
            while at < len(text.rstrip()):
                pair = _PAIR.match(text, at)
                if pair is None:
                    self._problem(name or "environment", f"not understood: {text[at:][:60]}")
                    break
                at = pair.end()
                if pair[1].startswith(RESERVED_PREFIX) or pair[1] in RESERVED_NAMES:
                    self._left_out(name, f"{pair[1]} is set by jobbus itself")
                    continue
                env[pair[1]] = _unquoted(pair[2])
        return env

    def _restart(self) -> Table:
        match self._given("autorestart").lower():
            case word if word in _FALSE:
                return {}
            case word if word in _TRUE:
                policy = "always"
            case "unexpected":
                policy = "on-failure"
            case word:
                self._left_out("autorestart", f"{word} is not true, false or unexpected")
                return {}
        retries = max(1, self._number("startretries", 3))
        # Ends within startsecs are what supervisord counts: about so long takes a row of them.
        delays_s = sum(min(2**n, 60) for n in range(min(retries, 1000)))
        window_s = delays_s + (retries + 1) * (self._number("startsecs", 1) + 1)
        return {"policy": policy, "limit": retries, "limit_window_s": window_s}

    def _codes(self) -> list[int]:
        words = self._given("exitcodes").replace(",", " ").split()
        codes = [int(word) for word in words if re.fullmatch(r"[0-9]{1,3}", word)]
        if len(codes) != len(words):
            self._left_out("exitcodes", "not all of these are exit codes")
        return codes if codes != [0] else []

    def _output_bytes(self) -> int:
        size = _SIZE.fullmatch(self._given("stdout_logfile_maxbytes"))
        if size is None:
            return 0
        return (
            int(size[1])
            * _SIZES[(size[2] or "").upper()]
            * (1 + self._number("stdout_logfile_backups", 10))
        )

    def _note_options(self) -> None:
        """Each option that is not carried over, or not exactly, has a note."""
        for name, option in self._section.options.items():
            value = option.value.lower()
            if name in _LOG_FILES and value in ("none", "auto", "/dev/null", ""):
                self._not_needed(name, _KEPT)
            elif name in _LOG_FILES and value == "syslog":
                self._left_out(name, "nothing is written to syslog; " + _KEPT)
            elif name in _LOG_FILES:
                self._changed(name, "no such file is written; " + _KEPT)
            elif (name in _IF_TRUE and value in _TRUE) or (
                name in _IF_NOT_ZERO and value.strip("0kmgb")
            ):
                self._left_out(name, f"{name} has no equal here")
            elif name in _IF_NOT_ZERO or name in _IF_TRUE:
                self._not_needed(name, "it is off")
            elif name in _NOT_NEEDED:
                self._not_needed(name, _NOT_NEEDED[name])
            elif name == "priority":
                self._left_out(
                    name, "the order in which programs start; `[[after]]` and `ready` make one"
                )
            elif name == "serverurl" and value == "auto":
                self._not_needed(name, "the program is not given the address of the service")
            elif name == "stdout_logfile_maxbytes" and not value.strip("0kmgb"):
                self._changed(name, "what is kept of the output has a limit, [output] max_bytes")
            elif name == "startretries":
                self._changed(
                    name, "limit counts every restart within limit_window_s, not only early ends"
                )
            elif name == "autostart" and value in _TRUE:
                self._not_needed(name, "it is started at each boot; now with `jobbus start`")
            elif name not in _OF_PROGRAM:
                self._left_out(name, f"{name} has no equal here")

    def _expanded(self, name: str, number: int) -> str:
        """The option with its `%(…)s` filled in; what cannot be known stays as it is written."""

        def filled(match: re.Match[str]) -> str:
            if match[1] is None:
                return "%"
            value = self._known(match[1], number)
            if value is None:
                self._problem(
                    name,
                    f"%({match[1]})s is known to supervisord alone: write its value, and take "
                    "disabled out",
                )
                return match[0]
            return value.zfill(int(match[2] or 0)) if match[3] == "d" else value

        return _EXPANSION.sub(filled, self._given(name))

    def _known(self, name: str, number: int) -> str | None:
        section = self._section
        match name:
            case "program_name":
                return section.label
            case "group_name":
                return self._group or section.label
            case "process_num":
                return str(number)
            case "numprocs":
                return str(self._number("numprocs", 1))
            case _:
                return self._machine.get(name)

    def _given(self, name: str) -> str:
        option = self._section.options.get(name)
        return option.value if option is not None else _OF_PROGRAM.get(name, "")

    def _of_service(self, name: str) -> str:
        option = self._service.get(name)
        if option is None:
            return ""
        text = option.value
        for known, value in self._machine.items():
            text = text.replace(f"%({known})s", value)
        if unknown := _EXPANSION.search(text.replace("%%", "")):
            self._problem("command", f"{unknown[0]} of [supervisord] is known to it alone")
        return text.replace("%%", "%")

    def _number(self, name: str, otherwise: int) -> int:
        text = self._given(name)
        if re.fullmatch(r"[0-9]{1,6}", text):
            return int(text)
        self._left_out(name, f"{name} is no whole number; {otherwise} is taken")
        return otherwise

    def _is_true(self, name: str) -> bool:
        text = self._given(name).lower()
        if text not in (*_TRUE, *_FALSE):
            self._left_out(name, f"{name} is neither true nor false; false is taken")
        return text in _TRUE

    def _problem(self, name: str, reason: str) -> None:
        self._problems.append(reason)
        self._left_out(name, reason)

    def _left_out(self, name: str, reason: str) -> None:
        self._at(name, self._notes.left_out, reason)

    def _changed(self, name: str, reason: str) -> None:
        self._at(name, self._notes.changed, reason)

    def _not_needed(self, name: str, reason: str) -> None:
        self._at(name, self._notes.not_needed, reason)

    def _at(self, name: str, note: Callable[[int, str], None], reason: str) -> None:
        option = self._section.options.get(name)
        note(option.lines[0] if option is not None else self._section.line, reason)


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return re.sub(r"\\([\"'\\])", r"\1", text[1:-1])
    return text
