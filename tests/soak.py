"""Everything at once for minutes: each command by each door, readers, random deaths, and the truth.

`python -m tests.soak --minutes 10 --seed 7` prints its seed, what was done and what was wrong; the
exit code is 1 if anything was. In the last third the service itself is left alive, so that its
memory can be compared with what a fresh one needs for the same tables.
"""

import argparse
import asyncio
import contextlib
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp

from bus.lifecycle import may_follow
from bus.model import ExecutionStatus
from tests.faults.load import different_table, torn_files
from tests.jobs import Apps
from tests.raw_stream import RawStream
from tests.service import (
    FINAL,
    ROOT,
    Service,
    children_of,
    is_alive,
    jobs_of,
    kill,
    processes_of,
)
from tests.socket_client import open_socket

Content = dict[str, Any]

STAMP = 'echo "$JOBBUS_EXECUTION_ID" >> "$BOARD/starts"; '
STAYS = 'until [ -e "$BOARD/release" ]; do sleep 0.2; done'
SOON = {"delay_s": 0.1, "jitter": 0.5}
WORKERS = 5
READERS = 3
AT_ONCE_S = 20.0
SETTLE_S = 120.0
MEMORY_SLACK = 1.5
MEMORY_FLOOR = 24 << 20
"""So much more than a fresh service may an old one need: what it has handled leaves holes."""

KEEP = "[keep]\nexecutions = 1000000\ncommands = 1000000\nstatus_s = 1000000\n"
"""Nothing is forgotten: each command is looked for at the end."""


def define(apps: Apps) -> None:
    apps.shell("K/Quick", STAMP + "exit 0", overlap="queue", max_running=3)
    apps.shell("K/Fails", STAMP + "exit 3", max_running=5)
    apps.shell("K/Talks", STAMP + 'for n in 1 2 3 4 5; do echo $n0% >> "$JOBBUS_PROGRESS"; '
               "echo line $n; sleep 0.1; done", max_running=5)  # fmt: skip
    twice = STAMP + '[ "$JOBBUS_ATTEMPT" -ge 3 ] || exit 4'
    apps.shell("K/Retried", twice, max_running=5, retry={"attempts": 3, **SOON})
    restart = {"policy": "on-failure", "limit": 3, "limit_window_s": 5}
    apps.shell("K/Restarted", STAMP + "exit 5", retry=SOON, restart=restart)
    apps.shell("K/Kept", STAMP + STAYS, retry=SOON, restart={"policy": "always", "limit": 1000})
    apps.shell("K/Stays", STAMP + STAYS, max_running=3)
    apps.shell("K/Replace", STAMP + "sleep 1", overlap="replace")
    apps.shell("K/Skip", STAMP + "sleep 0.5", overlap="skip")
    apps.shell("K/Tree", STAMP + f"({STAYS}) & ({STAYS}) & wait", max_running=2)
    deaf = f"trap '' TERM; {STAMP}{STAYS}"
    apps.shell("K/Deaf", deaf, stop_grace_s=0.3, max_running=2)


JOBS = (
    "K/Quick", "K/Fails", "K/Talks", "K/Retried", "K/Restarted", "K/Kept", "K/Stays", "K/Replace",
    "K/Skip", "K/Tree", "K/Deaf",
)  # fmt: skip
VERBS = ("start", "stop", "restart", "status", "cancel", "retry", "delete")
WEIGHTS = (50, 14, 10, 6, 6, 8, 6)
DOORS = ("http", "batch", "socket", "file", "cli")
DOOR_WEIGHTS = (50, 12, 18, 18, 2)
AWAY = (aiohttp.ClientError, ConnectionError, TimeoutError, EOFError, OSError)


class Book:
    """What was asked for and what came of the asking."""

    def __init__(self) -> None:
        self.tried: dict[str, Content] = {}
        self.accepted: set[str] = set()
        self.executions: list[str] = []
        self.commands: list[str] = []
        self.deleted: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.memory: list[int] = []

    def accept(self, command_id: str) -> None:
        self.accepted.add(command_id)
        self.commands.append(command_id)
        del self.commands[:-500]


class Reader:
    """One who follows all executions and comes back by id: each state follows from the one before.

    A `reset` is an announced loss: what was known is forgotten.
    """

    def __init__(self, book: Book, number: int) -> None:
        self._book = book
        self._number = number
        self._known: dict[str, str] = {}
        self._last = ""

    async def run(self, service: Service) -> None:
        while True:
            with contextlib.suppress(*AWAY, AssertionError):
                await self._follow(service)
            await asyncio.sleep(0.2)

    async def _follow(self, service: Service) -> None:
        headers = {"Last-Event-ID": self._last} if self._last else {}
        target = "/api/v1/events?type=execution.*"
        stream = await RawStream.open(service.port, target, service.token, headers)
        async with stream:
            self._book.counts["streams opened"] += 1
            while True:
                event = await stream.next()
                if event.kind == "reset":
                    self._known.clear()
                    self._book.counts["resets"] += 1
                elif event.kind == "snapshot":
                    for item in event.data["items"]:
                        self._known[item["executionId"]] = item["status"]
                elif event.kind == "change":
                    self.change(event.data)
                if event.id is not None:
                    self._last = event.id

    def change(self, event: Content) -> None:
        self._book.counts["changes read"] += 1
        execution_id = event["execution"]
        if event["type"] == "execution.deleted":
            self._known.pop(execution_id, None)
            return
        now = event["data"]["status"]
        before = self._known.get(execution_id)
        self._known[execution_id] = now
        if before is None:
            is_gap = now != "Queued"
        else:
            is_gap = before != now and not may_follow(ExecutionStatus(before), ExecutionStatus(now))
        if is_gap:
            self._book.wrong.append(f"reader {self._number}: {execution_id} {before} -> {now}")


class Soak:
    """One run. All randomness is that of the seed; how fast things go is the machine's."""

    def __init__(self, root: Path, minutes: float, seed: int) -> None:
        self.random = random.Random(seed)
        self.service = Service(root)
        self.config = root / "jobbus.toml"
        self.config.write_text(KEEP, encoding="utf-8")
        self.book = Book()
        self.up = asyncio.Event()
        self.until_s = time.monotonic() + minutes * 60
        self.calm_s = time.monotonic() + minutes * 40
        define(self.service.apps)

    async def run(self) -> list[str]:
        """What was wrong."""
        await self._start()
        began_s = time.monotonic()
        readers = [Reader(self.book, number) for number in range(READERS)]
        following = [asyncio.create_task(one.run(self.service), name="reader") for one in readers]
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(WORKERS):
                    group.create_task(self._work(), name=f"worker {number}")
                group.create_task(self._strike(), name="killer")
                group.create_task(self._watch(), name="memory")
            await self._settle()
        finally:
            for task in following:
                task.cancel()
            await asyncio.wait(following)
        self.book.counts["seconds"] = round(time.monotonic() - began_s)
        await asyncio.to_thread(lambda: self.book.wrong.extend(self._verify()))
        return self.book.wrong

    @property
    def _goes_on(self) -> bool:
        return time.monotonic() < self.until_s

    async def _start(self) -> None:
        await asyncio.to_thread(self.service.start, "--config", str(self.config))
        self.up.set()

    # -- those who ask

    async def _work(self) -> None:
        while self._goes_on:
            await self.up.wait()
            door = self.random.choices(DOORS, DOOR_WEIGHTS)[0]
            try:
                async with asyncio.timeout(AT_ONCE_S):
                    await getattr(self, f"_by_{door}")()
            except AWAY as error:
                self.book.counts[f"{door}: no answer"] += 1
                if not isinstance(error, TimeoutError):
                    await asyncio.sleep(0.05)
            except Exception as error:
                if self.up.is_set():
                    self.book.wrong.append(f"{door}: {type(error).__name__}: {error}"[:500])
            await asyncio.sleep(self.random.random() * 0.08)

    def _command(self) -> Content:
        verb = self.random.choices(VERBS, WEIGHTS)[0]
        job_id = self.random.choice(JOBS)
        command: Content = {"command": verb, "commandId": self._new_id()}
        executions, commands = self.book.executions[-100:], self.book.commands[-50:]
        if verb in ("retry", "delete") and executions:
            command["executionId"] = self.random.choice(executions)
        elif verb == "cancel" and commands:
            command["targetId"] = self.random.choice(commands)
        elif verb in ("start", "stop", "restart", "status"):
            command["jobId"] = job_id
            if verb == "stop" and self.random.random() < 0.3:
                command["kill"] = True
        else:
            command |= {"command": "start", "jobId": job_id}
        self.book.tried[command["commandId"]] = command
        self.book.counts[f"tried {command['command']}"] += 1
        return command

    def _new_id(self) -> str:
        return str(UUID(int=self.random.getrandbits(128), version=4))

    def _note(self, door: str, command: Content, answer: Content | None) -> None:
        """The service took it; `answer` may name its execution."""
        self.book.accept(command["commandId"])
        self.book.counts[f"{door}: accepted"] += 1
        if command["command"] == "delete":
            self.book.deleted.add(command["executionId"])
        execution_id = (answer or {}).get("executionId")
        if execution_id:
            self.book.executions.append(execution_id)
            del self.book.executions[:-300]

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[aiohttp.ClientSession]:
        headers = {"Authorization": f"Bearer {self.service.token}"}
        async with aiohttp.ClientSession(self.service.url, headers=headers) as session:
            yield session

    async def _by_http(self) -> None:
        command = self._command()
        headers = {"Prefer": "wait=2"} if self.random.random() < 0.5 else {}
        times = 2 if self.random.random() < 0.15 else 1  # a repeat is the same command
        async with self._session() as session:
            for _ in range(times):
                async with session.post(
                    "/api/v1/commands", json=command, headers=headers
                ) as answer:
                    body = await answer.json(content_type=None)
                    if answer.status in (200, 202):
                        self._note("http", command, body)
                    elif answer.status >= 500 and answer.status not in (503, 507):
                        self.book.wrong.append(f"http: {answer.status} {body}"[:500])

    async def _by_batch(self) -> None:
        commands = [self._command() for _ in range(self.random.randint(2, 12))]
        text = "\n".join(map(json.dumps, commands))
        kind = {"Content-Type": "application/x-ndjson"}
        async with (
            self._session() as session,
            session.post("/api/v1/commands", data=text, headers=kind) as answer,
        ):
            lines = [json.loads(line) for line in (await answer.text()).splitlines()]
        for command, line in zip(commands, lines, strict=False):
            if "commandId" in line and "problem" not in line:
                self._note("batch", command, None)

    async def _by_socket(self) -> None:
        async with open_socket(self.service.url, self.service.token) as socket:
            for number in range(self.random.randint(1, 5)):
                command = self._command()
                await socket.say("publish", ref=str(number), command=command)
                frames = await socket.until_it(lambda frame, ref=str(number): frame.ref == ref)  # type: ignore[misc]
                if frames[-1].op == "result":
                    self._note("socket", command, frames[-1].data)

    async def _by_file(self) -> None:
        command = self._command()
        names = {"commandId": "CommandID", "command": "Command", "jobId": "JobID",
                 "executionId": "ExecutionID", "targetId": "TargetID", "kill": "Kill"}  # fmt: skip
        fields = {names[name]: value for name, value in command.items()}
        fields |= {"UserID": "alice", "Roles": ["operator"], "Status": "Pending"}
        queue = self.service.data / "JobCommandQueue"
        draft = queue / ".tmp" / f"{command['commandId']}.draft"
        await asyncio.to_thread(draft.write_text, json.dumps(fields), encoding="utf-8")
        draft.rename(queue / f"{command['commandId']}.json")
        self._note("file", command, None)

    async def _by_cli(self) -> None:
        job_id = self.random.choice(JOBS)
        verb = self.random.choice(("start", "stop", "status"))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jobbus", verb, job_id),
            *(["--json"] if verb != "status" else []),
            cwd=ROOT,
            env=self.service.environment() | {"JOBBUS_DATA": str(self.service.data)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        out, _ = await process.communicate()
        self.book.counts[f"cli: exit {process.returncode}"] += 1
        if verb != "status" and process.returncode == 0 and out:
            answer = json.loads(out)
            command = {"command": verb, "jobId": job_id, "commandId": answer["commandId"]}
            self.book.tried[answer["commandId"]] = command
            self._note("cli", command, answer)

    # -- deaths

    async def _strike(self) -> None:
        while self._goes_on:
            await asyncio.sleep(self.random.uniform(1.5, 6.0))
            ways = ["spawner", "shim", "shims"]
            if time.monotonic() < self.calm_s:
                ways += ["service", "service", "all", "restart"]
            how = self.random.choice(ways)
            self.book.counts[f"killed: {how}"] += 1
            await self._kill(how)

    async def _kill(self, how: str) -> None:
        spawners = [pid for pid in children_of(self.service.pid) if _is(pid, "jobbus: spawner")]
        shims = [pid for pid in processes_of(self.service.data) if _is(pid, "jobbus: shim")]
        match how:
            case "spawner":
                self._end(spawners)
            case "shim":
                self._end(self.random.sample(shims, min(1, len(shims))))
            case "shims":
                self._end(self.random.sample(shims, len(shims) // 2))
            case "restart":
                self.up.clear()
                code = await asyncio.to_thread(self.service.end)
                if code != 0:
                    self.book.wrong.append(f"an orderly end gave {code}")
                await self._start()
            case _:
                self.up.clear()
                if how == "all":
                    self._end([*shims, *spawners])
                await asyncio.to_thread(self.service.kill9)
                self.book.wrong += [f"torn: {name}" for name in torn_files(self.service.data)]
                await self._start()

    def _end(self, pids: list[int]) -> None:
        for pid in pids:
            kill(pid, signal.SIGKILL)

    async def _watch(self) -> None:
        while self._goes_on:
            await asyncio.sleep(2.0)
            if self.up.is_set():
                self.book.memory.append(private_bytes(self.service.pid))

    # -- the end

    async def _settle(self) -> None:
        """What was accepted has ended, and nothing runs: what would stay is stopped."""
        deadline_s = time.monotonic() + SETTLE_S
        async with self._session() as session:
            while True:
                live = [e for e in await self._all(session, "executions") if not _is_over(e)]
                open_ = [c for c in await self._all(session, "commands") if not _is_ended(c)]
                waiting = self.service.queue_files()
                if not (live or open_ or waiting):
                    return
                if time.monotonic() > deadline_s:
                    left = f"{live[:3]} {open_[:3]} {waiting[:3]}"
                    self.book.wrong.append(f"never came to an end: {left}"[:2000])
                    return
                for job_id in {e["jobId"] for e in live}:
                    stop = {"command": "stop", "jobId": job_id, "kill": True}
                    async with session.post("/api/v1/commands", json=stop) as answer:
                        body = await answer.json()
                        if answer.status == 202:
                            self.book.tried[body["commandId"]] = stop
                await asyncio.sleep(0.5)

    async def _all(self, session: aiohttp.ClientSession, what: str) -> list[Content]:
        items: list[Content] = []
        cursor = ""
        while True:
            async with session.get(f"/api/v1/{what}?limit=500{cursor}") as answer:
                page = await answer.json()
            items += page["items"]
            if page["next"] is None:
                return items
            cursor = f"&cursor={page['next']}"

    def _verify(self) -> Iterator[str]:
        executions, commands = asyncio.run(self._tables())
        self.book.counts |= {"executions": len(executions), "commands": len(commands)}
        self.book.memory.append(private_bytes(self.service.pid))
        yield from self._compare(executions, commands)
        code = self.service.end()
        if code != 0:
            yield f"the last end gave {code}"
        yield from different_table(self.service.data, executions, commands)
        yield from (f"torn: {name}" for name in torn_files(self.service.data))
        yield from (f"still in the queue: {name}" for name in self.service.queue_files())
        yield from (f"still runs: {pid}" for pid in jobs_of(self.service.data) if is_alive(pid))
        yield from (f"log: {line}"[:500] for line in self.service.complaints())
        yield from self._compare_memory()

    async def _tables(self) -> tuple[list[Content], list[Content]]:
        async with self._session() as session:
            return await self._all(session, "executions"), await self._all(session, "commands")

    def _compare(self, executions: list[Content], commands: list[Content]) -> Iterator[str]:
        """Each accepted command has one result; what ran ran once, and is known."""
        book = self.book
        known = {command["commandId"]: command for command in commands}
        for command_id in book.accepted - known.keys():
            yield f"lost: {book.tried[command_id]}"
        for command_id in known.keys() - book.tried.keys():
            if known[command_id]["userId"] not in ("admin", "alice"):
                yield f"from nowhere: {known[command_id]}"
        for command_id in book.accepted & known.keys():
            if self.service.result(command_id) is None:
                yield f"no result file: {known[command_id]}"
        first = Counter(e["commandId"] for e in executions if not e["cause"])
        yield from (f"{n} executions of {c}" for c, n in first.items() if n > 1)
        followed = Counter(e["previous"] for e in executions if e["cause"])
        yield from (f"{i} was followed {n} times" for i, n in followed.items() if n > 1)
        ran = Counter(self.service.apps.lines("starts"))
        book.counts["programs run"] = len(ran)
        yield from (f"{i} ran {n} times" for i, n in ran.items() if n > 1)
        ids = {e["executionId"] for e in executions}
        yield from (f"ran, and is not known: {i}" for i in ran.keys() - ids - book.deleted)
        for execution in executions:
            if execution["status"] == "Succeeded" and execution["executionId"] not in ran:
                yield f"succeeded without running: {execution}"

    def _compare_memory(self) -> Iterator[str]:
        """A fresh service with the same tables is the measure."""
        self.service.start("--config", str(self.config))
        asyncio.run(self._tables())  # the same questions, so that both have answered them
        fresh = private_bytes(self.service.pid)
        self.service.end()
        last = self.book.memory[-1]
        self.book.counts["private MiB, fresh"] = fresh >> 20
        self.book.counts["private MiB, at the end"] = last >> 20
        self.book.counts["private MiB, most"] = max(self.book.memory) >> 20
        if last > fresh * MEMORY_SLACK + MEMORY_FLOOR:
            yield f"the service held {last >> 20} MiB, a fresh one needs {fresh >> 20} MiB"


def private_bytes(pid: int) -> int:
    """What a process has for itself alone; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def _is(pid: int, name: str) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() == name[:15]
    except OSError:
        return False


def _is_over(execution: Content) -> bool:
    return execution["status"] in FINAL


def _is_ended(command: Content) -> bool:
    return command["status"] not in ("Pending", "Running")


def soak(root: Path, minutes: float, seed: int) -> Soak:
    """A finished run; `book.wrong` is what was wrong."""

    async def whole() -> Soak:
        made = Soak(root, minutes, seed)
        try:
            await made.run()
        finally:
            await asyncio.to_thread(made.service.clear_away)
        return made

    return asyncio.run(whole())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    given = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="jobbus-soak-"))
    print(f"seed {given.seed}, {given.minutes:g} minutes, in {root}", flush=True)
    book = soak(root, given.minutes, given.seed).book
    for name, number in sorted(book.counts.items()):
        print(f"{number:>9} {name}")
    accepted = len(book.accepted)
    print(f"{accepted:>9} commands accepted, each looked for; violations: {len(book.wrong)}")
    for line in book.wrong[:50]:
        print(f"WRONG {line}")
    if not book.wrong:
        shutil.rmtree(root, ignore_errors=True)
    return 1 if book.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
