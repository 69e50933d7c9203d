"""How far a job is, on stderr: a bar on a terminal, otherwise a line now and then."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from jobbus.cli.show import clean, say
from jobbus.cli.terminal import Harmless
from jobbus.cli.words import ending_word, percent_word, progress_word
from jobbus.client.records import Execution

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

_STEP = 10.0
"""Percent between two lines where there is no terminal."""

_OPEN_LINE_MAX = 65_536


class ProgressDisplay(Protocol):
    def show(self, execution: Execution) -> None:
        """The execution is shown as it is now, if that is worth a line."""
        ...

    def write(self, text: str) -> None:
        """Output of the execution goes to stdout."""
        ...


@contextmanager
def progress_display() -> Iterator[ProgressDisplay]:
    """A display that fits stderr, and is gone after the block."""
    if not sys.stderr.isatty():
        yield LineDisplay()
        return
    from rich.console import Console  # here: 100 ms that only a terminal has to pay
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.fields[job]}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[percent]}", markup=False),
        TextColumn("{task.fields[message]}", markup=False),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=True,
    )
    with bar:
        display = BarDisplay(bar)
        yield display
        display.flush()


class LineDisplay:
    """A line for each new state and each ten percent."""

    def __init__(self) -> None:
        self._status = ""
        self._percent = 0.0
        self._note = ""
        self._harmless = Harmless()

    def show(self, execution: Execution) -> None:
        progress = execution.progress
        if progress is not None and progress.note != self._note:
            self._note = progress.note
            say(f"{execution.job_id}: {self._note}")
        percent = progress.percent if progress else None
        moved = percent is not None and percent - self._percent >= _STEP
        if execution.has_ended or (execution.status == self._status and not moved):
            return  # the end is said by the command that follows it
        self._status = execution.status
        self._percent = percent if percent is not None else self._percent
        words = (ending_word(execution, time.time()), progress_word(execution))
        say(f"{execution.job_id}: {' '.join(words)}".rstrip())

    def write(self, text: str) -> None:
        sys.stdout.write(self._harmless.of(text) if sys.stdout.isatty() else text)
        sys.stdout.flush()


class BarDisplay:
    """A bar of rich; on the same terminal, output is printed above it, line by line."""

    def __init__(self, bar: "RichProgress") -> None:
        self._bar = bar
        self._task = bar.add_task("", total=None, job="", percent="", message="")
        self._shares_terminal = sys.stdout.isatty()
        self._harmless = Harmless()
        self._open_line = ""

    def show(self, execution: Execution) -> None:
        progress = execution.progress
        percent = progress.percent if progress else None
        self._bar.update(
            self._task,
            total=100.0 if percent is not None else None,
            completed=percent or 0.0,
            job=execution.job_id,
            percent=percent_word(progress),
            message=clean(progress.message if progress else ending_word(execution, time.time())),
        )

    def write(self, text: str) -> None:
        if not self._shares_terminal:
            sys.stdout.write(text)
            sys.stdout.flush()
            return
        *lines, self._open_line = (self._open_line + self._harmless.of(text)).split("\n")
        if lines:
            self._print("\n".join(lines))
        if len(self._open_line) > _OPEN_LINE_MAX:
            self.flush()

    def flush(self) -> None:
        """A last line without its end is shown too."""
        if self._open_line:
            self._print(self._open_line)
            self._open_line = ""

    def _print(self, text: str) -> None:
        from rich.text import Text  # loaded with the bar

        # Without soft_wrap, long lines would be broken where they are copied.
        self._bar.console.print(Text.from_ansi(text), soft_wrap=True, highlight=False)
