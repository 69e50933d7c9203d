"""How settings are read: `jobbus.toml`, the environment and flags become one frozen record.

Flags win over the environment, which wins over the file, which wins over the defaults. A key that
is not known is an error, never ignored; so is a section whose part is not built yet.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, get_origin

import msgspec

from bus.access import RoleDefaults
from bus.calendars import BlackoutSpec, CalendarSpec
from bus.errors import ConfigError
from bus.groups import GROUP_NAME
from bus.malformed import why_unfit
from bus.retention_settings import RetentionSettings
from bus.secret_sources import SECRET_NAME, SecretSource
from bus.toml_text import TomlFault, parse_toml, toml_text
from handlers.calendars.calendar_set import NOTHING_WRITTEN, Written, examined
from handlers.catalog.problem import shown
from handlers.catalog.toml_lines import key_lines
from jobbus.service.settings import (
    DirectorySection,
    GroupSection,
    JobsSection,
    LimitsSection,
    LogSection,
    ProxySection,
    ServeSettings,
    Settings,
)
from jobbus.service.settings_checks import check

FILE_SIZE_MAX = 1024 * 1024

SECTIONS: Final[dict[str, type[msgspec.Struct]]] = {
    "serve": ServeSettings,
    "log": LogSection,
    "directory": DirectorySection,
    "roles": RoleDefaults,
    "proxy": ProxySection,
    "limits": LimitsSection,
    "keep": RetentionSettings,
    "jobs": JobsSection,
}
SECRETS: Final = "secrets"
GROUPS: Final = "group"
CALENDARS: Final[dict[str, type[msgspec.Struct]]] = {
    "calendar": CalendarSpec,
    "blackout": BlackoutSpec,
}
NAMED: Final[dict[str, type[msgspec.Struct]]] = {
    SECRETS: SecretSource,
    GROUPS: GroupSection,
    **CALENDARS,
}
"""Sections whose keys are names of the operator's choice. They stand in the file only."""

NOT_BUILT: Final = ("nats",)
"""Sections of the contract whose part does not exist yet: set, they are refused, not ignored."""

_MOVED: Final = {("serve", "log_level"): ("log", "level")}
"""Keys by the names that they had before."""

_SHORT_NAMES: Final = {"JOBBUS_DATA": ("serve", "data")}
_PATHS: Final = (
    ("serve", "data"),
    ("serve", "apps"),
    ("serve", "tls_cert"),
    ("serve", "tls_key"),
)
_Values = dict[tuple[str, str], Any]


def load_settings(
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Settings:
    """The settings of file, environment and flags together.

    `flags` are named `section.key`; a value of None was not given. Relative paths in the file count
    from its folder, all others from the current one.

    Raises:
        ConfigError: a key is unknown or a value wrong; the message names the place.
    """
    text = _text(config) if config is not None else ""
    in_file = _from_file(config, text) if config is not None else {}
    try:
        settings = _checked({**in_file, **_from_environ(environ or {}), **_from_flags(flags or {})})
    except ConfigError as wrong:
        if config is not None and str(wrong) == _what_is_wrong(in_file):
            raise ConfigError(f"{config}: {wrong}") from wrong
        raise
    if config is not None and settings.calendars != NOTHING_WRITTEN:
        placed = settings.calendars._replace(file=config.name, lines=key_lines(text))
        return msgspec.structs.replace(settings, calendars=placed)
    return settings


def _what_is_wrong(values: _Values) -> str | None:
    try:
        _checked(values)
    except ConfigError as wrong:
        return str(wrong)
    return None


def _checked(values: _Values) -> Settings:
    sections: dict[str, Any] = {name: _section(name, values) for name in SECTIONS}
    serve: ServeSettings = sections["serve"]
    sections["serve"] = msgspec.structs.replace(
        serve, data=serve.data.absolute(), apps=serve.apps.absolute()
    )
    settings = Settings(
        **sections,
        secrets=_secrets(values),
        group=_groups(values),
        calendars=_calendars(values),
    )
    check(settings)
    return settings


def _from_file(path: Path, text: str) -> _Values:
    try:
        return _values_in(parse_toml(text), path)
    except TomlFault as exc:
        raise ConfigError(f"{path}, line {exc.line}: {exc.reason}") from exc
    except RecursionError as exc:
        raise ConfigError(f"{path}: lists or tables are nested too deeply") from exc


def settings_in(document: Mapping[str, Any], path: Path) -> Settings:
    """What a file says by itself, without the environment and flags.

    Raises:
        ConfigError: see `load_settings`.
    """
    return _checked(_values_in(document, path))


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_SIZE_MAX + 1)
        if len(raw) > FILE_SIZE_MAX:
            raise ConfigError(f"{path} is larger than {FILE_SIZE_MAX} bytes")
        return toml_text(raw)
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    except TomlFault as exc:
        raise ConfigError(f"{path}, line {exc.line}: {exc.reason}") from exc


def _values_in(document: Mapping[str, Any], path: Path) -> _Values:
    values: _Values = {}
    for section, table in document.items():
        _known_section(section, str(path))
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {section} must be a section: write [{section}]")
        for key, value in table.items():
            if section == SECRETS:
                values[section, key] = _from_here(path, value)
                continue
            if section in CALENDARS:
                values[section, key] = _from_here(path, value, "ics")
                continue
            if section in NAMED:
                values[section, key] = value
                continue
            if (moved := _MOVED.get((section, key))) is not None:
                values.setdefault(moved, value)
                continue
            _known_key(section, key, str(path))
            if (section, key) in _PATHS and isinstance(value, str):
                value = str(path.absolute().parent / value)
            values[section, key] = value
    return values


def _from_environ(environ: Mapping[str, str]) -> _Values:
    values: _Values = {}
    for name, text in environ.items():
        place = _SHORT_NAMES.get(name) or _place_of(name)
        if place is None or not text:
            continue
        place = section, key = _MOVED.get(place, place)
        if section in NAMED:
            raise ConfigError(f"{name}: [{section}] stands in the file only, jobbus.toml")
        _known_section(section, name)
        _known_key(section, key, name)
        values[place] = _value_of(section, key, text, name)
    if (data := named_data(environ)) is not None:
        values["serve", "data"] = data
    return values


def named_data(environ: Mapping[str, str]) -> str | None:
    """The data directory that the environment names; the longer name says it more exactly."""
    return environ.get("JOBBUS_SERVE_DATA") or environ.get("JOBBUS_DATA") or None


def _place_of(name: str) -> tuple[str, str] | None:
    """Section and key of `JOBBUS_<SECTION>_<KEY>`; None for other variables of ours."""
    prefix, _, rest = name.partition("_")
    section, _, key = rest.lower().partition("_")
    known = section in SECTIONS or section in NOT_BUILT or section in NAMED
    return (section, key) if prefix == "JOBBUS" and known and key else None


def _value_of(section: str, key: str, text: str, name: str) -> object:
    """The text of a variable as what the key holds: lists are comma-separated words."""
    kind: Any = SECTIONS[section].__annotations__[key]
    if get_origin(kind) is tuple:
        return [word for word in (part.strip() for part in text.split(",")) if word]
    if get_origin(kind) is dict:
        raise ConfigError(f"{name}: [{section}] {key} is a table; set it in the file")
    if kind is bool:
        return _boolean(text, name)
    if kind in (int, float):
        return _number(text, name)
    return text


def _number(text: str, name: str) -> int | float:
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        raise ConfigError(f"{name} must be a number, not {text!r}") from None


def _boolean(text: str, name: str) -> bool:
    match text.lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off":
            return False
        case _:
            raise ConfigError(f"{name} must be true or false, not {text!r}")


def _from_flags(flags: Mapping[str, object]) -> _Values:
    values: _Values = {}
    for name, value in flags.items():
        section, _, key = name.partition(".")
        assert section in SECTIONS, name
        assert key in SECTIONS[section].__struct_fields__, name
        if value is not None:
            values[section, key] = str(value) if isinstance(value, Path) else value
    return values


def _known_section(section: str, where: str) -> None:
    if section in NOT_BUILT:
        raise ConfigError(f"{where}: the section [{section}] is not built in this version")
    if section not in SECTIONS and section not in NAMED:
        near = _nearest(section, (*SECTIONS, *NAMED))
        raise ConfigError(f"{where}: there is no section [{section}]{near}")


def _known_key(section: str, key: str, where: str) -> None:
    known = SECTIONS[section].__struct_fields__
    if key not in known:
        raise ConfigError(f"{where}: [{section}] has no key {key!r}{_nearest(key, known)}")


def _nearest(word: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


def _section(name: str, values: _Values) -> msgspec.Struct:
    kind = SECTIONS[name]
    table = {}
    for key in kind.__struct_fields__:
        if (name, key) not in values:
            continue
        try:
            table[key] = msgspec.convert(
                values[name, key], kind.__annotations__[key], str_keys=True, dec_hook=_path
            )
        except msgspec.ValidationError as exc:
            steps, sentence = why_unfit(exc)
            raise ConfigError(f"[{name}] {'.'.join((key, *steps))}: {sentence}") from exc
    return kind(**table)


def _from_here(config: Path, source: object, key: str = "file") -> object:
    """The source with the file that `key` names counted from the folder of the config."""
    if isinstance(source, dict) and isinstance(source.get(key), str) and source[key]:
        return source | {key: str(config.absolute().parent / source[key])}
    return source


def with_whole_paths(
    tables: Mapping[str, Mapping[str, Any]], config: Path
) -> dict[str, dict[str, Any]]:
    """Calendars and blackouts, with the files that they name counted from the folder of the
    config."""
    return {
        kind: {name: _from_here(config, each, "ics") for name, each in named.items()}
        for kind, named in tables.items()
    }


def _calendars(values: _Values) -> Written:
    """Raises for the first of all mistakes; `examined` has them all."""
    tables: dict[str, dict[str, Any]] = {}
    for (section, key), value in values.items():
        if section in CALENDARS:
            tables.setdefault(section, {})[key] = value
    if not tables:
        return NOTHING_WRITTEN
    spec, problems, _ = examined(tables)
    for problem in problems:
        raise ConfigError(f"[{shown(problem.path[:2])}] {problem.reason}")
    return Written("jobbus.toml", spec, {})


def _groups(values: _Values) -> dict[str, GroupSection]:
    return {key: _group(key, table) for (name, key), table in values.items() if name == GROUPS}


def _group(name: str, table: object) -> GroupSection:
    if not GROUP_NAME.fullmatch(name):
        raise ConfigError(
            f"[group] {name[:80]!r} is no name: use letters, digits, dot, dash and underscore, "
            "beginning with a letter or digit, at most 64"
        )
    if not isinstance(table, dict):
        raise ConfigError(f"[group] {name} must be a section: write [group.{name}]")
    try:
        return msgspec.convert(table, GroupSection)
    except msgspec.ValidationError as exc:
        steps, sentence = why_unfit(exc)
        unknown = next((key for key in table if key not in GroupSection.__struct_fields__), None)
        if unknown is not None:
            near = _nearest(unknown, GroupSection.__struct_fields__)
            raise ConfigError(f"[group.{name}] has no key {unknown!r}{near}") from exc
        if not table:
            steps, sentence = ("max_running",), "missing; how many may run at a time, such as 2"
        raise ConfigError(f"[group.{name}] {'.'.join(steps)}: {sentence}") from exc


def _secrets(values: _Values) -> dict[str, SecretSource]:
    return {key: _source(key, value) for (name, key), value in values.items() if name == SECRETS}


def _source(name: str, table: object) -> SecretSource:
    """Nothing of `table` is repeated: people put values where names belong."""
    if not SECRET_NAME.fullmatch(name):
        raise ConfigError(
            f"[secrets] {name[:80]!r} is no name: use letters, digits, _ . and -, at most 128"
        )
    try:
        source = msgspec.convert(table, SecretSource, dec_hook=_path)
    except msgspec.ValidationError:
        source = SecretSource()
    if (source.env is None) == (source.file is None) or source.env == "":
        raise ConfigError(
            f'[secrets] {name} must be {{ env = "VARIABLE" }} or {{ file = "path" }}, with '
            'jobs = ["App/Job"] if only these may have it; the value itself never stands here'
        )
    return source


def _path(kind: type, value: object) -> Path:
    if kind is Path and isinstance(value, str) and value and "\0" not in value:
        return Path(value)
    raise ValueError("expected a path")
