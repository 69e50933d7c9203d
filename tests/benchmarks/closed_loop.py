"""So many callers, each doing the next call when the last one is done; rates and percentiles."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence

WARM_UP_S = 0.5


async def closed_loop(
    call: Callable[[], Awaitable[object]], callers: int, seconds: float
) -> dict[str, float]:
    """Calls per second and how long one took, after a warm-up. A call that raises is a failure:
    counted as such, and in no rate."""
    took_s: list[float] = []
    measured_from = time.perf_counter() + warm_up_s(seconds)
    end = measured_from + seconds
    total = failed = 0

    async def caller() -> None:
        nonlocal total, failed
        while (began := time.perf_counter()) < end:
            total += 1
            try:
                await call()
            except Exception:
                failed += 1
                await asyncio.sleep(0)
                continue
            done = time.perf_counter()
            if measured_from <= done < end:
                took_s.append(done - began)

    async with asyncio.TaskGroup() as group:
        for number in range(callers):
            group.create_task(caller(), name=f"caller {number}")
    figures = {"rate": len(took_s) / seconds, "count": float(total), "failed": float(failed)}
    return {**figures, **percentiles_ms(took_s)}


def warm_up_s(seconds: float) -> float:
    """How long nothing is counted at first: long enough for a short measurement, too."""
    return max(WARM_UP_S, seconds / 10)


def percentiles_ms(took_s: Sequence[float]) -> dict[str, float]:
    """The median and the 99th percentile, in milliseconds."""
    ordered = sorted(took_s)
    if not ordered:
        return {}
    return {
        "p50_ms": ordered[len(ordered) // 2] * 1000,
        "p99_ms": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000,
    }


def print_figures(figures: dict[str, float]) -> None:
    """What `contenders.child` reads."""
    print(json.dumps(figures), flush=True)
