"""What `serve` runs until a signal ends it: a node, with its signals and its service manager."""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog

from bus.descriptors import DESCRIPTORS
from bus.recurring import Recurring
from bus.scarcity import lack_of
from bus.threads import DISK
from handlers.shim.process_title import show_title
from jobbus.doctor.unit import look_at_unit
from jobbus.service.draining import Orders, orders_by_signal, until_drained
from jobbus.service.lean_imports import settle_in
from jobbus.service.service_manager import ServiceManager
from jobbus.service.settings import Settings
from jobbus.service.start import Node, running_node
from jobbus.service.stdio import STDERR, STDOUT, finish_lines, writer_to

log = structlog.get_logger("jobbus")


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
    """Logs what no task can be given. asyncio accepts again by itself a second later when the
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
    all who may read that could use it: there it only says how to get one."""
    if writer_to(STDERR).isatty():
        writer_to(STDERR).write(f"sign in once with {node.sign_in_link()}\n")
    else:
        log.info(
            "for a link that signs a browser in: jobbus token link", data=str(node.layout.root)
        )


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop is closed: so are all connections
        loop.call_soon_threadsafe(call)
