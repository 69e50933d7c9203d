"""What asks only whether the service lives: it knows an address and no name. No IO."""

from aiohttp import web

PATHS = frozenset({"/livez", "/readyz"})
_FORWARDED_HOST = ("X-Forwarded-Host", "Forwarded")


def is_probe(request: web.BaseRequest) -> bool:
    """Whether the request is one, and no proxy says under which name it was asked.

    A kubelet or a load balancer asks with the address of a pod as Host, or none. Its answer has
    nothing that a page which rebinds a name must not know.
    """
    return (
        request.path in PATHS
        and request.method in ("GET", "HEAD")
        and not any(name in request.headers for name in _FORWARDED_HOST)
    )
