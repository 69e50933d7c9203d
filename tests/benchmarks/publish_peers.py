"""Child: durable enqueue of embeddable queue libraries, threads as producers.

PEER FOLDER SECONDS PRODUCERS
"""

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.closed_loop import percentiles_ms, print_figures, warm_up_s

PAYLOAD = {"Command": "start", "JobID": "WebHostMetrics/CollectMetrics", "Fill": "x" * 300}


def persist_queue(folder: Path) -> Callable[[], Any]:
    from persistqueue import SQLiteAckQueue  # imported here: only this peer pays for it

    queue = SQLiteAckQueue(str(folder), multithreading=True, auto_commit=True)
    return lambda: queue.put(PAYLOAD)


def huey(folder: Path) -> Callable[[], Any]:
    from huey import SqliteHuey  # type: ignore[import-untyped,unused-ignore]

    queue = SqliteHuey(filename=str(folder / "huey.db"))

    def start(payload: dict[str, str]) -> None:
        """Never called: only its enqueueing is measured."""

    task = queue.task()(start)
    return lambda: task(PAYLOAD)


def main(peer: str, folder: Path, seconds: float, producers: int) -> None:
    put = {"persist-queue": persist_queue, "huey": huey}[peer](folder)
    put()
    took_s: list[float] = []
    counts: list[tuple[int, int]] = []
    measured_from = time.perf_counter() + warm_up_s(seconds)
    end = measured_from + seconds

    def produce() -> None:
        total = failed = 0
        while (began := time.perf_counter()) < end:
            total += 1
            try:
                put()
            except Exception:
                failed += 1
                continue
            done = time.perf_counter()
            if measured_from <= done < end:
                took_s.append(done - began)
        counts.append((total, failed))

    threads = [threading.Thread(target=produce) for _ in range(producers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = len(took_s) / seconds
    total, failed = (float(sum(numbers)) for numbers in zip(*counts, strict=True))
    print_figures({"rate": rate, "count": total, "failed": failed, **percentiles_ms(took_s)})


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
