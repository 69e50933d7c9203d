"""Kills one process of a service under load at one of its calls to the disk, and looks after it.

`sweep` goes through the calls one after the other until the load passes without a kill.
"""

import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.load import (
    Dead,
    Load,
    SeamService,
    define,
    define_timed,
    torn_files,
    verify,
)
from tests.faults.seam import Plan
from tests.faults.simultaneous import all_killed_at

AT_ONCE = 6
PAUSE_S = 0.1
"""Between the tries of those who meet an error that passes."""

UNCLEAR = ("Traceback", "unexpected", "never retrieved")
"""What no message that a disk failed should contain."""

QUIET_ENDS = 2
"""So many trials in a row must pass without a kill until a sweep is at its end."""


@dataclass(frozen=True)
class Aim:
    """Which process dies when. `again`: in the start after a crash under load, not in the first.

    With the action `fail` none is killed: the call fails with the errno `number`. `together`: who
    comes to the call freezes there, and service, spawner and all shims are killed (`simultaneous`).
    """

    role: str
    at: int
    action: str = "kill"
    calls: tuple[str, ...] = ()
    shim: int = 0
    again: bool = False
    number: int = 0
    together: bool = False


@dataclass
class Verdict:
    """What came of one trial; `struck` names the call before which somebody died."""

    aim: Aim
    struck: str = ""
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.aim}\n  {self.struck}\n  " + "\n  ".join(self.violations)


def attempt(root: Path, aim: Aim) -> Verdict:
    """One whole life of a data directory: a load with a death in it, a restart, and the truth."""
    service = SeamService(root)
    define(service.apps)
    define_timed(service.apps)
    load = Load(service, deaths=2 if aim.again else 1)
    verdict = Verdict(aim)
    try:
        verdict.violations.extend(_live(service, load, aim))
    except (AssertionError, Dead, OSError, subprocess.TimeoutExpired) as error:
        verdict.violations.append(f"{type(error).__name__}: {error}"[:2000])
        verdict.violations.append(service.log.read_text(encoding="utf-8")[-2000:])
    finally:
        service.clear_away()
        mark = root / "struck"
        verdict.struck = mark.read_text(encoding="utf-8").strip() if mark.exists() else ""
    if not verdict.violations:
        shutil.rmtree(root)
    return verdict


def _live(service: SeamService, load: Load, aim: Aim) -> Iterator[str]:
    if aim.again:
        service.start()
        load.begin()
        service.kill9()
    mark = service.root / "struck"
    _arm(service, aim, mark)
    together = all_killed_at(mark, service, aim.at) if aim.together else nullcontext()
    with together:
        finished = service.try_start() and (_resume(load) if aim.again else load.run())
        if finished and aim.role == "service":
            finished = service.end() == 0
    if not finished and not mark.exists():
        yield "it died by itself"
    if aim.role == "service" or (aim.together and not finished):
        if not finished and aim.action == "fail":
            yield from _unclear_end(service)
        elif not finished:
            service.bury()
        yield from (f"torn after the crash: {name}" for name in torn_files(service.data))
        service.disarm()
        service.start()
    load.settle()
    reported = os.strerror(aim.number) if aim.action == "fail" else ""
    # A process that the system does not give is the end of the start that needed it.
    unstarted = reported if aim.role == "spawner" else ""
    exact_ends = not (aim.role == "shim" or aim.together)
    yield from verify(load, exact_ends=exact_ends, reported=reported, unstarted=unstarted)


def _unclear_end(service: SeamService) -> Iterator[str]:
    """A service that cannot go on says why, in a sentence, and ends by itself."""
    code = service.wait_for_end()
    if code != 1:
        yield f"it ended with {code}"
    text = service.log.read_text(encoding="utf-8")
    if not any(line.startswith("jobbus: ") for line in text.splitlines()):
        yield f"it did not say why it ended: {text[-500:]}"
    yield from (f"it said: {word} {text[-1500:]}" for word in UNCLEAR if word in text)
    service.log.write_text("", encoding="utf-8")


def _resume(load: Load) -> bool:
    try:
        load.settle()
    except Dead:
        return False
    return True


def _arm(service: SeamService, aim: Aim, mark: Path) -> None:
    service.plan = Plan(
        root=str(service.root),
        role=aim.role,
        at=aim.at,
        action="freeze" if aim.together else aim.action,
        calls=aim.calls,
        shim=aim.shim,
        number=aim.number,
        mark=str(mark),
        pause_s=PAUSE_S if aim.action == "fail" else 0.0,
    )


def attempt_all(root: Path, aims: Sequence[Aim]) -> list[Verdict]:
    """A trial for each, several beside one another."""
    places = [root / f"trial-{number}" for number in range(len(aims))]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(attempt, places, aims))


def sweep(
    root: Path, aims: Callable[[int], Aim], report: Callable[[str], None] = lambda _: None
) -> list[Verdict]:
    """The verdicts of all calls, `aims(1)`, `aims(2)` … until nothing is struck any more."""
    verdicts: list[Verdict] = []
    for first in itertools.count(1, 2 * AT_ONCE):
        now = [aims(at) for at in range(first, first + 2 * AT_ONCE)]
        found = attempt_all(root / f"from-{first}", now)
        verdicts += [verdict for verdict in found if verdict.struck or verdict.violations]
        for verdict in found:
            if verdict.violations:
                report(str(verdict))
        if not any(verdict.struck for verdict in found[-QUIET_ENDS:]):
            break
    return verdicts
