"""What `jobbus.toml`, the environment and flags say, as the transports take it."""

import resource
import ssl

from bus.retention_settings import RetentionSettings
from jobbus.service.settings import DirectorySection, ServeSettings, Settings
from transports.directory.settings import DirectorySettings
from transports.http.access.proxy import LOOPBACK, networks
from transports.http.settings import GatewaySettings, ProxySettings, SessionLimits
from transports.http.web.connections import connections_max
from transports.http.web.tls import server_context


def gateway_settings(settings: Settings) -> GatewaySettings:
    """Limits and names as configured; what cannot be configured has its default."""
    serve, limits = settings.serve, settings.limits
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return GatewaySettings(
        hosts=serve.hosts,
        origins=serve.origins,
        proxy=_proxy(settings) if serve.behind_proxy else None,
        sessions=SessionLimits(
            idle_ms=int(limits.session_idle_s * 1000),
            age_ms=int(limits.session_age_s * 1000),
            most=limits.sessions,
        ),
        connections_max=connections_max(descriptors, limits.streams),
        streams_max=limits.streams,
        streams_per_principal=limits.streams_per_principal,
        posts_per_s=limits.posts_per_s,
        post_burst=limits.post_burst,
        waits_max=limits.waits,
        waits_per_principal=limits.waits_per_principal,
    )


def tls_of(serve: ServeSettings) -> ssl.SSLContext | None:
    """What the listening socket needs to speak TLS, if it is to.

    Raises:
        ConfigError: the files are not what they should be.
    """
    if serve.tls_cert is None or serve.tls_key is None:
        return None
    return server_context(serve.tls_cert, serve.tls_key)


def directory_settings(section: DirectorySection, keeping: RetentionSettings) -> DirectorySettings:
    """As configured; what cannot be configured has its default."""
    return DirectorySettings(
        rejects_max=keeping.rejects,
        rejects_bytes_max=keeping.reject_bytes,
        admin=section.admin,
        default_roles=section.default_roles,
        role_map=section.mapped_roles(),
        look_ms=section.look_ms,
        uid_roles=section.uid_roles,
    )


def _proxy(settings: Settings) -> ProxySettings:
    proxy = settings.proxy
    return ProxySettings(
        trusted=networks(proxy.trusted or LOOPBACK),
        user_header=proxy.user_header,
        roles_header=proxy.roles_header,
        default_roles=proxy.default_roles,
    )
