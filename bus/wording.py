"""How faulty input is shown back to people: quoted, cut short, with the word they meant. Pure."""

from collections.abc import Iterable
from difflib import get_close_matches

from bus.visible_text import hides

SHOWN_MAX = 60
"""Characters of faulty input that a sentence repeats."""

LISTED_MAX = 10
"""Known words that a sentence lists when none is near."""


def quoted(text: str) -> str:
    """`text` in double quotes, cut short, with everything that does not print escaped.

    The answer can be encoded and printed whatever `text` holds, lone surrogates included.
    """
    cut = text[:SHOWN_MAX]
    shown = "".join(c if c.isprintable() and not hides(c) else f"\\u{ord(c):04x}" for c in cut)
    return f'"{shown}…"' if len(text) > SHOWN_MAX else f'"{shown}"'


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a sentence that points from a wrong word to the right ones.

    `; did you mean "X"?`, else `; known are A, B`, else `` when nothing is known.
    """
    words = list(known)
    near = nearest(word, words)
    if near is not None:
        return f"; did you mean {quoted(near)}?"
    if not words:
        return ""
    more = ", …" if len(words) > LISTED_MAX else ""
    return f"; known are {', '.join(words[:LISTED_MAX])}{more}"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that a wrong one was most likely meant as."""
    folded = {candidate.casefold(): candidate for candidate in known}
    near = get_close_matches(word[:SHOWN_MAX].casefold(), folded, n=1)
    return folded[near[0]] if near else None
