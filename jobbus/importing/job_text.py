"""The text of a job.toml, from the definition that an import made. Pure."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from bus.job_definition import DefinitionFault
from bus.visible_text import visible
from handlers.catalog.definition_decoding import decode_definition
from jobbus.importing.imported import ImportedJob, Kind, Note, TomlValue

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {
    "\\": "\\\\",
    '"': '\\"',
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\f": "\\f",
    "\r": "\\r",
}


class JobText(NamedTuple):
    """The text of a job.toml and what has to be said of it."""

    text: str
    notes: tuple[Note, ...]


def job_text(job: ImportedJob) -> JobText:
    """What is written for `job`, with a note if the service would refuse it."""
    text = _heading(job) + toml_text(job.definition)
    # The folder is only put into the spec; what is refused does not depend on it.
    decoded = decode_definition(text.encode(), file="job.toml", directory="/")
    if not isinstance(decoded, DefinitionFault):
        return JobText(text, ())
    place = f"line {decoded.line} of " if decoded.line else ""
    reason = f"{place}its job.toml is refused by the service: {decoded.reason}"
    return JobText(text, (_refused(job, reason),))


def _refused(job: ImportedJob, reason: str) -> Note:
    return Note(
        kind=Kind.LEFT_OUT,
        file=job.file,
        line=job.lines[-1] if job.lines else 0,
        text=job.source[-1].strip() if job.source else "",
        reason=reason,
        job_id=job.job_id,
    )


def _heading(job: ImportedJob) -> str:
    lines = f", line {job.lines[-1]}" if len(job.source) == 1 and job.lines else ""
    heading = f"# Imported from {visible(job.file)}{lines}"
    quoted = _comments(f"  {visible(line)}" for line in job.source)
    return f"{heading}{':' if quoted else ''}\n{quoted}\n"


def _comments(lines: Iterable[str]) -> str:
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def toml_text(table: Mapping[str, TomlValue]) -> str:
    """A document of TOML with the keys in their order, sections behind all plain keys."""
    return "\n".join(_section("", table, is_list=False)) + "\n"


def _section(path: str, table: Mapping[str, TomlValue], *, is_list: bool) -> Iterator[str]:
    plain = {key: value for key, value in table.items() if not _is_section(value)}
    sections = {key: value for key, value in table.items() if key not in plain}
    if path and (plain or not sections):
        yield ""
        yield f"[[{path}]]" if is_list else f"[{path}]"
    for key, value in plain.items():
        yield f"{_key(key)} = {_value(value)}"
    for key, value in sections.items():
        inner = f"{path}.{_key(key)}" if path else _key(key)
        if isinstance(value, Mapping):
            yield from _section(inner, value, is_list=False)
            continue
        assert isinstance(value, Sequence), "only tables and lists of them are sections"
        for each in value:
            assert isinstance(each, Mapping), "a list of tables holds nothing else"
            yield from _section(inner, each, is_list=True)


def _is_section(value: TomlValue) -> bool:
    if isinstance(value, Mapping):
        return True
    if isinstance(value, str) or not isinstance(value, Sequence):
        return False
    return bool(value) and all(isinstance(each, Mapping) for each in value)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _value(value: TomlValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int | float):
        return repr(value)
    assert isinstance(value, Sequence), "tables are sections"
    return f"[{', '.join(map(_value, value))}]"


def _text(text: str) -> str:
    """A basic string of TOML: quotes, backslashes and what does not print are escaped."""
    signs = (
        _ESCAPES.get(sign) or (sign if sign.isprintable() else _code(ord(sign))) for sign in text
    )
    return f'"{"".join(signs)}"'


def _code(number: int) -> str:
    return f"\\u{number:04x}" if number < 0x1_0000 else f"\\U{number:08x}"
