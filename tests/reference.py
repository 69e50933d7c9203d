"""The reference pages and the map of modules, made from the code itself.

`python -m tests.reference` writes them to `docs`; a test says when that is to be done.
"""

import ast
import contextlib
import inspect
import io
import os
import re
import sys
import tomllib
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Union, get_args, get_origin

import msgspec

from bus.calendars import HolidaysSpec
from bus.errors import ConfigError
from bus.job_definition import DefinitionFault, JobSpec, VariableSpec
from bus.schedules import Moment
from handlers.catalog.definition_decoding import decode_definition
from handlers.catalog.record_decoding import NOT_FROM_FILES
from jobbus.cli.main import run
from jobbus.client.audit import AuditCalls
from jobbus.client.client import Client
from jobbus.client.token_records import TokenCalls
from jobbus.service.settings_changes import FIXED
from jobbus.service.settings_reading import NAMED, NOT_BUILT, SECTIONS, load_settings

ROOT: Final = Path(__file__).parents[1]
PACKAGES: Final = ("jobbus", "handlers", "transports", "bus")
FOLDER: Final = ROOT / "docs"
ARCHITECTURE: Final = ROOT / "docs" / "architecture.md"
MAP_BEGINS: Final = "<!-- modules, made by `python -m tests.reference` -->\n"
MAP_ENDS: Final = "<!-- end of modules -->\n"
MADE: Final = "<!-- Made by `python -m tests.reference`: change the types or the words there. -->\n"
_TEXTS: Final = tomllib.loads((FOLDER / "reference" / "words.toml").read_text(encoding="utf-8"))
INTROS: Final[dict[str, str]] = _TEXTS["intros"]
JOB_TABLES: Final[dict[str, str]] = _TEXTS["job_tables"]
JOB_KEYS: Final[dict[str, str]] = _TEXTS["job_keys"]
JOB_TESTS: Final[dict[str, str]] = _TEXTS["job_tests"]
SERVICE_TABLES: Final[dict[str, str]] = _TEXTS["service_tables"] | _TEXTS["calendar_tables"]
SERVICE_KEYS: Final[dict[str, str]] = _TEXTS["service_keys"] | _TEXTS["calendar_keys"]
LISTS: Final = ("schedule", "after")
"""Sections of `job.toml` that may stand several times."""
_RANGE: Final = re.compile(r"must be from (\S+) to (\S+?),")
_WORDS: Final = {
    str: "text",
    bool: "`true`, `false`",
    int: "whole number",
    float: "number",
    Path: "path",
}
_UNITS: Final = {"_s": "s", "_ms": "ms", "_days": "days", "days": "days", "_bytes": "bytes"}


def pages() -> dict[str, str]:
    """The content of each page that is made, by its place in `docs`."""
    return {
        "job-definition.md": _from_docs(job_page()),
        "reference/jobbus-toml.md": service_page(),
        "reference/cli.md": cli_page(),
        "reference/client.md": client_page(),
    }


def _from_docs(page: str) -> str:
    """The page with its links counted from `docs`; in `words.toml` they count from its folder."""
    return page.replace("](../", "](").replace("](jobbus-toml.md", "](reference/jobbus-toml.md")


def job_page() -> str:
    tables = dict(_tables(JobSpec))
    assert set(tables) == set(JOB_TABLES), set(tables) ^ set(JOB_TABLES)
    parts = [
        "# job.toml\n",
        MADE,
        INTROS["job"] + "\n",
    ]
    for name, record in tables.items():
        parts.append(_job_table(name, record))
    return "\n".join(parts)


def _job_table(name: str, record: type[msgspec.Struct]) -> str:
    brackets = "[[{}]]" if name in LISTS else "[{}]"
    title = brackets.format(name) if name else "At the top"
    rows: list[_Row] = []
    tests = []
    for field in msgspec.structs.fields(record):
        is_section = not name and _record_in(field.type) is not None
        if field.name in NOT_FROM_FILES or is_section:
            continue
        path = ".".join(filter(None, (name, field.encode_name)))
        rows.append((field, JOB_KEYS[path], _job_range(path, field)))
        tests.append(f"`{JOB_TESTS[path]}`" if path in JOB_TESTS else "")
    return f"## {title}\n\n{JOB_TABLES[name]}\n\n{_table(rows, tests)}"


def service_page() -> str:
    tables: dict[str, type[msgspec.Struct]] = {
        **SECTIONS,
        **NAMED,
        "calendar.holidays": HolidaysSpec,
    }
    assert set(tables) == set(SERVICE_TABLES), set(tables) ^ set(SERVICE_TABLES)
    parts = [
        "# jobbus.toml\n",
        MADE,
        INTROS["service"] + "\n",
    ]
    for name, record in tables.items():
        words = SERVICE_TABLES[name]
        rows = [
            (
                field,
                SERVICE_KEYS[f"{name}.{field.name}"] + _at_restart(name, field.name),
                _service_range(name, field),
            )
            for field in msgspec.structs.fields(record)
            if f"{name}.{field.name}" not in tables
        ]
        name = "calendar.NAME.holidays" if record is HolidaysSpec else name
        parts.append(f"## [{name}]\n\n{words}\n\n{_table(rows)}")
    later = ", ".join(f"`[{name}]`" for name in NOT_BUILT)
    parts.append(f"## Not built yet\n\n{later}: a file with such a section is refused.\n")
    return "\n".join(parts)


def _at_restart(section: str, key: str) -> str:
    return " (*restart*)" if key in FIXED.get(section, ()) else ""


def cli_page() -> str:
    # A group of commands keeps the width and the parent of the call that it was loaded for.
    sys.modules.pop("jobbus.cli.tokens", None)
    parts = [
        "# Commands\n",
        MADE,
        INTROS["cli"] + "\n",
        f"```text\n{_help()}```\n",
    ]
    parts += (f"## {' '.join(words)}\n\n```text\n{_help(*words)}```\n" for words in _commands(()))
    return "\n".join(parts)


def client_page() -> str:
    parts = ["# The Python client\n", MADE, INTROS["client"] + "\n", _methods("Client", Client)]
    parts += (
        _methods(f"Client.{name}", calls)
        for name, calls in (("tokens", TokenCalls), ("audit", AuditCalls))
    )
    return "\n".join(parts)


def _methods(title: str, record: type) -> str:
    """Each public method with its signature, and what its docstring says."""
    lines = [f"## {title}\n"]
    names = [name for name in dir(record) if not name.startswith("_")]
    for name in names:
        found = inspect.getattr_static(record, name)
        if inspect.isfunction(found):
            words = inspect.getdoc(found) or ""
            lines.append(f"### {name}\n\n```text\n{_signature(name, found)}\n```\n\n{words}\n")
    return "\n".join(lines)


def _signature(name: str, function: Callable[..., Any]) -> str:
    kind = "await " if inspect.iscoroutinefunction(function) else ""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    shown = [
        each.name if each.default is inspect.Parameter.empty else f"{each.name}={each.default!r}"
        for each in parameters
    ]
    named = [each.kind is inspect.Parameter.KEYWORD_ONLY for each in parameters]
    if True in named:
        shown.insert(named.index(True), "*")
    return f"{kind}{name}({', '.join(shown)})"


def map_of_modules() -> str:
    """Every module of the four packages by folder, with the first sentence of its docstring."""
    lines = []
    for folder in _folders():
        lines.append(f"### {folder.relative_to(ROOT)}/\n\n| module | |\n|---|---|")
        lines += (
            f"| `{path.stem}` | {_first_sentence(path)} |"
            for path in sorted(folder.glob("*.py"))
            if path.stem != "__init__"
        )
        lines.append("")
    return "\n".join(lines)


def _folders() -> Iterator[Path]:
    for package in PACKAGES:
        for folder in (ROOT / package, *sorted((ROOT / package).rglob("*"))):
            if any(path.stem != "__init__" for path in folder.glob("*.py")):
                yield folder


def _first_sentence(path: Path) -> str:
    words = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(words.partition("\n\n")[0].split())
    return re.split(r"(?<=[a-z0-9`)\]])\. ", paragraph)[0].rstrip(".").replace("|", "\\|")


def _commands(group: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every command below the group, as its help lists them."""
    listed = _help(*group).partition("Commands:\n")[2].partition("\n\n")[0]
    for name in re.findall(r"^  ([a-z][\w-]*):", listed, re.M):
        yield (*group, name)
        yield from _commands((*group, name))


def _help(*words: str) -> str:
    """What `--help` prints; the sentences below every help stand below that of `jobbus` alone."""
    os.environ["COLUMNS"] = "100"
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        assert run([*words, "--help"]) == 0, words
    lines = [line.rstrip() for line in text.getvalue().rstrip().splitlines()]
    if words:
        whole = "\n".join(lines)
        common = _help().rpartition("\n\n\n")[2].rstrip()
        lines = whole.removesuffix(common).rstrip().splitlines()
    return "\n".join(lines) + "\n"


def _tables(record: type[msgspec.Struct]) -> Iterator[tuple[str, type[msgspec.Struct]]]:
    """The top of a definition and each section of it, by name."""
    yield "", record
    for field in msgspec.structs.fields(record):
        inner = _record_in(field.type)
        if inner is not None:
            yield (f"{field.name}.NAME" if inner is VariableSpec else field.name), inner


def _record_in(hint: Any) -> type[msgspec.Struct] | None:
    for kind in (hint, *get_args(hint)):
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return kind
    return None


_Row = tuple[msgspec.structs.FieldInfo, str, str]


def _table(rows: list[_Row], tests: Sequence[str] = ()) -> str:
    """With `tests`, those that prove the keys have a column of their own."""
    lines = ["| key | value | default | |", "|---|---|---|---|"]
    for field, words, span in rows:
        value = _kind(field.type) + (f", {span}" if span else "") + _unit(field)
        lines.append(f"| `{field.encode_name}` | {value} | {_default(field)} | {words} |")
    if tests:
        ends = (" proven by |", "---|", *(f" {test} |" for test in tests))
        lines = [line + end for line, end in zip(lines, ends, strict=True)]
    return "\n".join(lines) + "\n"


def _kind(hint: Any) -> str:
    hint = _without_none(hint)
    if hint == Moment:
        return "date and time"
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        if arguments[0] == Moment:
            return "date and time, or a list"
        return "list of words" if arguments[0] is str else f"list of {_kind(arguments[0])}"
    if origin is dict:
        inner = {"list of words": "lists of words", "text": "texts"}.get(
            _kind(arguments[1]), "values"
        )
        return f"table of {inner}"
    if origin in (Union, types.UnionType):
        if bool in arguments:
            return "text, number, `true` or `false`"
        number = "number" if float in arguments else "whole number"
        return f"text or {number}" if str in arguments else "number"
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        words = [f'`"{word}"`' for word in hint]
        return ", ".join(words) if len(words) < 8 else "final states"
    return _WORDS[hint]


def _without_none(hint: Any) -> Any:
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    rest = tuple(each for each in get_args(hint) if each is not type(None))
    return rest[0] if len(rest) == 1 else Union[rest]  # noqa: UP007 - made at run time


def _unit(field: msgspec.structs.FieldInfo) -> str:
    if _without_none(field.type) not in (int, float):
        return ""
    name = field.name.removesuffix("_max").removesuffix("_in_all")
    unit = next((unit for end, unit in _UNITS.items() if name.endswith(end)), "")
    return f" {unit}" if unit and not field.name.endswith("_per_s") else ""


def _default(field: msgspec.structs.FieldInfo) -> str:
    match field.default_factory() if callable(field.default_factory) else field.default:
        case msgspec.UNSET | msgspec.NODEFAULT:
            return "**required**"
        case None:
            return ""
        case bool() as yes:
            return f"`{str(yes).lower()}`"
        case tuple() as words:
            return f"`[{', '.join(_quoted(word) for word in words)}]`"
        case dict():
            return "`{}`"
        case float() as number:
            return f"`{number:.15g}`"
        case str() | Path() as text:
            return f"`{_quoted(text)}`"
        case other:
            return f"`{other}`"


def _quoted(word: object) -> str:
    return str(word) if isinstance(word, int) else f'"{word}"'


_NEEDED: Final = {
    "schedule": 'cron = "0 3 * * *"\n',
    "health": 'command = ["x"]\n',
    "start_limit": "count = 1\n",
}
"""Keys without which a section is refused as a whole."""


def _job_range(path: str, field: msgspec.structs.FieldInfo) -> str:
    """What the checks themselves say about a number that cannot be right."""
    if _without_none(field.type) not in (int, float) or path.startswith("variables"):
        return ""
    section, _, key = path.rpartition(".")
    head = (
        f"[{section}]\n"
        if section not in ("", "schedule", "after")
        else f"[[{section}]]\n" * bool(section)
    )
    start = _NEEDED.get(section, "") if key != "count" else "within_s = 1\n"
    text = f'command = ["x"]\n{head}{start}{key} = -1000000\n'
    found = decode_definition(text.encode(), file="job.toml", directory="/x")
    assert isinstance(found, DefinitionFault), path
    return "" if "not built" in found.reason else _span(found.reason)


def _service_range(section: str, field: msgspec.structs.FieldInfo) -> str:
    if field.type not in (int, float):
        return ""
    if section in NAMED:
        return ""  # its words say it
    try:
        load_settings(None, {f"JOBBUS_{section}_{field.name}".upper(): "-1000000"}, {})
    except ConfigError as error:
        return _span(str(error))
    raise AssertionError(f"[{section}] {field.name} takes anything")


def _span(sentence: str) -> str:
    found = _RANGE.search(sentence)
    assert found is not None, sentence
    low, high = found.groups()
    return f"from {low}" if len(high) > 7 else f"{low} to {high}"


def with_map(page: str) -> str:
    """The page on the architecture with the map of modules as it is now."""
    before, _, rest = page.partition(MAP_BEGINS)
    _, _, after = rest.partition(MAP_ENDS)
    return f"{before}{MAP_BEGINS}\n{map_of_modules()}{MAP_ENDS}{after}"


def write(made: Mapping[str, str], folder: Path = FOLDER) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")
    page = ARCHITECTURE.read_text(encoding="utf-8")
    ARCHITECTURE.write_text(with_map(page), encoding="utf-8")


if __name__ == "__main__":
    write(pages())
