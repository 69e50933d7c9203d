"""TLS of the listening side. Blocking IO."""

import ssl
from pathlib import Path

from bus.errors import ConfigError


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """What a listening socket needs; TLS 1.2 at least.

    Raises:
        ConfigError: the files are not what they should be.
    """
    for path in (certificate, key):
        if not path.is_file():
            raise ConfigError(f"{path} is no file; --tls-cert and --tls-key name PEM files")
    if key.stat().st_mode & 0o007:
        raise ConfigError(f"{key} can be read by everybody; run: chmod o-rwx {key}")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as exc:
        raise ConfigError(
            f"{certificate} and {key} are no certificate and its key without a password, in PEM: "
            f"{exc}"
        ) from exc
    return context


def load_again(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """New connections of a listening socket get the certificate that the files hold now.

    Raises:
        ConfigError: the files are not what they should be; nothing has changed.
    """
    server_context(certificate, key)  # so that what is wrong is noticed before it is in force
    context.load_cert_chain(certificate, key, password=_no_password)


def _no_password() -> str:
    """Without this, OpenSSL would ask at the terminal and block the start."""
    raise ValueError("the key has a password")
