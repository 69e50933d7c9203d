"""All that is wrong with a `jobbus.toml` at once, with lines. No IO."""

import re
from pathlib import Path
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from bus.errors import ConfigError
from bus.job_definition import Mistake
from handlers.calendars.calendar_set import Written, examined
from handlers.catalog.layers import Layer
from handlers.catalog.problem import shown
from handlers.catalog.toml_lines import Path as Keys
from handlers.catalog.toml_lines import line_of
from jobbus.service.settings import Settings
from jobbus.service.settings_reading import (
    CALENDARS,
    FILE_SIZE_MAX,
    settings_in,
    with_whole_paths,
)

MISTAKES_MAX: Final = 200

_NAMED: Final = re.compile(r"\[+([^\[\]\s]+)\]+(?:(?: has no key)? '([^']+)'| ([\w.-]+))?")


class Reading(NamedTuple):
    """What a file comes to. Without what is wrong its `settings` count as they would; None where
    even that cannot be said."""

    mistakes: list[Mistake]
    settings: Settings | None


def read_settings(content: bytes, path: Path, shown_as: str) -> Reading:
    """The settings in a file, with each mistake: what is wrong is left out, and the rest looked at
    again, until nothing is."""
    layer = Layer(shown_as, content, FILE_SIZE_MAX)
    if layer.fault is not None:
        reason, line = layer.fault.reason, layer.fault.line
        return Reading([Mistake(file=shown_as, line=line, reason=reason)], None)
    found: dict[str, Mistake] = {}
    torn: set[Keys] = set()
    calendars = _calendars(layer, path, found)
    while len(found) < MISTAKES_MAX:
        try:
            settings = settings_in(layer.document, path)
            return Reading(list(found.values()), replace(settings, calendars=calendars))
        except ConfigError as wrong:
            reason = str(wrong).removeprefix(f"{path}: ")
            keys = _place_of(reason, layer.document)
            line = line_of(keys, layer.lines) if keys else 0
            if keys not in torn:  # else it says what is missing since it was left out
                mistake = Mistake(file=shown_as, line=line, reason=reason, key=shown(keys))
                found.setdefault(reason, mistake)
            if not keys:
                break
            _leave_out(layer.document, keys)
            torn.add(keys[:-1])
    return Reading(list(found.values()), None)


def _calendars(layer: Layer, path: Path, found: dict[str, Mistake]) -> Written:
    """What the file says of calendars and blackouts, taken out of its document; `found` has what is
    wrong with that from then on."""
    own = {kind: each for kind in CALENDARS if isinstance(each := layer.document.get(kind), dict)}
    for kind in own:
        del layer.document[kind]
    spec, problems, _ = examined(with_whole_paths(own, path))
    for each in problems:
        line = line_of(each.path, layer.lines)
        mistake = Mistake(file=layer.file, line=line, reason=each.reason, key=shown(each.path))
        found[f"{mistake.key} {mistake.reason}"] = mistake
    return Written(layer.file, spec, layer.lines)


def _place_of(reason: str, document: dict[str, Any]) -> Keys:
    """The key that a sentence names and that stands in the document, as far as it does."""
    for section, unknown, key in _NAMED.findall(reason):
        names = (*section.split("."), *([unknown] if unknown else key.split(".") if key else ()))
        keys: Keys = ()
        inner: Any = document
        for name in names:
            if not isinstance(inner, dict) or name not in inner:
                break
            inner, keys = inner[name], (*keys, name)
        if keys:
            return keys
    bare = re.match(r"(\w+) must be a section", reason)
    return (bare[1],) if bare and bare[1] in document else ()


def _leave_out(document: dict[str, Any], keys: Keys) -> None:
    *above, last = keys
    for key in above:
        document = document[key]  # type: ignore[index]  # keys of tables are texts
    del document[last]  # type: ignore[arg-type]
