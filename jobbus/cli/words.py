"""Ids, times and states in the words that people read. Pure: the time is handed in.

How an execution ended is said by the service (`ending`), so that all doors use the same words.
"""

import math
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime

from bus.clock import from_rfc3339
from bus.endings import duration
from jobbus.client.records import App, Command, Execution, Job, Mistake, Pause, Progress

SHORT_ID = 13
"""Characters of a short id: the millisecond in which it was made, so that two differ."""
_ID_CUTS = (SHORT_ID, 18, 23, 36)

_LIVE_WORDS = {"Unknown": "unknown: its shim is gone"}
_DAY_S = 86_400


def short_id(id_: str) -> str:
    """How people see an id: its beginning, which commands accept as well."""
    return id_[:SHORT_ID]


def short_ids(ids: Iterable[str]) -> dict[str, str]:
    """The same for several that are shown together: longer where two begin alike."""
    all_ids = set(ids)
    counts = {cut: _counted(id_[:cut] for id_ in all_ids) for cut in _ID_CUTS}
    return {
        id_: next((id_[:cut] for cut in _ID_CUTS if counts[cut][id_[:cut]] == 1), id_)
        for id_ in all_ids
    }


def state_word(execution: Execution) -> str:
    """The state in one or two words, e.g. `running`, `timed out`, `unhealthy`."""
    if is_unhealthy(execution):
        return "unhealthy"
    return "timed out" if execution.status == "TimedOut" else execution.status.lower()


def is_unhealthy(execution: Execution) -> bool:
    """Whether its program runs and is not well."""
    health = execution.health
    return execution.status == "Running" and health is not None and health.status == "unhealthy"


def health_word(execution: Execution) -> str:
    """What its checks say, e.g. `unhealthy since 2026-11-29 15:02:11: nothing listens on …`."""
    health = execution.health
    if health is None:
        return ""
    said = f": {health.message}" if health.message else ""
    return f"{health.status} since {local_time(health.since)}{said}"


def ending_word(execution: Execution, now_s: float) -> str:
    """How it ended, e.g. `failed: exit code 3`; the state and what it waits for until then."""
    waiting = waiting_word(execution, now_s)
    if waiting:
        return f"{execution.status} ({waiting})"
    if is_unhealthy(execution):
        return f"{execution.status} (unhealthy)"
    return execution.ending or execution.status


def plain_ending(execution: Execution) -> str:
    """The same in lower case, for sentences."""
    return execution.ending or _LIVE_WORDS.get(execution.status, state_word(execution))


def why_word(execution: Execution) -> str:
    """Of `failed: exit code 3` the part that the state does not say: `exit code 3`."""
    state, _, why = execution.ending.partition(": ")
    return why or (state.removeprefix(state_word(execution)).strip() if state else "")


def progress_word(execution: Execution) -> str:
    """How far it is, e.g. `42 % copying`, or `reloading`."""
    progress = execution.progress
    if progress is None:
        return ""
    reloading = "reloading" if progress.reloading and not execution.has_ended else ""
    return " ".join(filter(None, (percent_word(progress), reloading, progress.message)))


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


def bar(percent: float, width: int, *, blocks: bool = True) -> str:
    """A bar of `width` signs; without `blocks` in ASCII."""
    share = min(max(percent, 0.0), 100.0) / 100
    if not blocks:
        return ("#" * int(share * width)).ljust(width, ".")
    eighths = int(share * width * 8)
    part = " ▏▎▍▌▋▊▉"[eighths % 8].strip()
    return ("█" * (eighths // 8) + part).ljust(width)


def waiting_word(execution: Execution, now_s: float) -> str:
    """What an execution waits for, e.g. `retry in 4 s, attempt 2 of 3` or `not before 2026-11-30
    18:00:00, in 2 h` until that has come, then the service's sentence; empty if it waits not."""
    wait_s = seconds_of(execution.not_before) - now_s if execution.not_before else 0.0
    if execution.not_before is None or (wait_s <= 0 and execution.waiting_for):
        return execution.waiting_for
    kind, _, what = execution.cause.rpartition(":")
    if kind != "policy":
        return f"not before {local_time(execution.not_before)}, in {duration(max(0.0, wait_s))}"
    return f"{what} in {max(0, math.ceil(wait_s))} s, {attempt_word(execution)}"


def attempt_word(execution: Execution) -> str:
    """Which start it is, e.g. `attempt 2 of 3`."""
    of = f" of {execution.attempts}" if execution.attempts >= execution.attempt > 0 else ""
    return f"attempt {execution.attempt}{of}"


def seconds_of(stamp: str) -> float:
    """A time of the API as seconds since 1970."""
    return from_rfc3339(stamp) / 1000


def local_time(stamp: str | None) -> str:
    """A time of the API on this machine's clock and in its zone."""
    if not stamp:
        return ""
    moment = datetime.fromtimestamp(seconds_of(stamp), tz=UTC)
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def age_word(stamp: str | None, now_s: float) -> str:
    """How long ago, e.g. `9 min ago`; what lies ahead by a clock that differs is `now`."""
    if not stamp:
        return ""
    passed_s = now_s - seconds_of(stamp)
    for unit_s, unit in ((_DAY_S, "days"), (3600, "h"), (60, "min"), (1, "s")):
        if passed_s >= unit_s:
            count = int(passed_s // unit_s)
            return f"{count} {'day' if unit == 'days' and count == 1 else unit} ago"
    return "now"


def until_word(stamp: str | None, now_s: float) -> str:
    """How long until then, e.g. `in 9 min`; empty without a time."""
    if not stamp:
        return ""
    left_s = max(1.0, seconds_of(stamp) - now_s)
    for unit_s, unit in ((2 * _DAY_S, "days"), (3600, "h"), (60, "min"), (1, "s")):
        if left_s >= unit_s:
            return f"in {int(left_s // (_DAY_S if unit == 'days' else unit_s))} {unit}"
    return ""


def clock_word(seconds: float) -> str:
    """A time that passes, e.g. `14 s`, `12:04`, `1:58:20`, `3 d 4 h`."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02}"
    if whole < _DAY_S:
        return f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02}"
    return f"{whole // _DAY_S} d {whole % _DAY_S // 3600} h"


def run_seconds(execution: Execution, now_s: float) -> float | None:
    """How long it ran, or has run until now; None if it never did."""
    if execution.start_time is None:
        return None
    end_s = seconds_of(execution.end_time) if execution.end_time else now_s
    return max(0.0, end_s - seconds_of(execution.start_time))


def time_word(execution: Execution, now_s: float) -> str:
    """How long it runs, ran, or has waited for its turn."""
    ran_s = run_seconds(execution, now_s)
    if ran_s is None:
        is_waiting = not execution.has_ended and execution.queued_at
        return clock_word(now_s - seconds_of(execution.queued_at)) if is_waiting else ""
    return duration(ran_s) if execution.has_ended else clock_word(ran_s)


def median_s(executions: Iterable[Execution]) -> float | None:
    """How long those that succeeded usually took; None if none did."""
    times = sorted(
        seconds
        for execution in executions
        if execution.status == "Succeeded" and (seconds := run_seconds(execution, 0.0)) is not None
    )
    return times[len(times) // 2] if times else None


def usage_word(execution: Execution) -> str:
    """What it used, e.g. `0.3 s of processor time, 12.5 MiB of memory at most`."""
    usage = execution.usage
    if usage is None:
        return ""
    words = [f"{duration(usage.cpu_s)} of processor time"]
    if usage.memory_bytes_max:
        words.append(f"{size_word(usage.memory_bytes_max)} of memory at most")
    if usage.oom_kills:
        words.append(f"{usage.oom_kills} killed for want of memory")
    return ", ".join(words)


def size_word(size: int) -> str:
    """Bytes, e.g. `800 B`, `12.5 MiB`."""
    value, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1000 and len(units) > 1:
        value /= 1024
        del units[0]
    return f"{value:.1f} {units[0]}".replace(".0 ", " ")


def fault_word(record: Job | App) -> str:
    """Where and why the definition is faulty; empty if it is not."""
    if record.fault is None:
        return ""
    more = f" (and {len(record.fault.more)} more)" if record.fault.more else ""
    return mistake_word(record.fault) + more


def mistake_word(mistake: Mistake) -> str:
    """One thing that is wrong with a definition, and where."""
    line = f":{mistake.line}" if mistake.line else ""  # a folder in the wrong place has none
    return f"{mistake.file}{line}: {mistake.reason}"


def pause_word(paused: Pause | None) -> str:
    """E.g. `paused by olga since 2026-11-29 12:00:00: new disk`; empty if it is not."""
    if paused is None:
        return ""
    until = f" until {local_time(paused.until)}" if paused.until else ""
    why = f": {paused.reason}" if paused.reason else ""
    return f"paused by {paused.by} since {local_time(paused.since)}{until}{why}"


def command_word(command: Command) -> str:
    """A command as sentences name it, e.g. `start of T/Talk`."""
    return f"{command.command or 'command'} of {command.job_id}" if command.job_id else "command"


def _counted(texts: Iterable[str]) -> Counter[str]:
    return Counter(texts)
