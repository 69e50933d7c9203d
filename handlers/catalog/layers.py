"""The files that one definition is made of, laid over one another: the site's `defaults.toml`, the
app's, and `job.toml`. Pure.

Tables are merged key by key; everything else, lists included, is replaced by the nearer file. What
is left of each file is remembered, so that a fault is reported where it was written.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple

from bus.toml_text import TomlFault, parse_toml, toml_text
from handlers.catalog.problem import shown
from handlers.catalog.toml_lines import Path, key_lines

SIZE_MAX: Final = 256 * 1024
"""Bytes of one file, and of all files of one definition together."""

OF_ONE_JOB: Final = frozenset(("name", "formerly"))
"""Keys that say which job it is: as a default they would say the same of all."""


class Layer:
    """One file, read. With `fault` its `document` is empty."""

    def __init__(self, file: str, content: bytes, size_max: int = SIZE_MAX) -> None:
        self.file = file
        self.size = len(content)
        self.fault: TomlFault | None = None
        self.document: dict[str, Any] = {}
        self._text = ""
        if len(content) > size_max:
            self.fault = TomlFault(0, 0, f"is larger than {size_max // 1024} KiB")
            return
        try:
            self._text = toml_text(content)
            self.document = parse_toml(self._text)
        except TomlFault as fault:
            self.fault = fault
        except RecursionError:
            self.fault = TomlFault(0, 0, "lists or tables are nested too deeply")

    @cached_property
    def lines(self) -> dict[Path, int]:
        """Where each key stands; only needed for faults, and of defaults."""
        return key_lines(self._text) if self.fault is None else {}


class Place(NamedTuple):
    """Where something was written; `rank` is 0 in the job's own file, then rises."""

    rank: int
    line: int
    file: str


class Layers:
    """A job's own file over its defaults, the nearest first."""

    def __init__(self, own: Layer, defaults: Sequence[Layer] = ()) -> None:
        self._layers = (own, *defaults)
        self.origins: dict[str, str] = {}
        """Keys that come from defaults, each with `file:line`."""
        self.document: Mapping[str, Any] = own.document
        if any(layer.document for layer in defaults):
            self._merge()

    @property
    def broken(self) -> list[Layer]:
        """Those that are no TOML."""
        return [layer for layer in self._layers if layer.fault is not None]

    @property
    def lines(self) -> set[Path]:
        """All that stands in one of the files."""
        return {path for layer in self._layers for path in layer.lines}

    @property
    def size(self) -> int:
        return sum(layer.size for layer in self._layers)

    def place_of(self, path: Path) -> Place:
        """Where `path` was written, or the nearest thing around it; else the top of the job's own
        file."""
        for length in range(len(path), 0, -1):
            for rank, layer in enumerate(self._layers):
                line = layer.lines.get(path[:length])
                if line is not None:
                    return Place(rank, line, layer.file)
        return Place(0, 1, self._layers[0].file)

    def defaults_with(self, keys: frozenset[str]) -> list[str]:
        """Which of the keys stand at the top of a default and are in force from there."""
        own = self._layers[0].document
        return [
            key
            for key in keys
            if key not in own and any(key in layer.document for layer in self._layers[1:])
        ]

    def _merge(self) -> None:
        merged: dict[str, Any] = {}
        origins: dict[Path, Layer] = {}
        own = self._layers[0]
        for layer in reversed(self._layers):
            _lay(merged, layer.document, (), layer, origins)
        self.document = merged
        self.origins = {
            shown(path): f"{layer.file}:{layer.lines.get(path, 1)}"
            for path, layer in origins.items()
            if layer is not own
        }


def _lay(
    into: dict[str, Any],
    over: Mapping[str, Any],
    path: Path,
    layer: Layer,
    origins: dict[Path, Layer],
) -> None:
    """`over` is laid into `into`; `origins` are the leaves, by path, with the layer they are of."""
    for key, value in over.items():
        here = (*path, key)
        if not isinstance(value, dict):
            if isinstance(into.get(key), dict):
                _forget(origins, here)
            into[key] = value
            origins[here] = layer
            continue
        if not isinstance(into.get(key), dict):
            origins.pop(here, None)
            into[key] = {}
        _lay(into[key], value, here, layer, origins)


def _forget(origins: dict[Path, Layer], path: Path) -> None:
    for each in [each for each in origins if each[: len(path)] == path]:
        del origins[each]
