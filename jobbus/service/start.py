"""How a service starts: one function, from the lock to the first answer, and back."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import msgspec

from bus.clock import Clock, SystemClock
from bus.descriptors import DESCRIPTORS, check_descriptors
from bus.layout import DataLayout
from bus.publisher import Publisher
from bus.threads import DISK, prepare_threads, threads_at_rest
from handlers.owner import Owner
from jobbus.service.adoption import adopt
from jobbus.service.directory_hold import held_data_directory
from jobbus.service.last_service import identify, recover_past
from jobbus.service.life import Life
from jobbus.service.reloading import reload
from jobbus.service.settings import Settings
from jobbus.service.sharing import share
from jobbus.service.wiring import Parts
from transports.http.app import Gateway


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
        share(hold.layout, settings.directory.group)
        try:
            identity = await DISK.run(identify, settings, hold.layout, clock)
            past = await DISK.run(recover_past, hold.layout, identity, clock)
            parts = await DISK.run(Parts, settings, hold, identity, past, clock)
            async with asyncio.TaskGroup() as group:
                life = Life(parts, group, files_doubted=past.files_doubted)
                await life.begin_programs()
                await adopt(parts)
                life.begin_projections()
                await life.begin_queue()
                url = await life.open_gateway(listeners)
                try:
                    yield _node(parts, url)
                finally:
                    await life.end()
        finally:
            await threads_at_rest()  # what writes there must not outlive the lock


def _node(parts: Parts, url: str) -> Node:
    return Node(
        url,
        parts.identity.admin_token,
        parts.layout,
        parts.owner,
        parts.publisher,
        parts.gateway,
        partial(_prepare_drain, parts),
        partial(reload, parts),
    )


def _prepare_drain(parts: Parts) -> None:
    """New requests are sent elsewhere; files of others wait for the next start."""
    parts.readiness.reason = "draining: waiting for what runs"
    parts.foreign_files.drain()
