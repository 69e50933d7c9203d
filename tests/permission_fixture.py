"""Jobs of all kinds of `[roles]`, people of all kinds of roles, and what the contract says of both.

`expected` is written from the words of the contract alone and knows no code of the service.
"""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from tests.jobs import WAITING, Apps
from tests.service import Http, Service, eventually_answered, running_service

ACTIONS = ("view", "start", "stop", "restart", "output")
DEFAULTS = {
    "view": ("viewer", "operator"),
    "start": ("operator",),
    "stop": ("operator",),
    "restart": ("operator",),
    "output": ("operator",),
}


class Verdict(StrEnum):
    ALLOWED = "allowed"
    REFUSED = "refused"
    HIDDEN = "hidden"


@dataclass(frozen=True)
class Person:
    name: str
    roles: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """A job with its own lists. What `is_gone` was taken from the catalog after it ran."""

    name: str
    lists: dict[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    is_gone: bool = False

    @property
    def id(self) -> str:
        return f"P/{self.name}"

    @property
    def idle_id(self) -> str:
        """The same lists, and one execution of the admin's that ignores a stop."""
        return f"L/{self.name}"


PEOPLE = (
    Person("root", ("admin",)),
    Person("olga", ("operator",)),
    Person("vera", ("viewer",)),
    Person("owen", ("outsider",)),  # has started one execution of each job, when he still might
    Person("sam", ("outsider",)),
    Person("carl", ("crew",)),
    Person("stan", ("staff",)),
    Person("mary", ("viewer", "crew", "staff")),
)
STAFF_ONLY: dict[str, tuple[str, ...]] = {"view": ("staff",)}
JOBS = (
    Job("Default"),
    Job(
        "Custom",
        {
            "view": ("crew", "viewer"),
            "start": ("crew",),
            "stop": ("crew", "staff"),
            "restart": ("operator",),
            "output": ("viewer",),
        },
    ),
    Job("Hidden", STAFF_ONLY),
    Job("Work", {"view": ("staff",), **dict.fromkeys(ACTIONS[1:], ("crew", "staff"))}),
    Job("Closed", dict.fromkeys(ACTIONS, ())),
    Job("Faulty", STAFF_ONLY),
    Job("Gone", STAFF_ONLY, is_gone=True),
)
OWNER = PEOPLE[3]


def expected(person: Person, action: str, job: Job, owner: str | None = None) -> Verdict:
    """What the contract says (DESIGN §8).

    "Roles are words. `admin` may all. A job's lists say who may view, start, stop, restart, read
    output; a missing list takes the configured default. Who started an execution may view it, read
    its output and stop it. What one may not view does not exist."
    """
    owns = owner == person.name

    def may(what: str) -> bool:
        if "admin" in person.roles or (owns and what in ("view", "output", "stop")):
            return True
        return any(role in job.lists.get(what, DEFAULTS[what]) for role in person.roles)

    if not may("view"):
        return Verdict.HIDDEN
    return Verdict.ALLOWED if may(action) else Verdict.REFUSED


def expected_of_job(person: Person, action: str, job: Job) -> Verdict:
    """The same of the job itself, which may not be there any more."""
    return Verdict.HIDDEN if job.is_gone else expected(person, action, job)


@dataclass(frozen=True)
class Run:
    """One execution and the command that started it."""

    job: Job
    owner: str
    is_live: bool
    execution_id: str
    command_id: str
    attempt: int = 1

    def __str__(self) -> str:
        again = "" if self.attempt == 1 else f", attempt {self.attempt}"
        return f"{self.owner}'s {'live' if self.is_live else 'ended'} {self.job.id}{again}"


class PermissionService:
    """A service with two live executions of each job and six that have ended, two of them made by
    the policy that retries; and a token a person."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.tokens: dict[str, str] = {}
        self.runs: list[Run] = []

    @property
    def ended(self) -> list[Run]:
        return [run for run in self.runs if not run.is_live]

    @property
    def live(self) -> list[Run]:
        return [run for run in self.runs if run.is_live]

    async def fill(self) -> None:
        async with self.service.http() as root:
            for person in PEOPLE:
                self.tokens[person.name] = await self._token(root, person.name, *person.roles)
            once_admin = await self._token(root, OWNER.name, "admin")
            for name, token in (("root", self.tokens["root"]), (OWNER.name, once_admin)):
                self.service.token = token
                async with self.service.http() as http:
                    # Retries before what stays: that takes a slot for good.
                    pairs = await asyncio.gather(*(self._retried(http, j, name) for j in JOBS))
                    self.runs += [run for pair in pairs for run in pair]
                    for is_live in (False, True):
                        made = (self._run(http, job, name, is_live=is_live) for job in JOBS)
                        self.runs += await asyncio.gather(*made)
            for job in JOBS:
                await root.start(job.idle_id)
            self._take_away()
            await eventually_answered(lambda: self._catalog_is_read(root), "the catalog is read")

    async def _token(self, http: Http, user: str, *roles: str) -> str:
        made = await http.call("POST", "/tokens", {"userId": user, "roles": roles})
        assert made.status == 201, made.body
        token: str = made.json["token"]
        return token

    async def _run(self, http: Http, job: Job, owner: str, *, is_live: bool) -> Run:
        variables = {"Stay": is_live}
        answer = await http.publish(20, command="start", jobId=job.id, variables=variables)
        assert answer["outcome"] == "done", answer
        if not is_live:
            await http.ended(answer["executionId"])
        return Run(job, owner, is_live, answer["executionId"], answer["commandId"])

    async def _retried(self, http: Http, job: Job, owner: str) -> tuple[Run, Run]:
        """One that failed, and the retry that the definition ordered: it belongs to the same."""
        answer = await http.publish(20, command="start", jobId=job.id, variables={"Fail": True})
        assert answer["outcome"] == "done", answer
        await http.ended(answer["executionId"])
        newest = await http.executions(job.id)
        retry = next(e for e in newest if e["previous"] == answer["executionId"])
        await http.ended(retry["executionId"])
        first = Run(job, owner, False, answer["executionId"], answer["commandId"])
        return first, Run(job, owner, False, retry["executionId"], answer["commandId"], 2)

    def _take_away(self) -> None:
        for job in JOBS:
            if job.is_gone:
                shutil.rmtree(self.service.apps.folder(job.id))
        faulty = self.service.apps.definition("P/Faulty")
        faulty.write_text("command = 7\n", encoding="utf-8")

    async def _catalog_is_read(self, root: Http) -> bool:
        gone = await root.call("GET", "/jobs/P/Gone")
        faulty = await root.get("/jobs/P/Faulty")
        return gone.status == 404 and faulty["fault"] is not None


def define(apps: Apps) -> None:
    flag = {"type": "boolean", "default": False}
    retry = {"attempts": 2, "delay_s": 0.0}
    for job in JOBS:
        script = f"echo said; {WAITING.format(name='never')}"
        roles = {action: list(words) for action, words in job.lists.items()}
        apps.shell(
            job.id,
            f'[ "$JOBBUS_VAR_Fail" = false ] || {{ echo said; exit $((2 - JOBBUS_ATTEMPT)); }}; '
            f'[ "$JOBBUS_VAR_Stay" = true ] || {{ echo said; exit 0; }}; {script}',
            max_running=2,
            variables={"Stay": flag, "Fail": flag},
            retry=retry,
            roles=roles,
        )
        deaf = f"trap '' TERM; {WAITING.format(name='never')}"
        apps.shell(job.idle_id, deaf, stop_grace_s=86_400, roles=roles)


@contextmanager
def permission_service(root: Path) -> Iterator[PermissionService]:
    """After a restart: what is known must not be so from memory alone."""
    with running_service(root, define) as service:
        permissions = PermissionService(service)
        asyncio.run(permissions.fill())
        service.restart()
        yield permissions
