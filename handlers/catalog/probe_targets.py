"""What is asked whether a program is ready or well: a port, a URL, a line of its output. Pure.

These are the texts of `ready` and of `[health]`, after `{{Variable}}`s have their values. Numbers
and choices may stand there, and no free text: who starts a job does not choose what the service
connects to.
"""

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

import msgspec

from bus.health import HealthSpec
from bus.job_definition import JobSpec, VariableType
from bus.model import Value
from bus.wording import did_you_mean, quoted
from handlers.catalog.problem import Problem, shown
from handlers.catalog.templates import names_in, render
from handlers.catalog.toml_lines import Path

URL_MAX = 2048
"""Characters of a URL."""

PORTS = {"http": 80, "https": 443}

CHOSEN = (VariableType.INTEGER, VariableType.NUMBER, VariableType.CHOICE)
"""Types of variables that may stand in a port or a URL."""

CHOSEN_AS_HOST = (VariableType.CHOICE,)
"""The same for a host: a number is one, too, as 2130706433 is 127.0.0.1 (inet_aton(3))."""

_TCP = re.compile(r"(?:(?P<host>\[[^\]]*\]|[^:]*):)?(?P<port>[0-9]{1,5})")
_HOST_OF_URL = re.compile(r"[a-z]*://(\[[^\]]*\]|[^/?#:]*)")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_HOST_MAX = 253


class TcpTarget(msgspec.Struct, frozen=True):
    """A port that takes connections. `host` is empty for this machine itself."""

    host: str
    port: int


class HttpTarget(msgspec.Struct, frozen=True):
    """A URL that answers with a status from 200 to 299. `path` has its query with it."""

    host: str
    port: int
    path: str
    is_tls: bool

    @property
    def authority(self) -> str:
        """As the `Host` header has it (RFC 9110 §7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        is_plain = self.port == PORTS["https" if self.is_tls else "http"]
        return host if is_plain else f"{host}:{self.port}"


class OutputTarget(msgspec.Struct, frozen=True):
    """A line of the output in which `expression` is found."""

    expression: str


Target = TcpTarget | HttpTarget | OutputTarget


class NoTarget(ValueError):
    """A sentence that says what would be right."""


def is_probed(ready: str) -> bool:
    """Whether the service has to find out that a program with this `ready` is ready."""
    return ready.partition(":")[0] in ("tcp", "http", "https", "output")


def ready_target(spec: JobSpec, values: Mapping[str, Value]) -> Target | None:
    """What is asked whether the program is ready; None if that follows without asking.

    Raises:
        NoTarget: with these values it is none.
    """
    if not is_probed(spec.ready):
        return None
    kind, _, rest = spec.ready.partition(":")
    match kind:
        case "tcp":
            return tcp_target(render(rest, values))
        case "output":
            return OutputTarget(rest)
        case _:
            return http_target(render(url_of_ready(spec.ready), values))


def health_target(spec: HealthSpec, values: Mapping[str, Value]) -> HttpTarget | None:
    """What is asked whether the program is well; None if a command finds that out.

    Raises:
        NoTarget: with these values it is none.
    """
    return http_target(render(spec.url, values)) if spec.url else None


def url_of_ready(ready: str) -> str:
    """The URL in `http:URL`; a URL alone is one, too."""
    kind, _, rest = ready.partition(":")
    return ready if kind == "https" or rest.startswith("//") else rest


def tcp_target(text: str) -> TcpTarget:
    """The target of `PORT` or `HOST:PORT`.

    Raises:
        NoTarget: it is none.
    """
    found = _TCP.fullmatch(text)
    host = None if found is None else found["host"]
    is_right = found is not None and 1 <= int(found["port"]) <= 65_535
    if found is None or not is_right or not (host is None or _is_host(host.strip("[]"))):
        raise NoTarget(
            f"needs a port from 1 to 65535, or HOST:PORT, not {quoted(text)}; e.g. tcp:8080"
        )
    return TcpTarget((host or "").strip("[]"), int(found["port"]))


def http_target(text: str) -> HttpTarget:
    """The target of a URL.

    Raises:
        NoTarget: it is none.
    """
    wrong = f"needs a URL such as http://127.0.0.1:8080/health, not {quoted(text)}"
    if len(text) > URL_MAX or not text.isascii() or not text.isprintable() or " " in text:
        raise NoTarget(wrong)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise NoTarget(wrong) from None
    if parts.scheme not in PORTS or not host or not _is_host(host) or port == 0:
        raise NoTarget(wrong)
    if "@" in parts.netloc or parts.fragment:
        raise NoTarget(f"takes no user, password or fragment: {quoted(text)}")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    is_tls = parts.scheme == "https"
    return HttpTarget(host, port or PORTS[parts.scheme], path, is_tls)


def _is_host(text: str) -> bool:
    """Whether it is an address or a name of a host (RFC 1123 §2.1)."""
    try:
        ip_address(text)
    except ValueError:
        return len(text) <= _HOST_MAX and _HOST.fullmatch(text) is not None
    return True


def samples(spec: JobSpec, text: str) -> Iterator[dict[str, Value]]:
    """Values of the variables in `text`, so that each choice and each bound comes at least once."""
    names = [name for name in names_in(text) if name in spec.variables]
    each = {name: _samples_of(spec, name) for name in names}
    for turn in range(max(map(len, each.values()), default=1)):
        yield {name: values[turn % len(values)] for name, values in each.items()}


def _samples_of(spec: JobSpec, name: str) -> list[Value]:
    variable = spec.variables[name]
    if variable.type is VariableType.CHOICE:
        return [*variable.choices] or [""]
    given = [v for v in (variable.default, variable.min, variable.max) if v is not None]
    return [*given] or [8080]


def unfit_references(spec: JobSpec, path: Path, text: str) -> Iterator[Problem]:
    """What is wrong with the `{{Variable}}`s of a text that says what is connected to."""
    in_host = names_in(_host_in(text))
    for name in names_in(text):
        variable = spec.variables.get(name)
        rests_on = (("variables", name),)
        fit = CHOSEN_AS_HOST if name in in_host else CHOSEN
        if variable is None:
            hint = did_you_mean(name, spec.variables) or f"; add [variables.{name}]"
            reason = f"{shown(path)} refers to {{{{{name}}}}}, which is not declared{hint}"
            yield Problem(path, reason, rests_on)
        elif variable.type not in fit:
            place = "the host of " if name in in_host else ""
            yield Problem(
                path,
                f"{{{{{name}}}}} is of type {variable.type} and may not stand in {place}"
                f"{shown(path)}: a start would choose what the service connects to; use type "
                + " or ".join(fit),
                rests_on,
            )
        elif variable.default is None and not variable.required:
            yield Problem(
                path,
                f"{{{{{name}}}}} may be left out, and {shown(path)} needs it: give it a default, "
                "or required = true",
                rests_on,
            )


def _host_in(text: str) -> str:
    """The part of a URL, or of `HOST:PORT`, that says which host; references still stand there."""
    found = _HOST_OF_URL.match(text)
    return found[1] if found is not None else text.rpartition(":")[0]
