"""`serve`: settings are read, the log is set up, and the service runs until it is to stop."""

import os
import signal
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from jobbus.service.lean_imports import lean_imports

Flag = Annotated[bool | None, Parameter(negative=(), show_default=False)]
Folder = Annotated[Path | None, Parameter(show_default=False)]


async def serve(
    *,
    data: Folder = None,
    apps: Folder = None,
    listen: Annotated[str | None, Parameter(show_default=False)] = None,
    config: Folder = None,
    tls_cert: Folder = None,
    tls_key: Folder = None,
    behind_proxy: Flag = None,
    allow_network_fs: Flag = None,
    drain: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Run the service; prints one line on stdout when it accepts commands.

    SIGTERM and Ctrl-C stop it; executions go on and are taken over by the next start. SIGHUP makes
    it read its settings again.

    Parameters
    ----------
    data
        Data directory, made if missing; else JOBBUS_DATA, else ./jobbus-data.
    apps
        Folder of the apps, default ./apps.
    listen
        ADDRESS:PORT, default 127.0.0.1:8765; port 0 takes a free one.
    config
        A jobbus.toml; flags and environment win over it. Else JOBBUS_CONFIG, ./jobbus.toml, the one
        beside the data directory, /etc/jobbus/jobbus.toml: the first of them that is there.
    tls_cert
        PEM file with the certificate (chain): then the service speaks https.
    tls_key
        PEM file with the certificate's key.
    behind_proxy
        A proxy in front ends TLS: other addresses than loopback may be listened on, and only the
        proxy, or this machine, is served; see [proxy] in jobbus.toml.
    allow_network_fs
        Accept a data directory on a network file system.
    drain
        On the signal to stop, start nothing more and wait until what runs has ended; on a second
        signal, stop at once.
    """
    # A reload that comes before the service can read its settings again must not end its start.
    signal.signal(signal.SIGHUP, lambda *_: None)
    with lean_imports():  # here, so that the help of this command does not load the whole service
        from jobbus.service import app
        from jobbus.service.logs import configure_logs
        from jobbus.service.settings_file import SettingsSource
        from jobbus.service.stdio import finish_lines

    flags = {
        "serve.data": data,
        "serve.apps": apps,
        "serve.listen": listen,
        "serve.tls_cert": tls_cert,
        "serve.tls_key": tls_key,
        "serve.behind_proxy": behind_proxy,
        "serve.allow_network_fs": allow_network_fs,
    }
    source = SettingsSource(config, os.environ, flags)
    settings = source.read()
    _check_apps(settings.serve.apps)
    try:
        configure_logs(settings.log.level, form=settings.log.format)
        source.say()
        return await app.serve(settings, drain=drain, read_again=source.read)
    finally:
        finish_lines()


def _check_apps(apps: Path) -> None:
    """Raises ConfigError for what can never hold apps; a folder that is missing may still come."""
    from bus.errors import ConfigError  # here, as above

    if apps.exists() and not apps.is_dir():
        raise ConfigError(f"{apps} is a file; --apps names the folder that holds the apps")
