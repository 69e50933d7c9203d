"""Child: gateway and directory transport as they are, but nothing handles what comes. FOLDER"""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

from bus.layout import DataLayout
from bus.publisher import Publisher
from jobbus.service.logs import configure_logs
from tests.gateway_fixture import ADMIN, Backend
from transports.directory.transport import DirectoryTransport
from transports.http.app import Gateway
from transports.http.settings import GatewaySettings


async def main(folder: Path) -> None:
    backend = Backend()
    backend.define("Bench/True")
    transport = DirectoryTransport(
        DataLayout(folder), clock=backend.clock, known=backend.table.command, secret=b"s" * 32
    )
    ready = asyncio.Event()
    ports = replace(backend.ports(), publisher=Publisher(transport, backend, backend.table))
    async with asyncio.TaskGroup() as group:
        group.create_task(transport.run(ready), name="transport")
        await ready.wait()
        group.create_task(_drop(transport), name="receiver")
        settings = GatewaySettings(posts_per_s=1e9, post_burst=1e9)
        url = await Gateway(ports, settings).start("127.0.0.1", 0)
        print(url.rpartition(":")[2], ADMIN, flush=True)


async def _drop(transport: DirectoryTransport) -> None:
    while True:
        await transport.receive(256)


if __name__ == "__main__":
    configure_logs()
    asyncio.run(main(Path(sys.argv[1])))
