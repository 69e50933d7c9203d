"""Publishing without a service: the same file by the same protocol, from any process. Blocking."""

import time

from bus.commands import NEEDED_WHEN_FULL
from bus.envelope import Envelope, canonical_uuid, check_same, identity_of
from bus.errors import TransportBusy
from bus.layout import DataLayout
from bus.reserve_spares import Need
from transports.directory import command_format, disk
from transports.directory.command_files import FileReader
from transports.directory.commit import Piece, commit
from transports.directory.settings import DirectorySettings


def publish_offline(layout: DataLayout, envelope: Envelope, secret: bytes) -> None:
    """The command is durable in the queue; the service that runs or starts next handles it.

    Raises:
        IdInUse: another command waits there under this id.
        NoSpace, TransportBusy, StorageFailed: see `bus.transport.Transport.publish`.
    """
    assert canonical_uuid(envelope.id) == envelope.id
    need = Need.STOP if isinstance(envelope.command, NEEDED_WHEN_FULL) else None
    piece = Piece(envelope.id, command_format.encode(envelope, time.time_ns(), secret), need)
    commit(layout, [piece], group=False)
    if piece.error is not None:
        raise piece.error
    if piece.taken:
        _compare(layout, piece, envelope, secret)


def _compare(layout: DataLayout, piece: Piece, envelope: Envelope, secret: bytes) -> None:
    try:
        with disk.open_directory(layout.queue) as queue_fd:
            there = FileReader(secret, DirectorySettings()).envelope(piece.name, queue_fd)
            disk.sync_file(piece.name, queue_fd)
    except (OSError, disk.Unfit, disk.InMotion, command_format.NotACommand) as error:
        raise TransportBusy(f"{piece.name} lies there and cannot be read: {error}") from error
    check_same(envelope, identity_of(there))
