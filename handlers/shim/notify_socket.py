"""The socket where a shim receives the service's wake-up and its program's sd_notify. Stdlib only.

Its name is in a folder of our account, so that no other account takes it when the shim is dead:
what programs say is for the service alone.

A wake-up is only a hint, so it may come from any process, but for what the service says with it, as
an order: that must come from our account. Words about the execution must come from its tree, or at
least from its account if the sender has ended already (`systemd-notify` has). A program of another
account is given the name, too, and no third account can send to it.
"""

import _socket
import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterator

from handlers.shim.assignment import FROM_SERVICE, ShimAccount

DATAGRAM_BYTES_MAX = 65_536
DATAGRAMS_A_TURN = 64
PATH_BYTES_MAX = 107
"""Of an address, without the NUL that ends it (unix(7))."""
SOCKET_MODE = 0o600
PASSABLE = 0o711
"""Of the folder: others may use names in it that they know."""
_FAMILY = int(socket.AF_UNIX)
_KIND = int(socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
_LEVEL, _PASS_CREDENTIALS = int(socket.SOL_SOCKET), int(socket.SO_PASSCRED)
"""Plain numbers, and `_socket`, which `socket` wraps: enums and the wrapper would copy their pages
into each shim."""
_CREDENTIALS = struct.Struct("3i")


class NotifySocket:
    """One bound datagram socket. `address` is its name as `NOTIFY_SOCKET` wants it.

    `folder` is its path, `handle` a descriptor of it that stays open as long as this does.
    `_account` is the program's, set by `let_in`; None: it is ours.
    """

    def __init__(self, folder: str, handle: int, name: str) -> None:
        self._handle = handle
        self._name = name
        self._account: ShimAccount | None = None
        self._socket = _unbound()
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=handle)  # of a shim of the same execution that was killed
            self._socket.bind(self._path)
            self.address = f"{folder}/{name}"
            if len(os.fsencode(self.address)) > PATH_BYTES_MAX:
                self.address = f"/proc/{os.getpid()}/fd/{handle}/{name}"
        except OSError:
            self._socket.bind("")  # the file system has no sockets: the kernel gives a free name
            bound = self._socket.getsockname()
            self.address = "@" + (bound if isinstance(bound, str) else bound.decode())[1:]
        self.descriptor = self._socket.fileno()

    @property
    def _path(self) -> str:
        return f"/proc/self/fd/{self._handle}/{self._name}"

    def let_in(self, account: ShimAccount) -> None:
        """The program is of that account, which may send from now on.

        Raises:
            OSError: the file system does not keep owners.
        """
        self._account = account
        if not self.address.startswith("@"):
            os.chown(self._path, account.uid, account.gid)
            os.fchmod(self._handle, PASSABLE)  # it may have been made again

    def bind_again(self) -> bool:
        """Whether its name was removed, and it has it again; the descriptor stays the same."""
        if self.address.startswith("@"):
            return False
        try:
            os.lstat(self._path)
        except FileNotFoundError:
            again = _unbound()
            try:
                again.bind(self._path)
                if self._account is not None:
                    self.let_in(self._account)
                os.dup2(again.fileno(), self.descriptor, inheritable=False)
            except OSError:
                return False
            finally:
                again.close()
            return True
        except OSError:
            pass  # nothing is known of it
        return False

    def close(self) -> None:
        """Nothing is received any more."""
        self._socket.close()
        if not self.address.startswith("@"):
            with contextlib.suppress(OSError):
                os.unlink(self._name, dir_fd=self._handle)

    def received(self, owns: Callable[[int], bool | None]) -> Iterator[dict[str, str]]:
        """What arrived, checked. `owns(pid)` says if it is of the tree; None: it is gone."""
        for _ in range(DATAGRAMS_A_TURN):
            try:
                # Room for the credentials only: descriptors that a program sends are closed.
                data, ancillary, _, _ = self._socket.recvmsg(
                    DATAGRAM_BYTES_MAX, socket.CMSG_SPACE(_CREDENTIALS.size)
                )
            except OSError:
                return
            found, sender = parse_notify(data), _sender(ancillary)
            if not _is_of(sender, _ours()):
                for word in FROM_SERVICE:
                    found.pop(word, None)
            if "CONTROL" in found or self._is_permitted(sender, owns):
                yield found

    def _is_permitted(
        self, sender: tuple[int, int] | None, owns: Callable[[int], bool | None]
    ) -> bool:
        owned = False if sender is None else owns(sender[0])
        accounts = _ours() if self._account is None else (*_ours(), self._account.uid)
        return owned is True or (owned is None and _is_of(sender, accounts))


def parse_notify(datagram: bytes) -> dict[str, str]:
    """The assignments of an sd_notify datagram; later ones win (sd_notify(3))."""
    found: dict[str, str] = {}
    for line in datagram.split(b"\n"):
        name, equals, value = line.partition(b"=")
        if equals:
            found[name.decode("ascii", "replace")] = value.decode("utf-8", "replace")
    return found


def _unbound() -> _socket.socket:
    made = _socket.socket(_FAMILY, _KIND)
    made.setsockopt(_LEVEL, _PASS_CREDENTIALS, 1)
    with contextlib.suppress(OSError):  # of its name, which `bind` makes; not on every system
        os.fchmod(made.fileno(), SOCKET_MODE)
    return made


def _sender(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, int] | None:
    """Pid and account of the sender, as the kernel reports them."""
    for level, kind, data in ancillary:
        if level == _LEVEL and kind == socket.SCM_CREDENTIALS:
            pid, uid, _ = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])
            return pid, uid
    return None


def _is_of(sender: tuple[int, int] | None, accounts: tuple[int, ...]) -> bool:
    return sender is not None and sender[1] in accounts


def _ours() -> tuple[int, int]:
    return 0, os.geteuid()
