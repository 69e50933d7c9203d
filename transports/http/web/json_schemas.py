"""JSON schemas of our records in the forms that generators of clients take best. No IO.

msgspec makes them; here unions become `oneOf`, what may be null says so in `type`, and a type that
several records use is named once.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

Schema = dict[str, Any]
Named = Mapping[str, Any]
"""Unions that get a name of their own, by this name."""

REF = "#/components/schemas/"
_SUFFIXES = ("View", "Record", "Document")
"""Ends of names that say what a class is for in here, and nothing to those outside."""


class Schemas:
    """The components of all `types`, and where to find each."""

    def __init__(self, types: Iterable[Any], named: Named) -> None:
        wanted = list(dict.fromkeys((*named.values(), *types)))
        made, components = msgspec.json.schema_components(wanted, ref_template=f"{REF}{{name}}")
        names = _outside_names(components)
        unions = {str(made[at]): name for at, name in enumerate(named)}
        self.components = {
            names[name]: _plain(schema, names, unions) | _title(names[name], schema)
            for name, schema in components.items()
        }
        for at, name in enumerate(named):
            assert name not in self.components, name
            self.components[name] = {"title": name} | _plain(made[at], names, {})
        self._of = {
            type_: _plain(schema, names, unions) for type_, schema in zip(wanted, made, strict=True)
        }

    def of(self, type_: Any) -> Any:
        return self._of[type_]


def _outside_names(components: Iterable[str]) -> dict[str, str]:
    """The names without our suffixes, where that leaves them apart."""
    found: dict[str, str] = {}
    taken = set(components)
    for name in sorted(taken):
        plain = next((name.removesuffix(end) for end in _SUFFIXES if name.endswith(end)), name)
        found[name] = name if plain != name and plain in taken else plain
    assert len(set(found.values())) == len(found), found
    return found


def _title(name: str, schema: Schema) -> Schema:
    return {"title": name} if "title" in schema else {}


def _plain(schema: Any, names: Mapping[str, str], unions: Mapping[str, str]) -> Any:
    """The schema and all in it."""
    if isinstance(schema, list):
        return [_plain(each, names, unions) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if str(_without_default(schema)) in unions:
        name = unions[str(_without_default(schema))]
        return {"$ref": REF + name}
    plain = {key: _plain(value, names, unions) for key, value in schema.items()}
    if "default" in plain and plain["default"] in (None, {}, (), [], ""):
        del plain["default"]  # says no more than that it may be absent, and some stumble over it
    if "$ref" in plain and plain["$ref"].startswith(REF):
        plain["$ref"] = REF + names[plain["$ref"].removeprefix(REF)]
    if "discriminator" in plain and "mapping" in plain["discriminator"]:
        mapping = plain["discriminator"]["mapping"]
        plain["discriminator"] = plain["discriminator"] | {
            "mapping": {
                word: REF + names[at.removeprefix(REF)] for word, at in sorted(mapping.items())
            }
        }
    if "enum" in plain:
        return _of_words(plain)
    return _of_one(plain) if "anyOf" in plain else plain


def _without_default(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key != "default"}


def _of_words(schema: Schema) -> Schema:
    """A single word is a constant; several have their type beside them."""
    words = schema["enum"]
    kind = "boolean" if isinstance(words[0], bool) else "string"
    if len(words) == 1 and "title" not in schema:
        rest = {key: value for key, value in schema.items() if key != "enum"}
        return {"type": kind, "const": words[0]} | rest
    return schema | {"type": kind}


def _of_one(schema: Schema) -> Schema:
    """`anyOf`, of which never two fit: `oneOf`, or one schema of several types."""
    parts = schema["anyOf"]
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    if {} in parts:
        return rest  # anything fits
    others = [part for part in parts if "$ref" in part]
    inline = [part for part in parts if "$ref" not in part]
    if not inline:
        return {"oneOf": others} | rest
    joined: Schema = {}
    for part in inline:
        joined |= part
    types = [part["type"] for part in inline]
    joined["type"] = types[0] if len(types) == 1 else types
    return ({"oneOf": [*others, joined]} if others else joined) | rest
