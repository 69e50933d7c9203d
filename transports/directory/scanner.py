"""When the queue directory is scanned for the commands of others. What is found: `arrivals`."""

import asyncio
from collections.abc import Sequence

import structlog

from bus.clock import Clock
from bus.descriptors import DESCRIPTORS
from bus.layout import DataLayout
from bus.polling import FolderPolling
from bus.recurring import Recurring
from bus.scarcity import reason_of
from bus.threads import DISK
from transports.directory import disk
from transports.directory.arrivals import Arrivals
from transports.directory.pending import Pending
from transports.directory.queue_files import QueueFiles
from transports.directory.rejects import Rejects
from transports.directory.scan import DirectoryScan, Findings
from transports.directory.settings import DirectorySettings

log = structlog.get_logger("jobbus.directory")

EXAMINED_MAX = 20_000
"""Files examined in one scan, so that what comes meanwhile is not found too late."""
DUTY = 4.0
"""A scan that took a second, since there is so much that is no command, is followed by so many
seconds without one."""
SOONEST_S = 0.05
ANNOUNCED_MAX = 256
"""Names kept until they are examined; the listing finds those beyond."""
SWEEP_S = 3600.0


class Scanner:
    """Scans when the watch announces a change and from time to time anyway.

    `_announced` has the names that the watch gave since the last scan, and `_woken` is set when
    there is anything to scan for: `wake` writes both, `run` takes them. `_swept_s` and `_rejects_s`
    are when `.tmp` was swept and Rejects were examined last; only `run` writes them. `polling`
    decides how often to scan without an announcement.
    """

    def __init__(
        self,
        layout: DataLayout,
        settings: DirectorySettings,
        clock: Clock,
        pending: Pending,
        scan: DirectoryScan,
        files: QueueFiles,
        rejects: Rejects,
        polling: FolderPolling,
        arrivals: Arrivals,
    ) -> None:
        self._layout = layout
        self._settings = settings
        self._clock = clock
        self._pending = pending
        self._scan = scan
        self._files = files
        self._rejects = rejects
        self._arrivals = arrivals
        self._woken = asyncio.Event()
        self._announced: dict[str, None] = {}
        self._troubles = Recurring(log)
        self._swept_s = self._rejects_s = clock.monotonic_s()
        self.polling = polling

    def wake(self, names: Sequence[str] = ()) -> None:
        """There may be something new; something under these names if any are known."""
        self._announced.update(dict.fromkeys(names[: ANNOUNCED_MAX - len(self._announced)]))
        self._woken.set()

    async def run(self) -> None:
        """Scans for ever."""
        while True:
            woken = await self._wait()
            pause_s = 0.0
            try:
                pause_s = await self._scan_once(woken)
            except OSError as error:
                if DESCRIPTORS.release_for(error):
                    self.wake()
                    continue
                self._troubles.say(f"the queue directory cannot be read: {reason_of(error)}")
                await self._make_directories()
            else:
                self._troubles.over("the queue directory can be read again")
            if pause_s:
                await self._pause(pause_s)

    async def scan(self, limit: int | None, *, woken: bool) -> float:
        """Everything found is pending; the seconds to leave the directory alone."""
        now_s = self._clock.monotonic_s()
        if woken:
            self.polling.looks()
        findings = await DISK.run(self._scan_with_rejects, limit, woken, now_s)
        if not woken:
            self.polling.found(findings.fresh, now_s)
        await self._arrivals.take(findings)
        if findings.more:
            self.wake()
            return 0.0
        return min(DUTY * findings.busy_s, self._settings.scan_interval_s)

    async def _scan_once(self, woken: bool) -> float:
        if self._clock.monotonic_s() - self._swept_s > SWEEP_S:
            self._swept_s = self._clock.monotonic_s()
            await DISK.run(self._files.sweep)
        if self._announced:
            await self._scan_announced()
        return await self.scan(EXAMINED_MAX, woken=woken)

    async def _scan_announced(self) -> None:
        names, self._announced = list(self._announced), {}
        findings = await DISK.run(self._scan.scan_names, names, self._pending)
        await self._arrivals.take(findings)

    def _scan_with_rejects(self, limit: int | None, woken: bool, now_s: float) -> Findings:
        """Blocking. Unless woken, what was rejected is examined first: it may have come back."""
        came_back = False
        if not woken and now_s - self._rejects_s >= self._settings.scan_interval_s / 2:
            self._rejects_s = now_s
            came_back = self._rejects.come_back() > 0
        must_list = woken or came_back or self.polling.is_full_look_due(now_s)
        findings = self._scan.scan(self._pending, limit, must_list=must_list)
        if came_back:
            findings.fresh.clear()
        return findings

    async def _wait(self) -> bool:
        """Until the next scan is due; whether something woke it before."""
        interval_s = self.polling.interval_s
        due_in_s = self._scan.due_in_s
        if due_in_s is not None:
            interval_s = min(interval_s, max(due_in_s, SOONEST_S))
        try:
            async with asyncio.timeout(interval_s):
                await self._woken.wait()
        except TimeoutError:
            return False
        self._woken.clear()
        return True

    async def _pause(self, pause_s: float) -> None:
        """The directory is not listed meanwhile. What is announced by its name is examined all the
        same: no command waits for what others have piled up."""
        until_s = self._clock.monotonic_s() + pause_s
        is_owed = False
        while (left_s := until_s - self._clock.monotonic_s()) > 0:
            try:
                async with asyncio.timeout(left_s):
                    await self._woken.wait()
            except TimeoutError:
                break
            self._woken.clear()
            is_owed = True
            if self._announced:
                await self._scan_announced()
        if is_owed:
            self.wake()

    async def _make_directories(self) -> None:
        """The directory is there again if it was removed; else the next scan reports it."""
        try:
            await DISK.run(disk.make_directory, self._layout.queue_tmp)
        except OSError as error:
            self._troubles.say(f"the queue directory cannot be made: {reason_of(error)}", "made")
        await asyncio.sleep(self._settings.scan_interval_s)
        self.wake()
