"""`status`: jobs and executions looked at closely."""

import time
from collections.abc import Iterator

import msgspec

from bus.endings import duration
from jobbus.cli.details import last_lines, show_command
from jobbus.cli.exits import Exit
from jobbus.cli.naming import for_each, meaning
from jobbus.cli.show import (
    STYLES,
    Cell,
    Json,
    on_terminal,
    show_json,
    show_line,
    show_pairs,
    show_table,
)
from jobbus.cli.target import HERE, Target, service_at
from jobbus.cli.words import (
    age_word,
    attempt_word,
    ending_word,
    health_word,
    local_time,
    mistake_word,
    pause_word,
    plain_ending,
    progress_word,
    run_seconds,
    short_id,
    short_ids,
    usage_word,
    waiting_word,
)
from jobbus.client.client import Client
from jobbus.client.records import Caused, Command, Execution, Job, Schedule, Variable

_NEWEST = 5
_NEXT_MAX = 3
"""Instants to come that are shown of each schedule."""
_BEFORE_MAX = 100


class JobStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A job with its newest executions; `status JOB --json`."""

    job: Job
    executions: tuple[Execution, ...]


async def status(what: tuple[str, ...], /, *, as_json: Json = False, target: Target = HERE) -> int:
    """Show jobs with their newest executions, or executions.

    Parameters
    ----------
    what
        Jobs (App/Job), or ids of executions or of the commands that made them.
    """
    async with Client(*service_at(target)) as client:

        async def show(word: str) -> int:
            meant = await meaning(client, word)
            match meant:
                case Job():
                    newest = (await client.executions(job=meant.job_id, limit=_NEWEST)).items
                    if as_json:
                        show_json(JobStatus(job=meant, executions=newest))
                    else:
                        _show_job(meant, newest)
                case Execution():
                    if as_json:
                        show_json(meant)
                    else:
                        await _show_execution(client, meant)
                case Command():
                    show_command(meant, as_json=as_json)
            return Exit.OK

        return await for_each(what, show)


async def _show_execution(client: Client, execution: Execution) -> None:
    now_s = time.time()
    ran_s = run_seconds(execution, now_s)
    when = age_word(execution.end_time or execution.start_time or execution.queued_at, now_s)
    ran = f", {duration(ran_s)}" if ran_s is not None else ""
    id_ = short_id(execution.execution_id) if on_terminal() else execution.execution_id
    show_line(
        f"{execution.job_id} {id_}",
        Cell(_standing(execution, now_s), STYLES.get(execution.status, "")),
        f"{when}{ran}",
    )
    cause = "" if execution.cause == execution.user_id else execution.cause
    started = f"{execution.user_id}{f' ({cause})' if cause else ''}"
    page = await client.executions(job=execution.job_id, limit=_BEFORE_MAX)
    values = msgspec.to_builtins(execution.variables)
    show_pairs(
        (
            ("progress", "" if execution.has_ended else progress_word(execution)),
            ("health", health_word(execution)),
            ("note", execution.progress.note if execution.progress else ""),
            ("result", _result_word(execution)),
            ("files", _files_word(execution)),
            ("started by", started),
            ("caused by", execution.caused_by or ""),
            *(("caused", _caused_word(each)) for each in execution.caused),
            ("variables", " ".join(f"{name}={_value(values[name])}" for name in values)),
            ("output", await _output_word(client, execution)),
            ("before", _before_word(execution, page.items, now_s)),
            ("attempt", _attempt(execution)),
            ("queued", local_time(execution.queued_at)),
            ("started", local_time(execution.start_time)),
            ("ended", local_time(execution.end_time)),
            ("pid", str(execution.pid or "")),
            ("used", usage_word(execution)),
            ("survivors", " ".join(map(str, execution.survivors))),
            ("execution", execution.execution_id),
            ("command", execution.command_id),
        ),
        indent=2,
    )


def _standing(execution: Execution, now_s: float) -> str:
    is_waiting = bool(waiting_word(execution, now_s))
    return ending_word(execution, now_s) if is_waiting else plain_ending(execution)


def _attempt(execution: Execution) -> str:
    is_other = execution.attempt > 1 or execution.attempts > 1
    return attempt_word(execution).removeprefix("attempt ") if is_other else ""


def _result_word(execution: Execution) -> str:
    if execution.result is None:
        return execution.result_note
    return msgspec.json.encode(execution.result).decode()


def _files_word(execution: Execution) -> str:
    count = execution.artifacts
    files = f"{count} file{'s' if count != 1 else ''} of {execution.artifact_bytes} bytes"
    return "; ".join(filter(None, (files if count else "", execution.artifacts_note)))


def _caused_word(caused: Caused) -> str:
    job = caused.job_id or "another job"
    if caused.error_code is not None:
        return f"{job} was not started: {caused.error or caused.error_code}"
    return f"{job} {caused.execution_id or ''}"


def _value(value: object) -> str:
    if isinstance(value, str):
        return value or '""'
    if isinstance(value, dict):
        return f"secret {value.get('secret')}"
    return msgspec.json.encode(value).decode()


async def _output_word(client: Client, execution: Execution) -> str:
    lines = await last_lines(client, execution)
    if not lines:
        return ""
    count = f"{lines[-1].number} line{'s' if lines[-1].number != 1 else ''}"
    text = next((line.text.strip() for line in reversed(lines) if line.text.strip()), "")
    return f"{count}, last: {text}" if text else count


def _before_word(execution: Execution, newest: tuple[Execution, ...], now_s: float) -> str:
    """How the ones before it ended, e.g. `failed 3 times in a row; last success 2 days ago`."""
    if not execution.has_ended or execution.status == "Succeeded":
        return ""
    before = [each for each in newest if each.queued_at <= execution.queued_at and each.has_ended]
    row = next((n for n, each in enumerate(before) if each.status == "Succeeded"), len(before))
    good = next((each for each in before if each.status == "Succeeded"), None)
    words = [f"did not succeed {row} times in a row"] if row > 1 else []
    if good is not None:
        words.append(
            f"last success {age_word(good.end_time, now_s)} ({short_id(good.execution_id)})"
        )
    return "; ".join(words)


def _show_job(job: Job, newest: tuple[Execution, ...]) -> None:
    pairs = [
        ("job", job.job_id),
        ("description", job.description),
        ("state", _state(job)),
        ("fault", mistake_word(job.fault) if job.fault else ""),
    ]
    if job.fault is not None:
        pairs += [("", mistake_word(each)) for each in job.fault.more]
    if job.origins:
        pairs.append(("defaults", ", ".join(f"{k} ({o})" for k, o in job.origins.items())))
    if job.gave_up_at is not None:
        why = "restarted too often; a start by a person is needed: jobbus start"
        pairs.append(("", f"{why} {job.job_id}"))
    pairs += [(f"  {name}", _declaration(spec)) for name, spec in job.variables.items()]
    for schedule in job.schedules:
        pairs += _schedule(schedule)
    show_pairs(pairs)
    if newest:
        print()
        narrow = on_terminal()
        shown = short_ids(each.execution_id for each in newest)
        now_s = time.time()
        show_table(
            ("ID", "STATE", "PROGRESS", "STARTED"),
            (
                (
                    Cell(shown[each.execution_id] if narrow else each.execution_id, "bold"),
                    Cell(ending_word(each, now_s), STYLES.get(each.status, "")),
                    progress_word(each),
                    age_word(each.start_time, now_s) if narrow else local_time(each.start_time),
                )
                for each in newest
            ),
        )


def _schedule(schedule: Schedule) -> Iterator[tuple[str, str]]:
    """What it is, what it did last, and when it comes next."""
    rule = f" ({schedule.rule})" if schedule.rule != schedule.name else ""
    yield "schedule", f"{schedule.name}{rule}, {schedule.zone}"
    if schedule.why is not None:
        yield "", f"starts nothing now: {schedule.why}"
    if schedule.last is not None:
        last = schedule.last
        why = f" ({last.why})" if last.why else ""
        yield "", f"{last.verdict}{why} for {_zoned(last.scheduled_at)}"
    for number, coming in enumerate(schedule.next[:_NEXT_MAX]):
        note = f" ({coming.note})" if coming.note else ""
        yield "", f"{'then' if number else 'next'} {_zoned(coming.at)}{note}"


def _zoned(stamp: str) -> str:
    """An instant on the clock of its schedule's zone, e.g. `2026-03-29 03:00:00 +02:00`."""
    return f"{stamp[:19].replace('T', ' ')} {stamp[19:]}"


def _state(job: Job) -> str:
    if job.fault is not None:
        return "broken; the last good version is in use" if job.revision else "broken"
    if not job.revision:
        return "gone from the apps; its executions are kept"
    if job.gave_up_at is not None:
        return f"gave up {local_time(job.gave_up_at)}"
    if job.paused is not None:
        return pause_word(job.paused)
    return "disabled" if job.disabled else "ok"


def _without(spec: Variable) -> str:
    """What a start that does not give the variable comes to."""
    if spec.required:
        return "required"
    return "may be left out" if spec.default is None else f"default {_value(spec.default)}"


def _declaration(spec: Variable) -> str:
    words = [spec.type, _without(spec)]
    if spec.min is not None or spec.max is not None:
        low = spec.min if spec.min is not None else ""
        high = spec.max if spec.max is not None else ""
        words.append(f"{low}..{high}")
    words += [f"one of {', '.join(spec.choices)}"] if spec.choices else []
    return "; ".join(filter(None, (*words, spec.description)))
