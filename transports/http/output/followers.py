"""Readers of single executions, over whichever transport: what they share, and one run for each."""

from transports.http.access.visibility import Visibility
from transports.http.output.follower import Follower
from transports.http.output.shared import SharedOutput
from transports.http.ports import GatewayPorts
from transports.http.settings import GatewaySettings
from transports.http.streams.fanout import Fanout
from transports.http.streams.outlets import Outlet
from transports.http.streams.reader_frames import Framing


class Followers:
    """`_tails` are the pages that readers of the same output share; all transports use this one."""

    def __init__(
        self,
        ports: GatewayPorts,
        settings: GatewaySettings,
        visibility: Visibility,
        fanout: Fanout,
        framing: Framing,
    ) -> None:
        self._ports = ports
        self._settings = settings
        self._visibility = visibility
        self._fanout = fanout
        self._framing = framing
        self._tails = SharedOutput(ports.output)

    async def follow(
        self, execution_id: str, outlet: Outlet, cursor: str | None, start: int, *, latest: bool
    ) -> str:
        """The outlet has ended, with the execution or before; the position is where it goes on."""
        follower = Follower(
            execution_id,
            outlet,
            self._ports,
            self._settings,
            self._visibility,
            self._tails,
            self._framing,
        )
        self._fanout.watch(execution_id, outlet)
        try:
            return await follower.run(cursor, start, latest=latest)
        finally:
            self._fanout.unwatch(execution_id, outlet)
