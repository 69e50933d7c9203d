"""Bytes as foreign writers leave them, made the plain UTF-8 that a JSON decoder takes. Pure."""

import codecs

_MARKED = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_PADDING = b" \t\r\n\0"


def plain_json(raw: bytes) -> bytes:
    """The text without byte order mark and padding, as UTF-8.

    Raises:
        ValueError: a byte order mark promises an encoding that the rest does not keep.
    """
    if raw[:1] == b"{" and raw[-1:] in (b"}", b"\n"):
        return raw
    for mark, name in _MARKED:
        if raw.startswith(mark):
            text = raw[len(mark) :]
            if name == "utf-8":
                return text.strip(_PADDING)
            return text.decode(name).encode().strip(_PADDING)
    return raw.strip(_PADDING)


def promised(raw: bytes) -> str:
    """The name of the encoding whose byte order mark stands first."""
    return next((name[:6].upper() for mark, name in _MARKED if raw.startswith(mark)), "UTF-8")
