"""Child: the same events by aiohttp-sse as its documentation shows it: a queue a subscriber.

SUBSCRIBERS EVENTS_PER_S BYTES
"""

import asyncio
import sys

from aiohttp import web
from aiohttp_sse import sse_response

from tests.benchmarks.fanout_event import STAMP_SIZE, stamp, take_core_0

QUEUE_MAX = 100


async def main(subscribers: int, rate: float, size: int) -> None:
    queues: list[asyncio.Queue[str]] = []

    async def events(request: web.Request) -> web.StreamResponse:
        queue: asyncio.Queue[str] = asyncio.Queue(QUEUE_MAX)
        queues.append(queue)
        async with sse_response(request) as response:
            while response.is_connected():
                await response.send(await queue.get())
        return response

    app = web.Application()
    app.router.add_get("/", events)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    while len(queues) < subscribers:
        await asyncio.sleep(0.05)
    await asyncio.sleep(1)
    fill = "x" * (size - STAMP_SIZE - len("data: \r\n\r\n"))
    loop = asyncio.get_running_loop()
    next_s = loop.time()
    while True:
        text = stamp() + fill
        for queue in queues:
            await queue.put(text)
        if rate:
            next_s += 1 / rate
            await asyncio.sleep(max(0.0, next_s - loop.time()))


if __name__ == "__main__":
    take_core_0()
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
