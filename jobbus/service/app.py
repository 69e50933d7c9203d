"""A whole service: what `serve` runs until it is told to end, and what tests run inside a block."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import msgspec
import structlog

from bus.clock import Clock, SystemClock
from bus.descriptors import DESCRIPTORS, check_descriptors
from bus.layout import DataLayout
from bus.publisher import Publisher
from bus.recurring import Recurring
from bus.scarcity import lack_of
from bus.threads import DISK, prepare_threads, threads_at_rest
from handlers.owner import Owner
from handlers.shim.process_title import show_title
from jobbus.doctor.unit import look_at_unit
from jobbus.service.draining import Orders, orders_by_signal, until_drained
from jobbus.service.hold import held_data_directory
from jobbus.service.life import running
from jobbus.service.lines import STDERR, STDOUT, finish_lines, writer_to
from jobbus.service.parts import Parts
from jobbus.service.reloading import reload
from jobbus.service.service_manager import ServiceManager
from jobbus.service.settings import Settings
from jobbus.service.sharing import share
from jobbus.service.startup import settle_in
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
    show_title(f"jobbus: service {settings.serve.data}")
    writer_to(STDOUT)  # now, so that nothing is lacking when it is needed
    manager = ServiceManager.from_environ(os.environ)
    with orders_by_signal() as orders:
        async with manager.attending():
            return await _serve(settings, orders, manager, read_again, drain=drain)


_lacks = Recurring(log)


def _said_once(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What no task is there to be told of. asyncio accepts again by itself a second later when the
    system lacks descriptors, and says so each time with a trace."""
    error = context.get("exception")
    lack = lack_of(error) if error is not None else None
    if lack is None:
        loop.default_exception_handler(context)
    elif "accept" in context.get("message", ""):
        _lacks.say(f"connections are not accepted now: {lack}", "accept")
        if isinstance(error, OSError):
            DESCRIPTORS.release_for(error)
    else:
        _lacks.say(f"something was not done: {lack}", lack)


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
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_said_once)
        DESCRIPTORS.shed = lambda: _soon(loop, node.gateway.shed_connections)
        for finding in await DISK.run(lambda: list(look_at_unit(os.getpid()))):
            log.warning(finding.text)
        apps = settings.serve.apps
        if not await DISK.run(apps.is_dir):
            log.warning("there is no folder of apps %s yet; jobs are there once it is", apps)
        _say_how_to_sign_in(node)
        # The last word of a start: who waits for it finds all else said.
        finish_lines()
        writer_to(STDOUT).write(f"jobbus ready {node.url}\n")
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
    if writer_to(STDERR).isatty():
        writer_to(STDERR).write(f"sign in once with {node.sign_in_link()}\n")
    else:
        log.info(
            "for a link that signs a browser in: jobbus token link", data=str(node.layout.root)
        )


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop is closed: so are all connections
        loop.call_soon_threadsafe(call)


@asynccontextmanager
async def running_node(
    settings: Settings, clock: Clock | None = None, listeners: Sequence[socket.socket] = ()
) -> AsyncIterator[Node]:
    """A service that accepts commands inside the block and has stopped in order after it. It
    listens on `listeners`, if there are some, and else where the settings say.

    Raises:
        DataDirectoryError: the data directory cannot be used.
        StorageFailed: a sync failed; the process must end and restart from disk.
        NoThread, TooFewFiles: the system gives less than a service needs.
    """
    clock = clock or SystemClock()
    check_descriptors()
    prepare_threads()
    DESCRIPTORS.hold()
    with held_data_directory(
        settings.serve.data,
        allow_network_fs=settings.serve.allow_network_fs,
        beside=settings.files(),
    ) as hold:
        layout = hold.layout
        share(layout, settings.directory.group)
        try:
            parts = await DISK.run(Parts, settings, hold, clock)
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
        finally:
            await threads_at_rest()  # what writes there must not outlive the lock
