"""A small load on a whole service, and what must be true of everything it acknowledged.

Blocking: trials run in threads beside one another. A service may die under the load at any moment;
the load then ends, and `verify` looks at what a later service made of it.
"""

import http.client
import json
import os
import signal
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import msgspec

from bus.clock import SystemClock, from_rfc3339, rfc3339
from bus.envelope import derived_uuid
from bus.layout import DataLayout
from bus.model import FINAL_EXECUTION
from bus.views import command_view, execution_view
from handlers.journal.recovery import recover
from tests.faults.seam import Plan
from tests.jobs import Apps
from tests.preforked_service import fork_server
from tests.service import FINAL, Running, Service
from transports.directory.results import encode_result, encode_status, result_name

PATIENCE_S = 40.0
QUIET_S = 0.02

STARTED = 'echo "$JOBBUS_EXECUTION_ID" >> "$BOARD/starts"; '
LONG = STARTED + 'until [ -e "$BOARD/release" ]; do sleep 0.1; done'
PROGRESS = STARTED + 'echo "50% half" >> "$JOBBUS_PROGRESS"; echo done'
LEAVES = STARTED + """echo '{"n": 7}' > "$JOBBUS_RESULT"; echo left > "$JOBBUS_ARTIFACTS/file" """
SHARES = (
    STARTED + 'exec 9>>"$BOARD/slot"; flock -n 9 || echo "$JOBBUS_EXECUTION_ID" >> "$BOARD/over"; '
    "sleep 0.1"
)
"""Notes it if another program holds a slot of the group at the same time."""

ENDS: dict[str, set[tuple[str, int | None]]] = {
    "S/Long": {("Stopped", None), ("Stopped", 0), ("Succeeded", 0)},
    "S/Quick": {("Succeeded", 0)},
    "S/Fails": {("Failed", 3)},
    "S/Queued": {("Succeeded", 0)},
    "S/Reports": {("Succeeded", 0)},
    "S/Retried": {("Failed", 4), ("Succeeded", 0)},
    "S/Restarted": {("Failed", 5)},
    "S/Timed": {("Succeeded", 0)},
    "S/Delayed": {("Succeeded", 0)},
    "S/First": {("Succeeded", 0)},
    "S/Chained": {("Succeeded", 0)},
    "S/Listens": {("Succeeded", 0)},
    "S/Unwell": {("Failed", None), ("Succeeded", 0)},
    "S/Shares": {("Succeeded", 0)},
    "S/SharesToo": {("Succeeded", 0)},
    "S/ByHand": {("Succeeded", 0)},
}
"""How executions end whose shim was not killed."""

FOLLOWED = ("S/Retried", "S/Restarted", "S/Unwell")
"""Jobs whose first execution is followed by exactly one more, unless a shim was killed."""

BURST = {
    "fails": "S/Fails",
    "q1": "S/Queued",
    "q2": "S/Queued",
    "reports": "S/Reports",
    "retried": "S/Retried",
    "restarted": "S/Restarted",
    "delayed": "S/Delayed",
    "first": "S/First",
    "listens": "S/Listens",
    "unwell": "S/Unwell",
    "shares": "S/Shares",
    "shares too": "S/SharesToo",
}
"""Starts at once, together with a restart: enough for the queue to sync them as a group."""

BY_HAND = "S/ByHand"
PAST = ("2026-01-05T06:00:00.000Z", "2026-01-06T06:00:00.000Z")
"""Instants of that job's schedule that a backfill makes up for."""

ORDERS = {
    "run": "schedule.run S/ByHand",
    "backfill": "schedule.backfill S/ByHand",
    "pause": "schedule.pause S/Fails",
}
"""What is asked of schedules, beside the burst; the pause is taken back in the second half."""

TIMED = "S/Timed"
INSTANTS_S = (1.2, 1.5, 1.8)
"""So long after its definition the job's schedule is due."""

DELAYS_MS = {"S/Delayed": 400}
"""Jobs whose starts are due so much later."""

Content = dict[str, Any]


class Dead(Exception):
    """The service does not answer any more."""


class SeamService(Service):
    """A service whose durability-relevant calls go through the seam."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.plan: Plan | None = None
        self.ended_with = 0

    def _run(self, *arguments: str) -> Running:
        """Without `-W error`: a service that dies leaves what only Python would warn of."""
        plan = "" if self.plan is None else self.plan.encode()
        with self.log.open("ab") as log:
            return fork_server("-m", "tests.faults.seam", "fork_server").fork(
                [plan, "serve", *self.places(), *arguments], self.environment(), log.fileno()
            )

    def try_start(self) -> bool:
        """Whether it came as far as its ready line; if not, it is dead."""
        self._process = self._run("--listen", f"127.0.0.1:{self.port}")
        line = self._ready_line(self._process)
        if not line:
            self.ended_with = self._wait()
            return False
        self.port = int(line.rpartition(":")[2])
        self.token = (self.data / "admin.token").read_text(encoding="ascii").strip()
        return True

    def queue_files_whole(self) -> list[str]:
        """Commands in the queue, without what was half-written when somebody died."""
        return sorted(path.name for path in (self.data / "JobCommandQueue").glob("*.json"))

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.ended_with = super().end(number)
        return self.ended_with

    def bury(self) -> None:
        """It is dead for sure, and waited for."""
        if self._process is not None:
            self.kill9()

    def wait_for_end(self) -> int:
        """The exit code of a service that ends by itself, or has."""
        if self._process is not None:
            self.ended_with = self._wait()
        return self.ended_with

    def disarm(self) -> None:
        self.plan = None

    @property
    def is_up(self) -> bool:
        return self._process is not None and self._process.poll() is None


def define(apps: Apps) -> None:
    settings = apps.root.parent / "jobbus.toml"  # found, for the data directory lies beside it
    settings.write_text("[group.slot]\nmax_running = 1\n", encoding="utf-8")
    apps.shell("S/Long", LONG, stop_grace_s=5)
    apps.shell("S/Quick", STARTED + "exit 0")
    apps.shell("S/Fails", STARTED + "exit 3", schedule=[{"name": "never", "at": "2999-01-01"}])
    past = {"name": "past", "at": list(PAST), "zone": "UTC", "missed": "skip"}
    apps.shell(BY_HAND, STARTED + "exit 0", overlap="queue", schedule=[past])
    apps.shell("S/Queued", STARTED + "exit 0", overlap="queue")
    # By its number, so that its files lie in a folder of its own, as those of other accounts do.
    apps.shell("S/Reports", PROGRESS, user=os.geteuid(), group=os.getegid())
    soon = {"delay_s": 0.05, "jitter": 0.0}
    twice = STARTED + '[ "$JOBBUS_ATTEMPT" -ge 2 ] || exit 4'
    apps.shell("S/Retried", twice, retry={"attempts": 2, **soon})
    restart = {"policy": "on-failure", "limit": 1}
    apps.shell("S/Delayed", STARTED + "exit 0")
    apps.shell("S/Restarted", STARTED + "exit 5", retry=soon, restart=restart)
    listens = STARTED + 'echo up; until [ -e "$BOARD/release" ]; do sleep 0.1; done'
    apps.shell("S/Listens", listens, ready="output:^up$")
    # Long enough for its checks; without a shim nobody checks, and it ends by itself.
    unwell = STARTED + '[ "$JOBBUS_ATTEMPT" -ge 2 ] || exec sleep 15'
    health = {"command": ["false"], "every_s": 0.1, "failures": 1, "action": "restart"}
    apps.shell("S/Unwell", unwell, health=health, retry=soon, restart={"limit": 1})
    for name in ("S/Shares", "S/SharesToo"):
        apps.shell(name, SHARES, groups=["slot"])
    always = [status.value for status in FINAL_EXECUTION]
    chain = {"start": "S/Chained", "on": always, "variables": {"N": "{{result.n}}"}}
    apps.shell("S/First", LEAVES, after=[chain])
    number = {"N": {"type": "integer", "default": 0}}
    apps.shell("S/Chained", STARTED + "exit 0", variables=number, max_running=3)


def define_timed(apps: Apps) -> None:
    """One more job, which a schedule starts while the load goes on."""
    now_ms = SystemClock().now_ms()
    at = [rfc3339(now_ms + int(after_s * 1000)) for after_s in INSTANTS_S]
    timed = {"name": "soon", "at": at, "zone": "UTC", "missed": "all"}
    apps.shell(TIMED, STARTED + "exit 0", overlap="queue", schedule=[timed])


def instants_of(apps: Apps) -> list[str]:
    """When the schedule is due, as decisions have it; never if the load has none."""
    if not apps.definition(TIMED).exists():
        return []
    definition = tomllib.loads(apps.definition(TIMED).read_text(encoding="utf-8"))
    found: list[str] = definition["schedule"][0]["at"]
    return found


def timed_ids(instants: list[str]) -> dict[str, str]:
    """The commands of the schedule's starts, with their instants."""
    times = ((str(from_rfc3339(at)), at) for at in instants)
    return {derived_uuid("schedule", TIMED, "soon", ms): at for ms, at in times}


def made_up_ids() -> set[str]:
    """The commands of the starts that the backfill comes to."""
    return {derived_uuid("schedule", BY_HAND, "past", str(from_rfc3339(at))) for at in PAST}


def published_ids() -> dict[str, str]:
    """What `Load.tried` has once all but the dropped file was published."""
    words = {"long": "start S/Long", "again": "restart S/Long", "stop": "stop S/Long"}
    words |= {name: f"start {job_id}" for name, job_id in BURST.items()}
    words |= {**ORDERS, "resume": "schedule.resume S/Fails"}
    return {Load.id_of(name): command for name, command in words.items()}


@dataclass
class Load:
    """Commands in a fixed order, with fixed ids; `acknowledged` are those that were answered 202.

    `seen` is the highest version that was read of each execution and command. `ran_before` are
    executions whose programs ran in an earlier life of the machine. `deaths` is how often the
    service is made to die: what was in hand twice before it was on record is poison, whatever the
    service died of. `due_ms` are the moments before which delayed starts must not begin.
    """

    service: SeamService
    tried: dict[str, str] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    refused: dict[str, int] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    note: Callable[..., None] = lambda **_: None
    drops: bool = True
    ran_before: set[str] = field(default_factory=set)
    deaths: int = 1
    due_ms: dict[str, int] = field(default_factory=dict)

    def run(self) -> bool:
        """Whether all of it was done before the service died."""
        try:
            self.begin()
            self.run_second_half()
        except Dead:
            return False
        return True

    def begin(self) -> None:
        """The first half, up to a burst that is not waited for."""
        self.publish("long", "start", "S/Long", wait_s=20)
        self._look()
        if self.drops:
            self._drop("dropped", "S/Quick")
        with ThreadPoolExecutor(len(BURST) + len(ORDERS) + 1) as pool:
            sent = [pool.submit(self.publish, n, "start", j) for n, j in BURST.items()]
            sent += [pool.submit(self.publish, n, *_words(o)) for n, o in ORDERS.items()]
            sent.append(pool.submit(self.publish, "again", "restart", "S/Long"))
            ends = [each.exception() for each in sent]
        for error in ends:
            if error is not None:
                raise error

    def run_second_half(self) -> None:
        """What was begun comes to its end; the job that would run on is stopped."""
        ids = [self.id_of(name) for name in ("again", *BURST, *ORDERS)]
        self._await_ended(ids, or_unknown=True)
        self.publish("resume", "schedule.resume", "S/Fails")
        self.publish("stop", "stop", "S/Long", wait_s=20)
        self._await_ended(list(self.tried), or_unknown=True)
        self._look()

    @staticmethod
    def id_of(name: str) -> str:
        return str(uuid5(NAMESPACE_URL, f"load/{name}"))

    def call(
        self,
        method: str,
        path: str,
        body: Content | None = None,
        wait_s: int = 0,
        accept: str = "*/*",
    ) -> tuple[int, Any]:
        """Status and JSON of an answer.

        Raises:
            Dead: there is none.
        """
        headers = {
            "Authorization": f"Bearer {self.service.token}",
            "Content-Type": "application/json",
            "Accept": accept,
        }
        if wait_s:
            headers["Prefer"] = f"wait={wait_s}"
        link = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=PATIENCE_S)
        try:
            data = json.dumps(body) if body is not None else None
            link.request(method, f"/api/v1{path}", data, headers)
            answer = link.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Dead from error
        finally:
            link.close()

    def items(self, path: str) -> list[Content]:
        status, page = self.call("GET", f"{path}?limit=500")
        assert status == 200, page
        found: list[Content] = page["items"]
        return found

    def publish(self, name: str, command: str, job_id: str, wait_s: int = 0) -> None:
        command_id = self.id_of(name)
        self.tried[command_id] = f"{command} {job_id}"
        body = {"command": command, "jobId": job_id, "commandId": command_id}
        if command == "schedule.backfill":
            body |= {"from": PAST[0], "to": PAST[-1]}
        if job_id in DELAYS_MS:
            at_ms = self.due_ms[command_id] = SystemClock().now_ms() + DELAYS_MS[job_id]
            body["notBefore"] = rfc3339(at_ms)
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            status, answer = self.call("POST", "/commands", body, wait_s)
            if status in (200, 202):
                self.acknowledged.add(command_id)
                self.note(what="ack", id=command_id)
                return
            assert status in (503, 507), answer
            self.refused[answer["type"].rpartition("/")[2]] = status
            assert time.monotonic() < deadline_s, f"never accepted: {answer}"
            time.sleep(QUIET_S)

    def _drop(self, name: str, job_id: str) -> None:
        """As the origin's writers do it: whole under another name, then renamed."""
        command_id = self.id_of(name)
        self.tried[command_id] = f"start {job_id}"
        queue = self.service.data / "JobCommandQueue"
        draft = queue / ".tmp" / f"{command_id}.draft"
        fields = {"CommandID": command_id, "Command": "start", "JobID": job_id}
        who = {"UserID": "alice", "Roles": ["operator"], "SubmittedAt": "2026-01-26T10:00:00Z"}
        draft.write_text(json.dumps({**fields, **who, "Status": "Pending"}))
        draft.rename(queue / f"{command_id}.json")
        self.acknowledged.add(command_id)

    def _look(self) -> None:
        for item in (*self.items("/executions"), *self.items("/commands")):
            key = item["commandId"] if "command" in item else item["executionId"]
            self.seen[key] = item["version"]
            self.note(what="seen", id=key, version=item["version"], status=item["status"])

    def _await_ended(self, ids: list[str], *, or_unknown: bool = False) -> None:
        """A start whose shim died is reported to have run, or not, when its tree has ended."""
        deadline_s = time.monotonic() + PATIENCE_S
        left = set(ids)
        while left:
            left -= {c["commandId"] for c in self.items("/commands") if _is_final(c)}
            if or_unknown:
                executions = self.items("/executions")
                left -= {e["commandId"] for e in executions if e["status"] == "Unknown"}
            self._look_alive(deadline_s, left)

    def _is_due_again(self) -> bool:
        """Whether the schedule has an instant that is not decided yet."""
        status, job = self.call("GET", f"/jobs/{TIMED}")
        return status == 200 and job["nextAt"] is not None

    def decisions(self) -> list[Content]:
        """What was decided of the schedule, in every life of the service so far."""
        query = "start=earliest&type=schedule.decided&limit=500"
        status, page = self.call("GET", f"/events?{query}", accept="application/json")
        assert status == 200, page
        return [each["data"] for each in page["items"]]

    def _await_ready(self, command_id: str) -> None:
        """What is not ready when it ends has failed: it stays until the service has looked. It may
        have come in although nobody was answered."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            is_queued = f"{command_id}.json" in self.service.queue_files_whole()
            found = [c for c in self.items("/commands") if c["commandId"] == command_id]
            made = [e for e in self.items("/executions") if e["commandId"] == command_id]
            if any(e["status"] == "Unknown" for e in made):
                return
            if all(map(_is_final, found)) if found else not is_queued:
                return
            self._look_alive(deadline_s, command_id)

    def _look_alive(self, deadline_s: float, what: object) -> None:
        if not self.service.is_up:
            raise Dead
        assert time.monotonic() < deadline_s, f"never came to an end: {what}"
        time.sleep(QUIET_S)

    def settle(self) -> None:
        """Everything acknowledged has ended in a service that lives; running jobs are let go."""
        self._await_ready(self.id_of("listens"))
        self.service.apps.put("release")
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            is_due = self._is_due_again()  # first: what was due before runs, or has run, by then
            ended = {c["commandId"] for c in self.items("/commands") if _is_final(c)}
            running = [e for e in self.items("/executions") if e["status"] not in FINAL]
            left = (is_due, self.acknowledged - ended, running, self.service.queue_files_whole())
            if not any(left):
                return
            self._look_alive(deadline_s, left)


def _words(order: str) -> tuple[str, str]:
    command, job_id = order.split()
    return command, job_id


def _is_final(command: Content) -> bool:
    return command["status"] not in ("Pending", "Running")


def torn_files(data: Path) -> list[str]:
    """Visible files of ours that are no whole JSON, in a data directory that no service uses."""
    folders = ("JobCommandQueue", "JobCommandResults", "JobStatus", "JobOutput/*", "", "Journal")
    torn = []
    for path in (p for folder in folders for p in data.glob(f"{folder}/*.json".lstrip("/"))):
        try:
            json.loads(path.read_bytes())
        except ValueError:
            torn.append(str(path.relative_to(data)))
    torn += [str(p.relative_to(data)) for p in data.glob("JobOutput/*/control") if not _is_json(p)]
    return torn


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True


def verify(
    load: Load, *, exact_ends: bool, reported: str = "", unstarted: str = ""
) -> Iterator[str]:
    """What is wrong after the end of the last service; nothing, if all promises were kept.

    With `reported`, errors in the log may name it: an error that was met has to be reported.
    With `unstarted`, an execution may have failed that never ran and names it.
    """
    service = load.service
    items, commands = load.items("/executions"), load.items("/commands")
    yield from _wrong_schedule(load, items, may_skip=bool(reported))
    yield from _wrong_orders(load, items, {c["commandId"]: c for c in commands})
    yield from (f"{each} ran beside another one" for each in service.apps.lines("over"))
    code = service.end()
    if code != 0:
        yield f"the service ended with {code}"
    yield from (f"torn: {name}" for name in torn_files(service.data))
    yield from _lost_or_doubled(load, items, commands)
    yield from _wrong_ends(load, items, exact_ends=exact_ends, unstarted=unstarted)
    yield from different_table(service.data, items, commands)
    yield from (f"queue: {name}" for name in service.queue_files_whole())
    for line in service.complaints():
        if not reported or reported not in line or "Traceback" in line:
            yield f"log: {line}"


def _lost_or_doubled(load: Load, items: list[Content], commands: list[Content]) -> Iterator[str]:
    known = {c["commandId"]: c for c in commands}
    for command_id in load.acknowledged - known.keys():
        yield f"lost: {load.tried[command_id]}"
    yield from _wrong_chains(items, known)
    firsts = (e["executionId"] for e in items if e["jobId"] == "S/First")
    chained = {derived_uuid("chain", each, "0") for each in firsts}
    timed = timed_ids(instants_of(load.service.apps)).keys() | made_up_ids()
    for command_id in known.keys() - load.tried.keys() - chained - timed:
        yield f"from nowhere: {command_id}"
    own = (e["commandId"] for e in items if e["previous"] is None)
    for command_id, times in Counter(own).items():
        if times > 1:
            yield f"{times} executions of {load.tried.get(command_id)}"
    followed = (e["previous"] for e in items if e["previous"] is not None)
    for execution_id, times in Counter(followed).items():
        if times > 1:
            yield f"{execution_id} was followed {times} times"
    for command_id in load.acknowledged & known.keys():
        started = load.tried[command_id].startswith("start ")
        if load.deaths > 1 and known[command_id]["errorCode"] == "poison":
            continue
        if started and not any(e["commandId"] == command_id for e in items):
            yield f"no execution of {load.tried[command_id]}: {known[command_id]}"
    now = {e["executionId"]: e["version"] for e in items}
    now |= {command_id: c["version"] for command_id, c in known.items()}
    for key, version in load.seen.items():
        if now.get(key, 0) < version:
            yield f"went back: {key} was at {version}, is at {now.get(key)}"


def _wrong_schedule(load: Load, items: list[Content], *, may_skip: bool) -> Iterator[str]:
    """Each instant since the schedule was in force is decided once, and has one execution; if it
    `may_skip`, only as many as were started."""
    instants = instants_of(load.service.apps)
    decided = load.decisions()
    found = [each["scheduledAt"] for each in decided]
    if found != instants[len(instants) - len(found) :]:
        yield f"of the instants {instants} there were decisions about {decided}"
    ids = timed_ids(instants)
    started = [each["commandId"] for each in decided if each["verdict"] == "started"]
    made = [e["commandId"] for e in items if e["jobId"] == TIMED and e["previous"] is None]
    skipped = [each for each in decided if each["verdict"] != "started"]
    is_known = {ids.get(each) for each in started} <= set(found)
    if sorted(made) != sorted(started) or not is_known or (skipped and not may_skip):
        yield f"by schedule {started} were started, executions are of {made}, skipped {skipped}"


def _wrong_orders(load: Load, items: list[Content], known: dict[str, Content]) -> Iterator[str]:
    """A schedule is run once, made up for whole or not at all, and paused as long as was asked."""

    def is_done(name: str) -> bool:
        return known.get(Load.id_of(name), {}).get("status") == "Completed"

    first = [e["commandId"] for e in items if e["jobId"] == BY_HAND and e["previous"] is None]
    wanted = (made_up_ids() if is_done("backfill") else set()) | {Load.id_of("run")}
    if not is_done("run"):
        wanted -= {Load.id_of("run")} - set(first)  # it may have been started, and have ended so
    if sorted(first) != sorted(wanted):
        yield f"run and made up for by hand: {first}, not {wanted}"
    status, job = load.call("GET", "/jobs/S/Fails")
    paused = job["schedules"][0]["paused"] if status == 200 else None
    if (paused is not None) != (is_done("pause") and not is_done("resume")):
        yield f"paused: {paused}, with {known.get(Load.id_of('pause'))} and what came after it"


def _wrong_chains(items: list[Content], commands: dict[str, Content]) -> Iterator[str]:
    """Each end of the first sets the second going once, with what it left."""
    for first in (e for e in items if e["jobId"] == "S/First"):
        second = [e for e in items if e["causedBy"] == first["executionId"]]
        caused = [each["executionId"] for each in first["caused"]]
        if caused != [e["executionId"] for e in second] or len(second) != 1:
            yield f"{first['executionId']} set going {caused}, started were {second}"
            continue
        if second[0]["commandId"] not in commands:
            yield f"the command of a chain is not on record: {second[0]}"
        if first["status"] == "Succeeded" and first["result"] != {"n": 7}:
            yield f"the result was lost: {first}"
        if first["status"] == "Succeeded" and (first["artifacts"], first["artifactBytes"]) != (
            1,
            5,
        ):
            yield f"the artifact was lost: {first}"
        if second[0]["variables"] != {"N": (first["result"] or {"n": 0})["n"]}:
            yield f"handed on was something else: {first} {second[0]}"


def _wrong_ends(
    load: Load, items: list[Content], *, exact_ends: bool, unstarted: str
) -> Iterator[str]:
    starts = Counter(load.service.apps.lines("starts"))
    for execution_id, times in (starts + Counter(load.ran_before)).items():
        if times > 1:
            yield f"{execution_id} ran {times} times"
    for item in items:
        end: tuple[str, int | None] = (item["status"], item["exitCode"])
        ran = item["executionId"] in starts or item["executionId"] in load.ran_before
        if item["startTime"] is not None and not ran and item["status"] != "Stopped":
            yield f"never ran, and is reported to have: {item}"
        if unstarted and not ran and end == ("Failed", None) and unstarted in item["error"]:
            continue
        if exact_ends and end not in ENDS[item["jobId"]]:
            yield f"{item['jobId']} ended as {end} {item['reason']} {item['error']}"
        if ran and item["startTime"] is None and exact_ends:
            yield f"ran, and is reported not to have: {item}"
    for item in items:
        due_ms = load.due_ms.get(item["commandId"], 0)
        if item["startTime"] is not None and from_rfc3339(item["startTime"]) < due_ms:
            yield f"started before its moment: {item}"
    for job_id in FOLLOWED if exact_ends else ():
        attempts = sorted(e["attempt"] for e in items if e["jobId"] == job_id)
        if attempts not in ([], [1, 2]):
            yield f"attempts of {job_id}: {attempts}"
    for execution_id in starts.keys() - {item["executionId"] for item in items}:
        yield f"ran, and is not on record: {execution_id}"


def different_table(data: Path, items: list[Content], commands: list[Content]) -> Iterator[str]:
    layout = DataLayout(data)
    instance = json.loads(layout.instance.read_bytes())
    found = recover(layout.journal, instance["instance"], SystemClock())
    found.journal.close(found.next_seq, SystemClock().now_ms())
    if not (found.clean and found.continuous):
        yield f"journal: {found.notes} after an orderly end"
    if found.epoch != instance["epoch"]:
        yield "the epoch changed"
    views = [_less(_plain(execution_view(e, ""))) for e in found.table.executions()]
    if _by(views, "executionId") != _by([_less(i) for i in items], "executionId"):
        yield f"executions differ from the journal:\n{views}\n{items}"
    command_views = [_plain(command_view(c)) for c in found.table.commands()]
    if _by(command_views, "commandId") != _by([_less(c) for c in commands], "commandId"):
        yield f"commands differ from the journal:\n{command_views}\n{commands}"
    wanted = {f"{e.id}.json": encode_status(e) for e in found.table.executions()}
    if (there := _files(layout.status)) != wanted:
        yield f"status files differ from the table: {sorted(there.items() ^ wanted.items())}"
    wanted = {result_name(c): encode_result(c) for c in found.table.commands() if c.is_final}
    if (there := _files(layout.results)) != wanted:
        yield f"result files differ from the table: {sorted(there.items() ^ wanted.items())}"


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _plain(view: object) -> Content:
    content: Content = json.loads(msgspec.json.encode(view))
    return content


def _less(item: Content) -> Content:
    """Without what is made at the moment of the answer."""
    return {key: value for key, value in item.items() if key not in ("links", "waitingFor")}


def _by(items: list[Content], key: str) -> dict[str, Content]:
    return {item[key]: item for item in items}
