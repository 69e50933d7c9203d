"""Log lines that may come back at every try: logged once, then counted, with a summary.

What clients, a full system or a missing right can repeat must not fill a log.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

SUMMARY_S = 60.0
"""The first repeats are counted so long; each further count takes twice as long …"""

SUMMARY_S_MAX = 3600.0
"""… but no longer than this: what goes on stays in sight."""

SUBJECTS_MAX = 64
"""Clients may choose names in a line: more different names than that are counted together."""

OTHERS = "others like it"


class Logger(Protocol):
    """As much as the standard library's and structlog's have in common."""

    @property
    def info(self) -> Callable[..., Any]: ...
    @property
    def warning(self) -> Callable[..., Any]: ...
    @property
    def error(self) -> Callable[..., Any]: ...


class Recurring:
    """The lines of one kind of trouble, in a log.

    A line is the same as long as its subject is; its text may differ a little (a count, a time).
    `_subjects` holds the troubles that are not over; `say` and `over` write it under `_lock`. May
    be used from several threads.
    """

    def __init__(
        self, log: Logger, level: str = "warning", *, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._level = level
        self._now_s = now_s
        self._subjects: dict[str, _Subject] = {}
        self._lock = threading.Lock()

    def say(self, text: str, subject: str = "") -> None:
        """Logged if it is new, counted if not; what was counted is added from time to time."""
        with self._lock:
            line = self._line(text, subject)
        if line is not None:
            self._write(self._level, line)

    def _line(self, text: str, subject: str) -> str | None:
        now_s = self._now_s()
        if subject not in self._subjects and len(self._subjects) >= SUBJECTS_MAX:
            self._forget_quiet(now_s)
        if subject not in self._subjects and len(self._subjects) >= SUBJECTS_MAX:
            text, subject = f"{text} ({OTHERS} are counted)", OTHERS
        known = self._subjects.get(subject)
        if known is None:
            self._subjects[subject] = _Subject(now_s)
            return text
        times = known.repeated(now_s)
        return None if times is None else f"{text} (again {times} times)"

    def over(self, text: str = "", subject: str = "") -> None:
        """The trouble has passed: `text` is logged if there was any, and the next is new again."""
        if not self._subjects:
            return  # mostly; asked after each success
        with self._lock:
            known = self._subjects.pop(subject, None)
        if known is not None and text:
            times = f" (after {known.total} times)" if known.total > 1 else ""
            self._write("info", f"{text}{times}")

    def __bool__(self) -> bool:
        """Whether there is any trouble now."""
        return bool(self._subjects)

    def _write(self, level: str, line: str) -> None:
        # Looked up now: a logger that is bound early would miss how logs are set up later.
        getattr(self._log, level)("%s", line)

    def _forget_quiet(self, now_s: float) -> None:
        quiet = [key for key, each in self._subjects.items() if each.is_quiet(now_s)]
        for key in quiet:
            del self._subjects[key]


class _Subject:
    """How often one line was to be said."""

    def __init__(self, now_s: float) -> None:
        self.total = 1
        self._unlogged = 0
        self._pause_s = SUMMARY_S
        self._next_s = now_s + SUMMARY_S
        self._last_s = now_s

    def repeated(self, now_s: float) -> int | None:
        """One time more; how many are to be logged now, if any."""
        self.total += 1
        self._unlogged += 1
        self._last_s = now_s
        if now_s < self._next_s:
            return None
        times, self._unlogged = self._unlogged, 0
        self._pause_s = min(2 * self._pause_s, SUMMARY_S_MAX)
        self._next_s = now_s + self._pause_s
        return times

    def is_quiet(self, now_s: float) -> bool:
        return now_s - self._last_s > SUMMARY_S_MAX


class Backoff:
    """Pauses between tries: each twice the one before, up to a longest."""

    def __init__(self, first_s: float, most_s: float) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._next_s = first_s

    def next_s(self) -> float:
        """How long to wait before the next try."""
        pause_s, self._next_s = self._next_s, min(2 * self._next_s, self._most_s)
        return pause_s

    def reset(self) -> None:
        """A try succeeded."""
        self._next_s = self._first_s
