"""Prints a JSON line about the machine every few seconds, from /proc, until TERM; then exits 0.

Usage: metrics.py [SECONDS]. The latest sample is also the progress message.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from datetime import datetime, timezone
from typing import NamedTuple

STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}


class CpuTimes(NamedTuple):
    busy: int  # both in clock ticks since boot
    total: int


def main() -> int:
    interval_s = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    if not 1 <= interval_s <= 3600:
        print("SECONDS must be 1 to 3600", file=sys.stderr)
        return 2
    # Blocked and waited for below: a signal wakes the wait at once and never hits a sample.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    before = cpu_times()
    samples = 0
    while signal.sigtimedwait(STOP_SIGNALS, interval_s if samples else 0) is None:
        now = cpu_times()
        sample = take_sample(before, now)
        print(json.dumps(sample), flush=True)
        report(f"load {sample['load1']}, memory {sample['memoryPercent']}%")
        before = now
        samples += 1
    print(f"stopped after {samples} samples", file=sys.stderr)
    return 0


def take_sample(before: CpuTimes, now: CpuTimes) -> dict[str, object]:
    load1, load5, load15 = (float(word) for word in read("/proc/loadavg").split()[:3])
    total, available = memory_bytes()
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "load1": load1,
        "load5": load5,
        "load15": load15,
        "memoryBytes": total - available,
        "memoryPercent": percent(total - available, total),
        "cpuPercent": percent(now.busy - before.busy, now.total - before.total),
    }


def cpu_times() -> CpuTimes:
    """The first line of /proc/stat: user nice system idle iowait irq softirq steal …"""
    ticks = [int(word) for word in read("/proc/stat").split("\n", 1)[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    return CpuTimes(sum(ticks) - idle, sum(ticks))


def memory_bytes() -> tuple[int, int]:
    """All memory, and what could be had without swapping."""
    fields = dict(line.split(":", 1) for line in read("/proc/meminfo").splitlines() if ":" in line)
    total, available = (int(fields[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    return total * 1024, available * 1024


def percent(part: int, whole: int) -> float:
    return round(100.0 * part / whole, 1) if whole > 0 else 0.0


def read(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read()


def report(message: str) -> None:
    """One line of progress; it goes nowhere when the program is run by hand."""
    with open(os.environ.get("JOBBUS_PROGRESS") or os.devnull, "a", encoding="utf-8") as out:
        out.write(json.dumps({"message": message}) + "\n")


if __name__ == "__main__":
    sys.exit(main())
