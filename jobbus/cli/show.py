"""What people and programs get to see: data on stdout, talk on stderr, nothing that commands a
terminal."""

import math
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from bus.clock import from_rfc3339
from bus.visible import visible, visible_json
from jobbus.client.records import Command, Execution, Progress


def say(text: str) -> None:
    """A word to the person, on stderr."""
    print(clean(text), file=sys.stderr, flush=True)


def show_json(record: object) -> None:
    """One JSON document on one line."""
    sys.stdout.write(visible_json(msgspec.json.encode(record).decode()) + "\n")
    sys.stdout.flush()


def show_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Aligned columns, for eyes; programs take --json."""
    cells = [list(titles), *([clean(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
    for row in cells:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def show_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """One `name  value` a line, the empty ones left out."""
    given = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in given), default=0)
    for name, value in given:
        print(f"{name.ljust(width)}  {clean(value)}")


def show_command(answer: Command, *, as_json: bool) -> None:
    """A command with its status; why it did not work goes to stderr as well."""
    if as_json:
        show_json(answer)
        return
    words = [answer.command_id, answer.status]
    if answer.outcome:
        words.append(answer.outcome)
    if answer.execution_id:
        words.append(f"execution {answer.execution_id}")
    print(" ".join(words), flush=True)
    if answer.error:
        say(f"{answer.error_code}: {answer.error}")


def clean(text: str) -> str:
    """`text` as it can be seen: names and messages of others must not steer a terminal."""
    return visible(text)


def progress_word(execution: Execution) -> str:
    """How far it is, e.g. `42 % copying`."""
    progress = execution.progress
    return "" if progress is None else f"{percent_word(progress)} {progress.message}".strip()


def ending_word(execution: Execution, width: int | None = None) -> str:
    """How it ended, e.g. `failed: exit code 3`; the state and what it waits for until then.

    Cut to `width`, as far as a column has room.
    """
    if execution.not_before is not None:
        return f"{execution.status} ({waiting_word(execution)})"
    word = execution.ending or execution.status
    return word if width is None or len(word) <= width else word[: width - 1] + "…"


def percent_word(progress: Progress | None) -> str:
    """As the page says it too (`share` of app.js): `42 %`, below one `0.5 %`.

    Never rounded up, so that what is not done is not `100 %` and what has begun is not `0 %`.
    """
    if progress is None or progress.percent is None:
        return ""
    percent = progress.percent
    if not 0 < percent < 1:
        return f"{math.floor(percent)} %"
    tenths = math.floor(percent * 10)
    return f"0.{tenths} %" if tenths else "< 0.1 %"


def waiting_word(execution: Execution) -> str:
    """What an execution waits for whose delay has not passed, e.g. `retry in 4 s, attempt 2 of 3`;
    empty for any other."""
    if execution.not_before is None:
        return ""
    wait_s = from_rfc3339(execution.not_before) / 1000 - time.time()
    what = execution.cause.rpartition(":")[2] or "start"
    return f"{what} in {max(0, math.ceil(wait_s))} s, {attempt_word(execution)}"


def attempt_word(execution: Execution) -> str:
    """Which start it is, e.g. `attempt 2 of 3`."""
    of = f" of {execution.attempts}" if execution.attempts >= execution.attempt > 0 else ""
    return f"attempt {execution.attempt}{of}"


def local_time(stamp: str | None) -> str:
    """A time of the API on the clock of whoever looks."""
    if not stamp:
        return ""
    moment = datetime.fromtimestamp(from_rfc3339(stamp) / 1000, tz=UTC)
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
