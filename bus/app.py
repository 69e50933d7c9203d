"""A whole service: what `serve` runs until it is told to end, and what tests run inside a block."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import structlog

from bus.clock import Clock, SystemClock
from bus.doctor.unit import look_at_unit
from bus.draining import Orders, orders_by_signal, until_drained
from bus.hold import held_data_directory
from bus.layout import DataLayout
from bus.life import running
from bus.parts import Parts
from bus.publisher import Publisher
from bus.reloading import reload
from bus.service_manager import ServiceManager
from bus.settings import Settings
from bus.sharing import share
from bus.startup import settle_in
from handlers.owner import Owner
from transports.http.app import Gateway

log = structlog.get_logger("jobbus")


class Node(msgspec.Struct, frozen=True):
    """A running service: where it answers and what it is made of."""

    url: str
    token: str
    layout: DataLayout
    owner: Owner
    publisher: Publisher
    gateway: Gateway
    prepare_drain: Callable[[], None]
    reload: Callable[[Callable[[], Settings]], Awaitable[None]]

    def sign_in_link(self) -> str:
        """Signs one browser in, once, for a short while. The code is in the fragment: no server,
        proxy or log ever sees it."""
        # A browser cannot go to the address that stands for all of them.
        here = self.url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
        return f"{here}/#code={self.gateway.sign_in_code()}"


async def serve(
    settings: Settings, *, drain: bool = False, read_again: Callable[[], Settings] | None = None
) -> int:
    """Runs a node until SIGTERM or SIGINT; executions go on without it, or with `drain` are waited
    for. SIGHUP puts in force what `read_again` gives. Returns the exit code."""
    manager = ServiceManager.from_environ(os.environ)
    with orders_by_signal() as orders:
        async with manager.attending():
            return await _serve(settings, orders, manager, read_again, drain=drain)


async def _serve(
    settings: Settings,
    orders: Orders,
    manager: ServiceManager,
    read_again: Callable[[], Settings] | None,
    *,
    drain: bool,
) -> int:
    async with (
        running_node(settings, listeners=manager.listeners) as node,
        manager.counting(node.owner.published) as status,
    ):
        node.owner.listen(status)
        for finding in await asyncio.to_thread(lambda: list(look_at_unit(os.getpid()))):
            log.warning(finding.text)
        apps = settings.serve.apps
        if not await asyncio.to_thread(apps.is_dir):
            log.warning("there is no folder of apps %s yet; jobs are there once it is", apps)
        _say_how_to_sign_in(node)
        # The last word of a start: who waits for it finds all else said.
        sys.stdout.write(f"jobbus ready {node.url}\n")
        sys.stdout.flush()
        manager.ready()
        settle_in()
        while await orders.next():
            manager.reloading()
            await node.reload(read_again or (lambda: settings))
            manager.ready()
        manager.stopping()
        if drain:
            node.prepare_drain()
            await until_drained(orders, node.owner)
        log.info("stopping; executions go on")
    return 0


def _say_how_to_sign_in(node: Node) -> None:
    """A person at the terminal gets a link. Anywhere else it would lie in a journal or a file, and
    whoever may read that could use it: there it only says how to get one."""
    if sys.stderr is not None and sys.stderr.isatty():
        sys.stderr.write(f"sign in once with {node.sign_in_link()}\n")
        sys.stderr.flush()
    else:
        log.info(
            "for a link that signs a browser in: jobbus token link", data=str(node.layout.root)
        )


@asynccontextmanager
async def running_node(
    settings: Settings, clock: Clock | None = None, listeners: Sequence[socket.socket] = ()
) -> AsyncIterator[Node]:
    """A service that accepts commands inside the block and has stopped in order after it. It
    listens on `listeners`, if there are some, and else where the settings say.

    Raises:
        DataDirectoryError: the data directory cannot be used.
        StorageFailed: a sync failed; the process must end and restart from disk.
    """
    clock = clock or SystemClock()
    with held_data_directory(
        settings.serve.data, allow_network_fs=settings.serve.allow_network_fs
    ) as hold:
        layout = hold.layout
        share(layout, settings.directory.group)
        parts = await asyncio.to_thread(Parts, settings, hold, clock)
        async with running(parts, listeners) as url:
            yield Node(
                url,
                parts.token,
                layout,
                parts.owner,
                parts.publisher,
                parts.gateway,
                parts.prepare_drain,
                partial(reload, parts),
            )
