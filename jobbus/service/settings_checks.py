"""Settings that cannot be right although each value is of its kind: said before anything starts."""

import ipaddress
import re
from collections.abc import Mapping
from typing import Final

from bus.access import ADMIN, RoleDefaults
from bus.envelope import RESERVED_USERS
from bus.errors import ConfigError
from bus.groups import GROUPS_MAX, SLOTS_MAX
from bus.job_definition import UMASK
from bus.retention_settings import RetentionSettings
from jobbus.service.settings import (
    LISTEN_DEFAULT,
    GroupSection,
    JobsSection,
    LimitsSection,
    ProxySection,
    ServeSettings,
    Settings,
)

_ORIGIN: Final = re.compile(
    r"https?://(?:\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?)(?::[1-9][0-9]{0,4})?\Z"
)
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
LOG_FORMATS: Final = ("auto", "text", "json", "journal")
LOOK_MS_MIN: Final = 10
LOOK_MS_MAX: Final = 60_000
_HEADER: Final = re.compile(r"[A-Za-z0-9-]{1,64}\Z")


def check(settings: Settings) -> None:
    """What is set goes together.

    Raises:
        ConfigError: it does not; the message says what would be right.
    """
    host, _ = split_listen(settings.serve.listen)
    serve = settings.serve
    for key, words in (("level", LOG_LEVELS), ("format", LOG_FORMATS)):
        word = getattr(settings.log, key)
        if word not in words:
            raise ConfigError(f"[log] {key} must be one of {', '.join(words)}, not {word!r}")
    if (serve.tls_cert is None) != (serve.tls_key is None):
        raise ConfigError("[serve] tls_cert and tls_key belong together: set both or none")
    check_address(host, serve)
    _check_origins(serve.origins)
    _check_proxy(settings.proxy, behind_proxy=serve.behind_proxy)
    _check_limits(settings.limits)
    _check_keep(settings.keep)
    _check_jobs(settings.jobs)
    _check_groups(settings.group)
    if ADMIN in settings.directory.default_roles:
        raise ConfigError("[directory] default_roles must not hold admin; see [directory] admin")
    if not LOOK_MS_MIN <= settings.directory.look_ms <= LOOK_MS_MAX:
        raise ConfigError(
            f"[directory] look_ms must be from {LOOK_MS_MIN} to {LOOK_MS_MAX}, not "
            f"{settings.directory.look_ms}"
        )
    mapped = settings.directory.role_map
    for word, roles in mapped.items():
        if ADMIN in roles and not settings.directory.admin:
            raise ConfigError(
                f"[directory.role_map] {word!r} must not give admin: files may claim that only "
                "with [directory] admin = true"
            )
    proxy_roles = settings.proxy.default_roles
    given = (*mapped, *(role for roles in mapped.values() for role in roles))
    ours = (*settings.directory.default_roles, *proxy_roles, *_role_words(settings.roles))
    for name in (*ours, *given):
        if not name or name.startswith(RESERVED_USERS):
            raise ConfigError(f"{name!r} is no role; a role is a word such as operator")


def check_address(host: str, serve: ServeSettings) -> None:
    """No token travels in the clear.

    Raises:
        ConfigError: the address can be reached from outside, and nothing encrypts.
    """
    if not (_is_loopback(host) or serve.behind_proxy or serve.tls_cert is not None):
        raise ConfigError(
            f"[serve] listen: {host} can be reached from outside without encryption; listen on "
            "127.0.0.1, or give --tls-cert and --tls-key, or put a proxy with TLS in front and say "
            "so with --behind-proxy"
        )


def _check_origins(origins: tuple[str, ...]) -> None:
    for origin in origins:
        if not _ORIGIN.match(origin):
            raise ConfigError(
                f"[serve] origins: {origin!r} is no origin as browsers write it, such as "
                "https://dash.example.org or http://localhost:3000"
            )


def _check_proxy(proxy: ProxySection, *, behind_proxy: bool) -> None:
    if proxy != ProxySection() and not behind_proxy:
        raise ConfigError("[proxy] counts only with [serve] behind_proxy, or --behind-proxy")
    for word in proxy.trusted:
        try:
            ipaddress.ip_network(word)
        except ValueError as exc:
            raise ConfigError(
                f"[proxy] trusted: {exc}; write addresses or networks such as 10.1.0.0/16"
            ) from exc
    for name in (proxy.user_header, proxy.roles_header):
        if name is not None and not _HEADER.match(name):
            raise ConfigError(f"[proxy] {name!r} is no header's name such as X-Remote-User")
    if proxy.user_header is None and (proxy.roles_header or proxy.default_roles):
        raise ConfigError("[proxy] roles mean nothing without user_header")
    if proxy.user_header is not None and not proxy.trusted:
        # Any account of this machine could write the header: that has to be wanted.
        raise ConfigError("[proxy] user_header: say in trusted from which addresses it is believed")


def _check_limits(limits: LimitsSection) -> None:
    for name in limits.__struct_fields__:
        value = getattr(limits, name)
        if not 1 <= value <= 1_000_000_000:
            raise ConfigError(f"[limits] {name} must be from 1 to 1000000000, not {value}")


def _check_jobs(jobs: JobsSection) -> None:
    if not re.fullmatch(UMASK, jobs.umask):
        raise ConfigError(f'[jobs] umask must be text such as "0022", not {jobs.umask!r}')
    if not 16 <= jobs.open_files <= 1 << 30:
        raise ConfigError(f"[jobs] open_files must be from 16 to {1 << 30}, not {jobs.open_files}")


def _check_groups(groups: Mapping[str, GroupSection]) -> None:
    if len(groups) > GROUPS_MAX:
        raise ConfigError(f"[group] names {len(groups)} groups; {GROUPS_MAX} are the most")
    for name, group in groups.items():
        if not 1 <= group.max_running <= SLOTS_MAX:
            raise ConfigError(
                f"[group.{name}] max_running must be from 1 to {SLOTS_MAX}, not {group.max_running}"
            )


def _check_keep(keep: RetentionSettings) -> None:
    for name in keep.__struct_fields__:
        value = getattr(keep, name)
        if not 1 <= value <= 1 << 50:
            raise ConfigError(f"[keep] {name} must be from 1 to {1 << 50}, not {value}")


def _role_words(roles: RoleDefaults) -> tuple[str, ...]:
    return (*roles.view, *roles.start, *roles.stop, *roles.restart, *roles.output)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def split_listen(listen: str) -> tuple[str, int]:
    """Host and port of `127.0.0.1:8765` or `[::1]:8765`; port 0 lets the system choose.

    Raises:
        ConfigError: it is neither.
    """
    host, colon, port = listen.rpartition(":")
    plain = host.startswith("[") and host.endswith("]")
    if not (colon and host and port.isascii() and port.isdigit() and int(port[:6]) <= 65535):
        raise ConfigError(
            f"[serve] listen must be ADDRESS:PORT such as {LISTEN_DEFAULT}, not {listen!r}"
        )
    if ":" in host and not plain:
        raise ConfigError(f"[serve] listen: write an IPv6 address in brackets, not {listen!r}")
    return host[1:-1] if plain else host, int(port)
