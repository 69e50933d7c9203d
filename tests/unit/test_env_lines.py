"""An `env_file`: what all readers agree on is taken, and everything else refused with its line."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.catalog.env_lines import LineFault, parse_env

TEXT = """\
# a comment
; another

PLAIN=value with blanks
  export SPACED = trimmed
EMPTY=
HASH=a#b
SINGLE='as $it "stands" \\n # there'
DOUBLE="a \\"quote\\", \\$5 and \\\\"   # a comment
LINES="first
second"
URL=https://user:pw@host/?a=b&c=d
PLAIN=later
"""


def test_lines_are_read_as_all_readers_read_them() -> None:
    assert parse_env(TEXT) == {
        "PLAIN": "later",
        "SPACED": "trimmed",
        "EMPTY": "",
        "HASH": "a#b",
        "SINGLE": 'as $it "stands" \\n # there',
        "DOUBLE": 'a "quote", $5 and \\',
        "LINES": "first\nsecond",
        "URL": "https://user:pw@host/?a=b&c=d",
    }
    assert parse_env(TEXT.replace("\n", "\r\n")) == parse_env(TEXT)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("no assignment", "is no NAME=VALUE"),
        ("=value", "is no NAME=VALUE"),
        ("1ST=x", "what stands before the = cannot be the name of a variable"),
        ("A-B=x", "what stands before the = cannot be the name of a variable"),
        ("JOBBUS_JOB_ID=x", "JOBBUS_JOB_ID is set by jobbus itself"),
        ("NOTIFY_SOCKET=x", "NOTIFY_SOCKET is set by jobbus itself"),
        ("A=b # c", "put the value in quotes if it belongs to it"),
        ("A=C:\\dir", "put the value in single quotes"),
        ("A=$HOME", "put the value in single quotes"),
        ('A="$HOME"', "write \\$"),
        ('A="C:\\dir"', "put the value in single quotes"),
        ('A="open', "the quote that begins there is not closed: A"),
        ("A='x'y", "something stands behind the closing quote"),
        ("A=x\0", "holds a NUL character"),
        ("A='\nx\0'", "line 4: holds a NUL character"),
    ],
)
def test_line_that_readers_disagree_on_is_refused_with_its_number(line: str, words: str) -> None:
    with pytest.raises(LineFault) as caught:
        parse_env(f"GOOD=1\n\n{line}\n")
    assert str(caught.value).startswith(("line 3: ", words))
    assert words in str(caught.value)


@pytest.mark.parametrize("line", ["hunter2+/=", "hunter2", "A='hunter2' hunter2", "A=$hunter2"])
def test_fault_says_nothing_of_what_the_file_holds(line: str) -> None:
    with pytest.raises(LineFault) as caught:
        parse_env(line)
    assert "hunter2" not in str(caught.value)


def test_quotes_over_very_many_lines_are_read_once() -> None:
    """Each line that was read again with all before it made a file of this size take hours."""
    lines = "\n" * 120_000
    assert parse_env(f'A="{lines}"') == {"A": lines}
    with pytest.raises(LineFault, match="is not closed"):
        parse_env(f"A='{lines}")


VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=20)


@given(VALUES)
def test_any_value_has_a_spelling_in_double_quotes(value: str) -> None:
    escaped = "".join(f"\\{sign}" if sign in '\\"$`' else sign for sign in value)
    assert parse_env(f'A="{escaped}"\nB=2') == {"A": value, "B": "2"}


def test_a_shell_that_reads_the_file_finds_the_same(tmp_path: Path) -> None:
    """But for comments with a semicolon, blanks around the sign, and values without quotes."""
    text = "\n".join(
        line for line in TEXT.split("\n") if not line.startswith((";", "  ", "PLAIN", "URL"))
    )
    (tmp_path / "it.env").write_text(text)
    names = list(parse_env(text))
    script = (
        ". ./it.env; for n in "
        + " ".join(names)
        + '; do eval "printf %s \\"\\$$n\\""; printf "|"; done'
    )
    shell = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, check=True)
    assert shell.stdout.decode().split("|")[:-1] == list(parse_env(text).values())
