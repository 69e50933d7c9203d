"""Jobs of PSWebHost: apps/<App>/jobs/<Job>/job.json with a PowerShell script beside it. Pure.

The scripts run unchanged, in their own folder, called as the host calls them: with one hashtable of
variables, after init-job.ps1 has seen it.
"""

import re
from pathlib import PurePosixPath

from handlers.catalog.variable_checks import VARIABLE_NAME
from jobbus.importing.imported import (
    Import,
    ImportedJob,
    JobNames,
    Notes,
    Source,
    Table,
    lines_of,
    numbered,
)
from jobbus.importing.loose_json import Entry, Object, Unreadable, plain, read_json

INIT_SCRIPT = "init-job.ps1"
SIGNED_IN = "authenticated"
"""The role word of PSWebHost that everyone has who is signed in."""

_REFERENCE = re.compile(r"\{\{(\w+)\}\}")
_OUR_REFERENCE = re.compile(r"\{\{[ \t]*([A-Za-z_][A-Za-z0-9_]*)[ \t]*\}\}")
_RIGHTS = ("start", "stop", "restart")
_COLLECT = (
    "$v = @{}; Get-ChildItem env:JOBBUS_VAR_* | "
    "ForEach-Object { $v[$_.Name.Substring(11)] = $_.Value }"
)


def import_pswebhost(
    source: Source, names: JobNames, *, app: str, job: str, has_init: bool, in_place: bool
) -> Import:
    """The job and notes of one job.json.

    `app` and `job` are the folders that it lies in; `has_init` says whether init-job.ps1 is beside
    it, `in_place` whether the job.toml will be.
    """
    notes = Notes(source)
    try:
        document = read_json(source.text)
        table = _folded(document)
    except Unreadable as fault:
        notes.left_out(fault.line, f"the job is not imported: {fault.reason}")
        return Import(notes=notes.all())
    reader = _Job(source, notes, table, has_init=has_init)
    definition = reader.definition()
    if definition is None:
        return Import(notes=notes.all())
    if not in_place:
        definition["cwd"] = source.folder
    job_id = names.unique(app, job)
    if job_id != f"{app}/{job}":
        notes.changed(0, f"its id was {app}/{job}, which has signs that no id has here", job_id)
    made = ImportedJob(
        job_id=job_id,
        definition=definition,
        file=source.file,
        lines=tuple(number for number, _ in numbered(source.text)),
        source=tuple(lines_of(source.text)),
    )
    return Import(jobs=(made,), notes=notes.all())


def _folded(document: Entry) -> Object:
    """The keys in small letters: PowerShell makes no difference."""
    if not isinstance(document.value, dict):
        raise Unreadable(document.first, "it is no JSON object")
    table: Object = {}
    for key, entry in document.value.items():
        if key.casefold() in table:
            raise Unreadable(entry.first, f"{key[:40]} stands twice, in other letters")
        table[key.casefold()] = entry
    return table


class _Job:
    """One job.json: each key is taken, or has a note."""

    def __init__(self, source: Source, notes: Notes, table: Object, *, has_init: bool) -> None:
        self._notes = notes
        self._table = table
        self._has_init = has_init
        self._named = tuple(dict.fromkeys(_REFERENCE.findall(source.text)))
        self._spellings: dict[str, str] = {}
        self._first = min((entry.first for entry in table.values()), default=0)

    def definition(self) -> Table | None:
        script = self._text("scriptrelativepath").replace("\\", "/")
        if not script or _REFERENCE.search(script) or PurePosixPath(script).is_absolute():
            self._notes.left_out(
                0, "the job is not imported: ScriptRelativePath names no fixed script"
            )
            return None
        variables = self._variables()
        table: Table = {}
        for key in ("name", "description"):
            if text := self._text(key):
                table[key] = self._shown(key, text)
        table["command"] = ("pwsh", "-NoProfile", "-NonInteractive", "-Command", self._call(script))
        table |= {"stop_signal": "INT", "stop_to": "group"}
        table["roles"] = self._roles()
        if variables:
            table["variables"] = variables
        if cron := self._text("default_schedule"):
            if required := [name for name, each in variables.items() if _is_required(each)]:
                self._left_out(
                    "default_schedule",
                    f"a start by schedule gives no {', '.join(required)}: write [[schedule]] with "
                    "its variables",
                )
            else:
                table["schedule"] = ({"cron": cron, "missed": "skip"},)
        if plain(self._table["argumentlist"]) if "argumentlist" in self._table else None:
            self._left_out(
                "argumentlist", "PSWebHost gives argumentlist to no script, nor is that done here"
            )
        self._others()
        return table

    def _call(self, script: str) -> str:
        init = f". ./{INIT_SCRIPT} -Variables $v; " if self._has_init else ""
        path = "./" + script.removeprefix("./")
        shown = path if re.fullmatch(r"[\w./-]+", path) else "'" + path.replace("'", "''") + "'"
        return f"{_COLLECT}; {init}& {shown} -Variables $v; exit $LASTEXITCODE"

    def _variables(self) -> Table:
        found: Table = {}
        entry = self._table.get("template_variables")
        described = entry.value if entry is not None and isinstance(entry.value, dict) else {}
        if entry is not None and not isinstance(entry.value, dict | None):
            self._left_out("template_variables", "it is no object with descriptions")
        # PowerShell makes no difference between capital and small letters: the first one counts.
        self._spellings = {name.casefold(): name for name in reversed((*described, *self._named))}
        for name, each in described.items():
            if self._spellings[name.casefold()] != name:
                self._notes.left_out(each.first, f"{name[:60]} stands twice, in other letters")
        needed = {name.casefold() for name in self._named}
        for name in dict.fromkeys(
            self._spellings[word.casefold()] for word in (*described, *self._named)
        ):
            place = described.get(name)
            line = place.first if place is not None else self._first
            if not VARIABLE_NAME.fullmatch(name):
                self._notes.left_out(line, f"{name[:60]} cannot be the name of a variable here")
                continue
            variable: Table = {"allow_dash": True}
            if name.casefold() in needed and not self._has_init:
                variable = {"required": True, **variable}
            elif name.casefold() in needed:
                self._notes.changed(
                    line,
                    f"{name} may be given by {INIT_SCRIPT}, so that no start is refused without it",
                )
            if place is not None and isinstance(place.value, str) and place.value:
                variable["description"] = place.value
            elif place is not None and place.value not in ("", None):
                self._notes.left_out(line, f"the description of {name} is no text")
            found[name] = variable
        return found

    def _shown(self, key: str, text: str) -> str:
        """A text for people; a name takes no variables here."""
        if key == "name" and _OUR_REFERENCE.search(text):
            self._changed(key, "a name is the same for all values here: the braces are left out")
            return _OUR_REFERENCE.sub(r"\1", text)
        return _REFERENCE.sub(self._spelled, text)

    def _spelled(self, reference: re.Match[str]) -> str:
        name = self._spellings.get(reference[1].casefold(), reference[1])
        return f"{{{{{name}}}}}"

    def _roles(self) -> Table:
        roles: dict[str, tuple[str, ...]] = {}
        for right in _RIGHTS:
            roles[right] = self._words(f"roles_{right}") or (SIGNED_IN,)
        return {"view": (SIGNED_IN,), **roles, "output": roles["start"]}

    def _words(self, key: str) -> tuple[str, ...]:
        entry = self._table.get(key)
        value = [] if entry is None else plain(entry)
        words = [value] if isinstance(value, str) else value or []
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            self._left_out(key, "it is no list of roles: left to admins")
            return ("admin",)
        return tuple(word for word in words if word.strip())

    def _others(self) -> None:
        known = ("name", "description", "default_schedule", "scriptrelativepath", "argumentlist",
                 "template_variables", *(f"roles_{right}" for right in _RIGHTS))  # fmt: skip
        for key in self._table:
            if key not in known:
                self._left_out(key, "it has no equal here")

    def _text(self, key: str) -> str:
        entry = self._table.get(key)
        if entry is None or entry.value is None:
            return ""
        if not isinstance(entry.value, str):
            self._left_out(key, f"{key} is no text")
            return ""
        return entry.value.strip()

    def _left_out(self, key: str, reason: str) -> None:
        self._notes.left_out(self._line(key), reason)

    def _changed(self, key: str, reason: str) -> None:
        self._notes.changed(self._line(key), reason)

    def _line(self, key: str) -> int:
        entry = self._table.get(key)
        return entry.first if entry is not None else self._first


def _is_required(variable: object) -> bool:
    return isinstance(variable, dict) and bool(variable.get("required"))
