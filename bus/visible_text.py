"""What a person can see of a text that others wrote. Pure.

Control characters command a terminal; marks of direction turn text around; others show nothing and
make two names look the same (CWE-150, UTS #39). Each is replaced by a sign, so that what stands on
a screen is what there is.
"""

import re
import unicodedata

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

# Unicode's Default_Ignorable_Code_Point, and what shows as a blank without being one.
_INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000133fc-\U0001345f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
HIDDEN = f"[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f{_INVISIBLE}]"
"""An expression for one character that shows nothing, but for line ends, tabs and CR."""

_HIDDEN = re.compile(HIDDEN)
_STYLES = "\ufe0e\ufe0f"
_JOINERS = "\u200c\u200d"
_JOINED_SCRIPTS = (
    (0x0600, 0x08FF), (0x0900, 0x0DFF), (0x1000, 0x109F), (0x1780, 0x18AF), (0xFB50, 0xFDFF),
)  # fmt: skip


def belongs(character: str, before: str) -> bool:
    """Whether the invisible character is spelling: of an emoji, or of a script that joins letters.

    `before` stands before it; empty at the beginning.
    """
    if not before:
        return False
    if character in _STYLES:
        return unicodedata.category(before) in ("So", "Sm") or before in "0123456789#*"
    if character in _JOINERS:
        is_emoji = unicodedata.category(before) in ("So", "Sk") or before == "\ufe0f"
        number = ord(before)
        return is_emoji or any(low <= number <= high for low, high in _JOINED_SCRIPTS)
    return False


def visible(text: str, *, lines: bool = False) -> str:
    """`text` on one line, each character of which can be seen or is a blank; with `lines`, on
    several."""
    if text.isascii() and text.isprintable():
        return text  # nearly always
    text = _HIDDEN.sub(lambda m: _shown(m, text), text)
    kept = "\n" if lines else ""
    return "".join(c if c in kept or c.isprintable() or _is_known(c) else REPLACEMENT for c in text)


def hides(text: str) -> bool:
    """Whether something in `text` does not show as what it is."""
    return visible(text) != text


def visible_json(text: str) -> str:
    """JSON that means the same, with an escape for every character that shows nothing."""
    return _HIDDEN.sub(lambda match: _escaped(match[0]), text)


def _shown(match: re.Match[str], text: str) -> str:
    before = text[match.start() - 1 : match.start()] if match.start() else ""
    return match[0] if belongs(match[0], before) else REPLACEMENT


def _is_known(character: str) -> bool:
    return character in _STYLES + _JOINERS or unicodedata.category(character) == "Zs"


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
