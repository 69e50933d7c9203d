"""Commands into a data directory that no service serves now: they wait there for the next.

Blocking IO.
"""

import os
import pwd
import time

import msgspec

from bus.access import ADMIN
from bus.clock import rfc3339
from bus.commands import command_decoder, job_of, kind_of
from bus.envelope import seal
from bus.layout import DataLayout
from bus.model import CommandStatus, Principal
from jobbus.cli.exits import CliError, Exit
from jobbus.client.command_records import CommandRequest
from jobbus.client.records import Command
from jobbus.service.instance import prepare, secret_key
from jobbus.service.logs import configure_logs
from transports.directory.offline_publisher import publish_offline


def leave_command(layout: DataLayout, request: CommandRequest) -> Command:
    """The command is durable in the directory's queue.

    Raises:
        CliError: the directory belongs to another account.
    """
    if layout.root.stat().st_uid != os.geteuid():
        # What is made here would belong to this account, and the service could not use it.
        raise CliError(
            f"no service runs for {layout.root}, and only the account that owns it may leave "
            "commands there this way",
            Exit.NOT_PERMITTED,
        )
    configure_logs("warning")
    prepare(layout)
    # Who may read the directory's secret could as well use its admin token.
    principal = Principal(user_id=_account(), roles=(ADMIN,), via="cli")
    command = command_decoder.decode(msgspec.json.encode(request))
    envelope = seal(command, principal, now_ms=time.time_ns() // 1_000_000)
    publish_offline(layout, envelope, secret_key(layout))
    return Command(
        command_id=envelope.id,
        status=CommandStatus.PENDING,
        command=kind_of(command),
        job_id=job_of(command),
        user_id=principal.user_id,
        submitted_at=rfc3339(envelope.submitted_ms),
    )


def _account() -> str:
    """The name of the account, not what the environment calls it."""
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"  # an account without a name, as in some containers
