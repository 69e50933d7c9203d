"""Settings are read again while a service runs: all that can change does, in one step, or nothing.

What a change comes to is `jobbus.service.settings_changes`.
"""

from collections.abc import Callable

import structlog

from bus.commands import SetGroups
from bus.errors import BusError
from bus.threads import DISK
from handlers.supervision.secrets import SecretValues
from jobbus.service.logs import set_log_level
from jobbus.service.settings import Settings
from jobbus.service.settings_changes import changes
from jobbus.service.settings_checks import LOG_LEVELS
from jobbus.service.transport_settings import directory_settings, gateway_settings
from jobbus.service.wiring import Parts, notes_on_roles, policy_of, programs_of
from transports.http.web.tls import load_again

log = structlog.get_logger("jobbus")


async def reload(parts: Parts, read: Callable[[], Settings]) -> None:
    """The settings, tokens and certificates that are on disk now are in force; if one of them is
    broken, the settings stay as they were, and the log says why."""
    try:
        found = changes(parts.settings, await DISK.run(read))
        serve = found.settings.serve
        await parts.tokens.look()
        tls = parts.identity.tls
        if tls is not None and serve.tls_cert is not None and serve.tls_key is not None:
            await DISK.run(load_again, tls, serve.tls_cert, serve.tls_key)
    except BusError as error:
        log.warning("the settings stay as they were", reason=str(error))
        return
    before, level = parts.settings.log.level, found.settings.log.level
    _put_in_force(parts, found.settings)
    # Said also where from now on, or until now, less is logged.
    set_log_level(min("info", before, level, key=LOG_LEVELS.index))
    log.info("the settings were read again", changed=list(found.changed))
    set_log_level(level)
    if found.waiting:
        log.warning("some settings change at the next start only", settings=list(found.waiting))
    for sentence in notes_on_roles(parts):
        log.warning("a role without effect", reason=sentence)
    secrets = SecretValues(found.settings.secrets)
    for complaint in await DISK.run(secrets.complaints):
        log.warning("jobs with this secret cannot start", reason=complaint)


def _put_in_force(parts: Parts, settings: Settings) -> None:
    """In one step: the parts keep what they hold and change what they go by. What only a start can
    change is as before, see `config_changes`."""
    parts.settings = settings
    parts.owner.checks.go_by(policy_of(settings))
    parts.secrets.go_by(settings.secrets)
    parts.supervisor.go_by(programs_of(settings))
    parts.transport.go_by(directory_settings(settings.directory, settings.keep))
    # What they call for starts by the new limits; then definitions are looked at by the new names.
    parts.inbox.report(SetGroups(limits=settings.group_limits()))
    parts.catalog.go_by(settings.group, settings.calendars)
    parts.catalog.polling.often_s = settings.directory.look_ms / 1000
    parts.retention.go_by(settings.keep)
    parts.audit.keep_days(settings.keep.audit_days)
    parts.gateway.go_by(gateway_settings(settings), settings.roles)
