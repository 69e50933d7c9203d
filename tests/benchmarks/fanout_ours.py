"""Child: the real gateway on a feed that is filled here. SUBSCRIBERS EVENTS_PER_S PRINCIPALS

Prints its port. EVENTS_PER_S of 0: as fast as the readers are served, never far ahead of them.
"""

import asyncio
import sys
import uuid
from typing import Any

from bus.model import Principal
from tests.benchmarks.fanout_event import progress_frame, take_core_0
from tests.gateway_fixture import Backend
from transports.http.app import Gateway
from transports.http.settings import GatewaySettings

BURST = 100
AHEAD = 400
"""Frames the feed may be ahead of the last reader: enough to keep all busy, far from a reset."""


async def main(subscribers: int, rate: float, principals: int) -> None:
    backend = Backend()
    for number in range(-(-subscribers // 20)):
        user = f"user-{number % principals}"
        backend.principals[f"bench-{number}"] = Principal(
            user_id=user, roles=("operator",), via="http"
        )
    backend.define("Bench/Job")
    execution_id = backend.queue("Bench/Job", execution_id=str(uuid.UUID(int=1)))
    backend.run(execution_id)
    settings = GatewaySettings(
        streams_max=subscribers,
        streams_per_principal=subscribers,
        connections_max=2 * subscribers,
        age_s=86_400.0,
    )
    gateway = Gateway(backend.ports(), settings)
    url = await gateway.start("127.0.0.1", 0)
    print(url.rpartition(":")[2], flush=True)
    while gateway._registry.counts()["open"] != subscribers:
        await asyncio.sleep(0.05)
    await asyncio.sleep(1)
    loop = asyncio.get_running_loop()
    next_s = loop.time()
    while True:
        if rate:
            _publish(backend, execution_id, 1)
            next_s += 1 / rate
            await asyncio.sleep(max(0.0, next_s - loop.time()))
            continue
        if backend.feed.head - _slowest(gateway) < AHEAD:
            _publish(backend, execution_id, BURST)
        await asyncio.sleep(0)


def _publish(backend: Backend, execution_id: str, count: int) -> None:
    head = backend.feed.head
    frames = [progress_frame(head + n, execution_id, backend.table) for n in range(1, count + 1)]
    backend.feed.publish(frames, head + count)


def _slowest(gateway: Any) -> int:
    """Where the last joined reader is; a benchmark may look where no other code may."""
    views = gateway._fanout._joined.values()
    return min((reader.seq for readers in views for reader in readers), default=0)


if __name__ == "__main__":
    take_core_0()
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
