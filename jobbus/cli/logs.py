"""`logs`: what executions printed, and print."""

import asyncio
import shutil
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from bus.wording import quoted
from jobbus.cli.exits import CliError, Exit
from jobbus.cli.naming import execution_meant, for_each
from jobbus.cli.run import following_client, print_output, still_running
from jobbus.cli.show import clean, say
from jobbus.cli.target import HERE, Target, service_at
from jobbus.cli.terminal import Harmless
from jobbus.cli.values import moment_s
from jobbus.cli.words import local_time, seconds_of, short_ids
from jobbus.client.client import Client
from jobbus.client.frames import Frame, Gap, Output, OutputLine
from jobbus.client.records import Execution

TAIL_MAX = 10_000


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which lines are shown, and with what before them."""

    tail: int | None = None
    stream: str | None = None
    since_s: float | None = None
    times: bool = False
    prefix: str = ""

    @property
    def is_by_line(self) -> bool:
        """Whether lines have to be looked at one by one; else bytes pass as they are."""
        return (
            self.times or self.stream is not None or self.since_s is not None or bool(self.prefix)
        )

    def takes(self, line: OutputLine) -> bool:
        """Whether the line is to be shown."""
        if self.stream is not None and line.stream != self.stream:
            return False
        if self.since_s is None:
            return True
        return line.time is not None and seconds_of(line.time) >= self.since_s

    def shown(self, line: OutputLine) -> str:
        """The line as it is printed, with its end if it has any."""
        end = "" if line.more else "\n"
        if line.continued:
            return f"{line.text}{end}"
        stamp = f"{local_time(line.time)}  " if self.times else ""
        return f"{self.prefix}{stamp}{line.text}{end}"


async def logs(
    what: tuple[str, ...],
    /,
    *,
    follow: Annotated[
        bool, Parameter(name=("--follow", "-f"), negative=(), help="Go on until it has ended")
    ] = False,
    tail: Annotated[
        int | None,
        Parameter(
            name=("--tail", "-n"), help="Only the last lines, 0 to 10000", show_default=False
        ),
    ] = None,
    times: Annotated[
        bool, Parameter(name=("--times", "-t"), negative=(), help="Say when each line was printed")
    ] = False,
    since: Annotated[
        str | None,
        Parameter(
            help="Only lines from then on: 10m, 2h, or 2026-01-26T18:00:00Z", show_default=False
        ),
    ] = None,
    stream: Annotated[
        str | None, Parameter(help="Only what went to out, or to err", show_default=False)
    ] = None,
    raw: Annotated[
        bool, Parameter(negative=(), help="On a terminal, too, every byte as it was printed")
    ] = False,
    target: Target = HERE,
) -> int:
    """Show what executions have printed. On a terminal colours pass, and any other character that
    would command it is shown as a sign.

    Parameters
    ----------
    what
        Ids of executions, of the commands that made them, or of jobs (App/Job), for the newest.
    """
    selection = _selection(tail, stream, since, times)
    async with following_client(*service_at(target)) as client:
        if follow and len(what) > 1:
            return await _follow_all(client, what, selection, raw=raw)

        async def show(word: str) -> int:
            execution = await execution_meant(client, word)
            if len(what) > 1:
                _write(f"==> {execution.execution_id} {execution.job_id} <==\n")
            if not follow:
                await _show_so_far(client, execution.execution_id, selection, raw=raw)
                return Exit.OK
            try:
                await _follow(client, execution.execution_id, selection, raw=raw)
            except asyncio.CancelledError:
                if not execution.has_ended:
                    say(still_running(execution.execution_id))
                raise
            return Exit.OK

        return await for_each(what, show)


def _selection(tail: int | None, stream: str | None, since: str | None, times: bool) -> Selection:
    if tail is not None and not 0 <= tail <= TAIL_MAX:
        raise CliError(f"--tail must be from 0 to {TAIL_MAX}, not {tail}", Exit.USAGE)
    if stream is not None and stream not in ("out", "err"):
        raise CliError(f"--stream must be out or err, not {quoted(stream)}", Exit.USAGE)
    since_s = moment_s("--since", since, time.time()) if since is not None else None
    return Selection(tail=tail, stream=stream, since_s=since_s, times=times)


async def _show_so_far(
    client: Client, execution_id: str, selection: Selection, *, raw: bool
) -> None:
    if selection.is_by_line:
        with _writing(raw=raw) as write:
            await _show_lines(client, execution_id, selection, write, open_too=True)
        return
    pieces = client.output(execution_id, tail=selection.tail)
    async with aclosing(pieces):
        await _show_bytes(pieces, raw=raw)


async def _show_bytes(pieces: AsyncIterator[bytes], *, raw: bool) -> None:
    if raw or not sys.stdout.isatty():
        async for piece in pieces:
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        return
    harmless = Harmless()
    async for piece in pieces:
        _write(harmless.of_bytes(piece))
    _write(harmless.end())


async def _show_lines(
    client: Client,
    execution_id: str,
    selection: Selection,
    write: Callable[[str], None],
    *,
    open_too: bool = False,
) -> int:
    """The lines so far that are selected were written; the offset at which to go on.

    The last line may still be open: with `open_too` it is written, too.
    """
    last: deque[str] = deque(maxlen=selection.tail)
    at = 0
    while True:
        page = await client.output_lines(execution_id, start=at, stream=selection.stream)
        is_last = page.next <= at or page.next >= page.end
        for line in page.lines:
            if (open_too or not line.partial) and selection.takes(line):
                text = selection.shown(line)
                last.append(text) if selection.tail is not None else write(text)
        at = max(at, page.next)
        if is_last:
            break
    for text in last:
        write(text)
    return at


async def _follow(client: Client, execution_id: str, selection: Selection, *, raw: bool) -> None:
    if not selection.is_by_line:
        await show_output(client, execution_id, tail=selection.tail, raw=raw)
        return
    with _writing(raw=raw) as write:
        start = await _show_lines(client, execution_id, selection, write)
        frames = client.follow(execution_id, start=start)
        async with aclosing(frames):
            async for frame in frames:
                if isinstance(frame, Output):
                    for line in frame.lines:
                        if not line.partial and selection.takes(line):
                            write(selection.shown(line))
                else:
                    print_output(frame, write)


async def _follow_all(
    client: Client, words: Iterable[str], selection: Selection, *, raw: bool
) -> int:
    """Several executions at once, each line with the short id of its own."""
    followed: dict[str, Execution] = {}

    async def look_up(word: str) -> int:
        execution = await execution_meant(client, word)
        followed[execution.execution_id] = execution
        return Exit.OK

    code = await for_each(words, look_up)
    shown = short_ids(followed)
    try:
        async with asyncio.TaskGroup() as group:
            for id_ in followed:
                chosen = Selection(
                    tail=selection.tail,
                    stream=selection.stream,
                    since_s=selection.since_s,
                    times=selection.times,
                    prefix=f"{shown[id_]}  ",
                )
                group.create_task(_follow(client, id_, chosen, raw=raw), name=f"logs {id_}")
    except asyncio.CancelledError:
        for id_, execution in followed.items():
            if not execution.has_ended:
                say(still_running(id_))
        raise
    return code


async def show_output(
    client: Client, execution_id: str, *, tail: int | None = None, raw: bool = False
) -> None:
    """All output went to stdout, up to the end of the execution."""
    frames = client.follow(execution_id, tail=tail)
    screen = Screen(_write) if sys.stdout.isatty() else None
    harmless = Harmless() if screen is not None and not raw else None

    def write(text: str) -> None:
        _write(harmless.of(text) if harmless is not None else text)

    async with aclosing(frames):
        async for frame in frames:
            if screen is not None:
                screen.clear(frame)
            print_output(frame, write)
            if screen is not None:
                screen.show(frame)
    if harmless is not None:
        _write(harmless.end())


class Screen:
    """The open line at the end of a terminal: shown while it is open, replaced by what becomes of
    it. Where there is no terminal, lines are printed once they are whole.

    `_shown` says whether an open line stands at the end now; only this class writes it.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._shown = False

    def clear(self, frame: Frame) -> None:
        """Room for what the frame says instead of the open line."""
        if self._shown and isinstance(frame, Output | Gap):
            self._write("\r\x1b[K")
            self._shown = False

    def show(self, frame: Frame) -> None:
        """The frame's open line stands at the end, cut to what can be cleared again."""
        if not isinstance(frame, Output) or not frame.lines:
            return
        last = frame.lines[-1]
        if last.partial and not last.continued:
            width = shutil.get_terminal_size().columns
            self._write(clean(last.text)[: width - 1])
            self._shown = True


@contextmanager
def _writing(*, raw: bool) -> Iterator[Callable[[str], None]]:
    """Writes whole lines to stdout, on a terminal without what would command it."""
    if raw or not sys.stdout.isatty():
        yield _write
        return
    harmless = Harmless()
    yield lambda text: _write(harmless.of(text))
    _write(harmless.end())


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
