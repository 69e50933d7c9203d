"""TOML that people get wrong: the place, the line, and what would be right, in our own words."""

import re
import tomllib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bus.toml_text import TomlFault, parse_toml, toml_text

FOREIGN = re.compile(
    r"Expected|Invalid|Illegal|Unclosed|Unterminated|Unescaped|Cannot|Duplicate|namespace|Exceeds|"
    r"codec|at line|end of document|Unicode scalar|\('"
)
"""Words of the parser, which no sentence may hold."""

VALID = """\
# a job
command = ["sh", "-c", 'echo "a" \\d']
timeout_s = 30
when = 2026-01-31T18:00:00Z
text = \"\"\"
several "lines"
\"\"\"
[roles]
start = [
  "a",  # one
  "b",
]
[[schedule]]
cron = "0 6 * * *"
inline = { a = 1, b = [true, false] }
"""

FAULTS: list[tuple[str, tuple[int, int], str]] = [
    # quotes
    ('name = "abc\nb = 1\n', (1, 8), 'not closed on its line: " is missing'),
    ("name = 'abc\n", (1, 8), "not closed on its line: ' is missing"),
    ('a = 1\nname = """abc\n', (2, 8), 'not closed: """ is missing'),
    ("name = abc\n", (1, 8), 'text stands in quotes: "abc"'),
    ("name = \u201cabc\u201d\n", (1, 8), "plain quotes"),
    ('name = "say "hi""\n', (1, 14), "a quote within it"),
    # the sign between
    ('name "abc"\n', (1, 6), "= belongs between"),
    ('name: "abc"\n', (1, 5), "write = in the place of the colon"),
    ("max running = 1\n", (1, 5), "a key has no blanks"),
    ("name\n", (1, 5), "a key stands alone"),
    ("a =\n", (1, 4), "a value belongs behind ="),
    ("= 1\n", (1, 1), "a key belongs before ="),
    # twice
    ("a = 1\n\na = 2\n", (3, 1), '"a" is there already, in line 1'),
    ("[a]\nx = 1\n[b]\n[a] # again\n", (4, 1), '"[a]" is there already, in line 1'),
    ("[[a]]\n[a]\n", (2, 1), '"[a]" is there already'),
    ("a.b = 1\na = 2\n", (2, 1), '"a" is there already'),
    ("a = {b = 1, b = 2}\n", (1, 1), '"a" is there already'),
    # backslashes
    ('p = "C:\\x"\n', (1, 8), "written twice"),
    ('p = "C:\\Users"\n', (1, 8), "single quotes: 'C:\\Temp'"),
    ('p = "\\ud800"\n', (1, 6), "stands for no character"),
    # signs that do not show
    ("\ufeffa = 1\n", (1, 1), "invisible character (U+FEFF)"),
    ("a\u00a0= 1\n", (1, 2), "invisible character (U+00A0)"),
    ('a = "\x01"\n', (1, 6), "invisible character (U+0001)"),
    ("a = 1\rb = 2\n", (1, 6), "line feed"),
    # words
    ("a = True\n", (1, 5), "write true, in small letters"),
    ("a = no\n", (1, 5), "write false"),
    ("a = null\n", (1, 5), "no null in TOML"),
    # brackets
    ('c = [\n  "a",\n', (1, 5), "the list that begins in line 1 is not closed"),
    ('c = ["a"\nm = 2\n', (2, 1), "the list that begins in line 1 is not closed"),
    ('c = ["a",\nm = 2\n', (2, 1), "the list that begins in line 1 is not closed"),
    ('c = ["a" "b"]\n', (1, 10), "a comma or ] is missing"),
    ("c = [1,, 2]\n", (1, 8), "a value is missing before the comma"),
    ("c = {\n a = 1 }\n", (1, 6), "on one line"),
    ("c = {a = 1,}\n", (1, 12), "none at the end"),
    ("[serve\n", (1, 7), "] is missing"),
    ("[[serve]\n", (1, 8), "ends with two"),
    ("[]\n", (1, 2), "a table has a name"),
    # numbers and dates
    ("a = 0022\n", (1, 6), 'quote it: "0022"'),
    ("a = 10s\n", (1, 7), 'quote it: "10s"'),
    ("a = 1,5\n", (1, 6), "a number has a point"),
    ("a = .5\n", (1, 5), "begins with a digit"),
    ("a = 2026-13-01\n", (1, 9), "this is no date"),
    (f"a = {'9' * 5000}\n", (1, 5), "too many digits"),
    # other languages
    ("// a\n", (1, 1), "a comment begins with #"),
    ('{"a": 1}\n', (1, 1), "braces belong to JSON"),
    ("a = 1 b = 2\n", (1, 7), "one line holds one key"),
]


@pytest.mark.parametrize(("text", "place", "words"), FAULTS)
def test_fault_has_its_place_its_line_and_what_would_be_right(
    text: str, place: tuple[int, int], words: str
) -> None:
    for whole, more in ((text, 0), (f"x = 0\r\n\r\n{text}", 2)):
        with pytest.raises(TomlFault) as caught:
            parse_toml(whole)
        fault = caught.value
        assert (fault.line - more, fault.column) == place
        assert words in fault.reason.replace("line 3", "line 1")
        assert FOREIGN.search(fault.reason) is None
        shown = whole.replace("\r\n", "\n").split("\n")[fault.line - 1].strip()[:20]
        if shown.isprintable():
            assert shown in fault.reason


@given(at=st.integers(0, len(VALID)), sign=st.sampled_from(["", *"\"'[]{}=,#\\.\nx0 \t\r"]))
@example(at=VALID.index("]\n[[s"), sign="")
def test_one_wrong_sign_anywhere_is_read_or_named_in_our_words(at: int, sign: str) -> None:
    text = VALID[:at] + sign + VALID[at + (not sign) :]
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        with pytest.raises(TomlFault) as caught:
            parse_toml(text)
        assert 1 <= caught.value.line <= text.count("\n") + 1
        assert FOREIGN.search(caught.value.reason) is None
    else:
        parse_toml(text)


@given(st.text(st.sampled_from("ab\"'[]{}=,#\\.\n0 \t\u00a0-:"), max_size=40))
def test_no_text_breaks_what_looks_for_the_fault(text: str) -> None:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        with pytest.raises(TomlFault) as caught:
            parse_toml(text)
        assert FOREIGN.search(caught.value.reason) is None


@pytest.mark.parametrize(
    ("content", "words"),
    [(VALID.encode("utf-16"), "UTF-16"), (b"a = 'Gr\xfcn'", "is not UTF-8 here")],
)
def test_other_encodings_are_named(content: bytes, words: str) -> None:
    with pytest.raises(TomlFault, match=words) as caught:
        toml_text(content)
    assert caught.value.line == 1
