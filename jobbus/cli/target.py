"""Which service is meant, and with which token: flags, environment, data directory. Blocking IO."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bus.errors import DataDirectoryError
from bus.layout import DataLayout
from bus.scarcity import reason_of
from bus.wording import quoted
from jobbus.cli.exits import CliError, Exit
from jobbus.client.client import Client
from jobbus.service.directory_hold import is_running
from jobbus.service.instance import check_ours, read_instance
from jobbus.service.settings import DATA_DEFAULT

_TOKEN_MAX = 4096
_SERVICE = "Service"


@Parameter(name="*", group=_SERVICE)
@dataclass(frozen=True, kw_only=True)
class Target:
    """The flags that say which service a command talks to."""

    url: Annotated[
        str | None, Parameter(help="URL of the service [env: JOBBUS_URL]", show_default=False)
    ] = None
    token_file: Annotated[
        Path | None,
        Parameter(help="File with the token; or JOBBUS_TOKEN holds it", show_default=False),
    ] = None
    data: Annotated[
        Path | None,
        Parameter(
            help="Data directory of the service on this machine [env: JOBBUS_DATA]",
            show_default=False,
        ),
    ] = None


HERE = Target()


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where to go: a service with its token, or a data directory that no service serves now."""

    url: str | None = None
    token: str | None = None
    layout: DataLayout | None = None
    certificate: Path | None = None


def locate(target: Target, environ: Mapping[str, str] | None = None) -> Place:
    """The place that flags and environment name, the more explicit one first.

    Raises:
        CliError: there is no such place, or no token for it.
    """
    env = os.environ if environ is None else environ
    if target.url is not None:
        return _by_url(target.url, target, env)
    if target.data is None and env.get("JOBBUS_URL"):
        return _by_url(env["JOBBUS_URL"], target, env)
    root = target.data or Path(env.get("JOBBUS_DATA") or DATA_DEFAULT)
    return _by_directory(root, target, env)


def client_of(place: Place) -> Client:
    """For the service that runs there."""
    assert place.url is not None, "no service runs there"
    return Client(place.url, place.token, place.certificate)


def service_at(
    target: Target, environ: Mapping[str, str] | None = None
) -> tuple[str, str, Path | None]:
    """URL and token of a running service, and its certificate if this machine knows it.

    Raises:
        CliError: none runs there.
    """
    place = locate(target, environ)
    if place.url is None or place.token is None:
        assert place.layout is not None
        root = place.layout.root
        raise CliError(
            f"no service runs for {root}; start one with: jobbus serve --data {root}, or name "
            "another by --data or --url",
            Exit.UNREACHABLE,
        )
    return place.url, place.token, place.certificate


def _by_url(url: str, target: Target, env: Mapping[str, str]) -> Place:
    if not url.startswith(("http://", "https://")):
        raise CliError(f"{quoted(url)} is no URL: {_scheme_hint(url)}", Exit.USAGE)
    token = _given_token(target) or env.get("JOBBUS_TOKEN")
    if not token:
        raise CliError(
            f"a token is needed for {url}: --token-file FILE, or JOBBUS_TOKEN", Exit.NOT_PERMITTED
        )
    return Place(url=url, token=_usable(token))


def _scheme_hint(url: str) -> str:
    """What is to be written instead, e.g. http://127.0.0.1:8766 for `:8766`."""
    if re.fullmatch(r"(:?\d{1,5}|[\w.-]*:\d{1,5}|[\w-]+(\.[\w-]+)+)/?", url) is None:
        return "write one such as http://127.0.0.1:8765"
    host = f"127.0.0.1:{url.lstrip(':')}" if url.lstrip(":").rstrip("/").isdigit() else url
    return f"write http://{host}, or https:// if TLS is spoken there"


def _by_directory(root: Path, target: Target, env: Mapping[str, str]) -> Place:
    _check_owner(root)
    layout = DataLayout(root.absolute())
    # Without the lock it is not known who listens at the recorded address now: it gets no token.
    check_ours(layout, may_be_empty=True)
    if not is_running(layout):
        return Place(layout=layout)
    found = read_instance(layout)
    if found is None or not found.url:
        raise CliError(
            f"the service of {root} is starting or stopping; try again", Exit.UNREACHABLE
        )
    token = _given_token(target) or _admin_token(layout) or env.get("JOBBUS_TOKEN")
    if not token:
        raise CliError(
            f"a token is needed: {layout.admin_token} cannot be read", Exit.NOT_PERMITTED
        )
    certificate = Path(found.tls_cert) if found.tls_cert else None
    return Place(url=found.url, token=_usable(token), layout=layout, certificate=certificate)


def _check_owner(root: Path) -> None:
    """A directory that another account could have prepared must not say where our token goes."""
    try:
        found = root.stat()
    except PermissionError:
        raise CliError(
            f"{root} may not be looked into by this account; --url and a token work without it",
            Exit.NOT_PERMITTED,
        ) from None
    except NotADirectoryError:
        raise CliError(
            f"{root} leads through a file; a data directory is needed", Exit.USAGE
        ) from None
    except FileNotFoundError:
        raise CliError(
            f"there is no data directory {root}; say --url or --data, or start a service with: "
            f"jobbus serve --data {root}",
            Exit.UNREACHABLE,
        ) from None
    me = os.geteuid()
    if not root.is_dir():
        raise CliError(f"{root} is a file; a data directory is needed", Exit.USAGE)
    if (me != 0 and found.st_uid not in (me, 0)) or found.st_mode & 0o022:
        raise DataDirectoryError(
            f"{root} belongs to or may be written by others; use your own, or --url with a token"
        )


def _given_token(target: Target) -> str | None:
    if target.token_file is None:
        return None
    file = target.token_file
    try:
        with file.open("rb") as opened:
            token = opened.read(_TOKEN_MAX).decode("ascii").strip()
    except OSError as exc:
        raise CliError(f"--token-file {file} cannot be read: {reason_of(exc)}", Exit.USAGE) from exc
    except UnicodeDecodeError:
        raise CliError(
            f"--token-file {file} holds something else than a token", Exit.USAGE
        ) from None
    if not token:
        raise CliError(f"--token-file {file} is empty; it must hold the token", Exit.USAGE)
    return token


def _admin_token(layout: DataLayout) -> str | None:
    try:
        return layout.admin_token.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None  # the account may not read it: another token is needed, and said so


def _usable(token: str) -> str:
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise CliError(
            "the token must be one word of visible ASCII characters, as jobbus token create "
            "printed it",
            Exit.USAGE,
        )
    return token
