"""Regular expressions that users write: what they may be, and whether a text matches. Pure.

RE2 reads each character once, whatever the expression: no text holds up the service. Why, and
what that costs: docs/adr/0004-patterns-take-linear-time.md.
"""

import re
from functools import lru_cache

import re2

MEMORY_BYTES = 1 << 20
"""Of one expression, its program and what a match may use; those in use at a time are 128."""

STEPS_MAX = 16_000_000
"""Of all expressions of a job together: the size of each program times the characters of its text.
At worst that is half a second; mostly, as RE2 remembers where it was, a millisecond."""

_SILENT = re.compile(r"(?<!\\)(?:\\\\)*\{,\d+\}")
"""Python's `{,5}`, which RE2 takes for these four characters."""

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False
_OPTIONS.never_capture = True
_OPTIONS.max_mem = MEMORY_BYTES

_WORDS: tuple[tuple[str, str], ...] = (
    (
        r"invalid perl operator: (\(\?<?[=!])",
        "{0} looks ahead or behind, which patterns here cannot do: say what the whole text may be, "
        'e.g. "[a-z][a-z-]*" for "not -, then letters", or let the program check the rest',
    ),
    (
        r"invalid escape sequence: \\([1-9])|invalid perl operator: \(\?P",
        "it refers back to a group, which patterns here cannot do: write the repeated part out, "
        "or let the program check it",
    ),
    (
        r"invalid perl operator: (.+)",
        "{0} is not known here: groups are ( ), (?: ) and (?P<name> ), flags (?i), (?s) and (?m)",
    ),
    (
        r"invalid escape sequence: \\Z",
        r"\Z is not known here and not needed: it always means the whole text",
    ),
    (
        r"invalid escape sequence: \\u",
        r"\u is not known here: write the character itself, or \x{{20ac}}",
    ),
    (
        r"invalid escape sequence: (.+)",
        "{0} is not known here; a character that is meant as itself may be written without \\",
    ),
    (
        r"bad repetition operator: (.+)",
        "{0} repeats a repetition: put the inner one into (?: ), and leave a second + out",
    ),
    (
        r"invalid repetition size: (.+)",
        "{0} is no repetition: counts go up to 1000, the first not above the second; "
        "max_length bounds the whole text",
    ),
    (
        r"no argument for repetition operator: (.+)",
        r"there is nothing before {0} to repeat; \{0} means the character",
    ),
    (r"missing \)", r"a ( is never closed; \( means the character"),
    (r"unexpected \)", r"a ) was never opened; \) means the character"),
    (r"missing \]", r"a [ is never closed; \[ means the character"),
    (r"trailing \\", r"it ends with a single \; \\ means the character"),
    (r"invalid character class range: (.+)", "{0} is no range or class of characters"),
    (r"invalid named capture group: (.+)", "{0} is no group with a name, which is (?P<name> )"),
    (
        r"pattern too large",
        "it is too large: write [a-z]+ and a max_length in place of a high count such as "
        "[a-z]{{1,900}}",
    ),
)


class NotUsable(ValueError):
    """A sentence that says what is wrong with an expression, and what to write."""


def matches(expression: str, text: str) -> bool:
    """Whether `text` matches as a whole, as `re.fullmatch` understands it.

    Raises:
        NotUsable: see `check_expression`.
    """
    return _compiled(expression).fullmatch(text) is not None


def is_in(expression: str, text: str) -> bool:
    """Whether some part of `text` matches, as `re.search` understands it.

    Raises:
        NotUsable: see `check_expression`.
    """
    return _compiled(expression).search(text) is not None


def check_expression(expression: str, length_max: int | None = None) -> None:
    """The expression can be used, on texts of up to `length_max` characters in bounded time.

    Raises:
        NotUsable: it cannot.
    """
    if not expression:
        raise NotUsable("is an empty regular expression")
    silent = _SILENT.search(expression)
    if silent is not None:
        raise NotUsable(f"has {silent[0]}, which means these characters: write {{0{silent[0][1:]}")
    size = program_size(expression)
    if length_max is not None and size * length_max > STEPS_MAX:
        raise NotUsable(
            f"takes too long on {length_max} characters: set max_length to at most "
            f"{STEPS_MAX // size}, or write [a-z]+ in place of a high count such as [a-z]{{1,900}}"
        )


def program_size(expression: str) -> int:
    """In how many places of the expression a match may be at a time."""
    size: int = _compiled(expression)._regexp.ProgramSize()
    return size


@lru_cache(maxsize=128)
def _compiled(expression: str) -> "re2._Regexp":
    try:
        return re2.compile(expression, _OPTIONS)
    except (re2.error, UnicodeEncodeError) as error:
        raise NotUsable(f"is no regular expression: {_in_words(error)}") from None


def _in_words(error: Exception) -> str:
    said = error.args[0]
    said = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    for form, sentence in _WORDS:
        found = re.match(form, said)
        if found is not None:
            return sentence.format(*found.groups())
    return "it cannot be read"
