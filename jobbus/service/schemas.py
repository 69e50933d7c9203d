"""The JSON schemas of all files that people write, with the words of the reference pages."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

import jobbus
from bus.errors import ConfigError
from handlers.catalog.toml_schema import (
    Schema,
    Span,
    app_schema,
    first_span,
    job_schema,
    sections_schema,
)
from jobbus.service.settings_reading import CALENDARS, NAMED, SECTIONS, settings_in

FILES: Final = ("job.toml", "defaults.toml", "app.toml", "calendars.toml", "jobbus.toml")
_OUT_OF_ALL: Final = -1_000_000


def schema_of(file: str) -> Schema:
    """The schema of one of `FILES`."""
    words = _words()
    match file:
        case "job.toml":
            return job_schema(words["job_tables"], words["job_keys"])
        case "defaults.toml":
            return job_schema(words["job_tables"], words["job_keys"], whole=False)
        case "app.toml":
            return app_schema(words["app_keys"])
        case "calendars.toml":
            tables, keys = words["calendar_tables"], words["calendar_keys"]
            title = "calendars.toml of jobbus"
            return sections_schema(title, {}, CALENDARS, tables, keys, _any_number)
        case "jobbus.toml":
            tables = words["service_tables"] | words["calendar_tables"]
            keys = words["service_keys"] | words["calendar_keys"]
            title = "jobbus.toml of jobbus"
            return sections_schema(title, SECTIONS, NAMED, tables, keys, _span_of)
        case _:
            raise AssertionError(file)


@cache
def encoded_schema(file: str) -> bytes | None:
    """The same as a file of its own; None if there is none for such a file."""
    if file not in FILES:
        return None
    return msgspec.json.format(msgspec.json.encode(schema_of(file)), indent=2) + b"\n"


def _span_of(record: type[msgspec.Struct], name: str, path: str) -> Span | None:
    """From where to where a number may go, as the check of the settings says."""
    section = path.rpartition(".")[0]
    table = {name: _OUT_OF_ALL}
    try:
        settings_in({section: {"X": table} if section in NAMED else table}, Path("jobbus.toml"))
    except ConfigError as error:
        return first_span([str(error)])
    return None


def _any_number(record: type[msgspec.Struct], name: str, path: str) -> Span | None:
    """Of a file without numbers that have limits."""
    return None


def _words() -> dict[str, Any]:
    """They lie beside the sources of a checkout, or inside an installed wheel."""
    package = Path(jobbus.__file__).resolve().parent
    inside = package / "words.toml"
    beside = package.parent / "docs" / "reference" / "words.toml"
    return tomllib.loads((inside if inside.exists() else beside).read_text(encoding="utf-8"))
