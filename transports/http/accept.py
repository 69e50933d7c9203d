"""Which of the offered types a request wants (RFC 9110 §12.5.1). No IO."""

from aiohttp import web

from transports.http.problems import Problem


def preferred_type(request: web.Request, offered: tuple[str, ...]) -> str:
    """The offered type with the highest weight; the first of equals, the first without a header.

    Raises:
        Problem: 406; nothing offered is accepted.
    """
    header = ", ".join(request.headers.getall("Accept", []))
    if not header.strip():
        return offered[0]
    weights = [(_weight(header, kind), -index) for index, kind in enumerate(offered)]
    best, at = max(weights)
    if best <= 0:
        raise Problem(406, "not-acceptable", f"accept one of {', '.join(offered)}")
    return offered[-at]


def _weight(header: str, kind: str) -> float:
    """The weight of `kind`: that of the most specific range which covers it."""
    family = kind.partition("/")[0] + "/*"
    best = (-1, 0.0)
    for part in header.split(",")[:32]:
        pattern, _, parameters = part.strip().partition(";")
        pattern = pattern.strip().lower()
        rank = {"*/*": 0, family: 1, kind: 2}.get(pattern)
        if rank is not None and rank > best[0]:
            best = (rank, _quality(parameters))
    return best[1]


def _quality(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                return min(max(float(value.strip()), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0
