"""What is asked whether a program is ready or well: a port, a URL, a line of its output. Pure.

These are the texts of `ready` and of `[health]`, after `{{Variable}}`s have their values. Numbers
and choices may stand there, and no free text: who starts a job does not choose what the service
connects to.
"""

import re
from collections.abc import Iterator, Mapping
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

_TCP = re.compile(r"(?:(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):)?(?P<port>[0-9]{1,5})")


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
    if found is None or not 1 <= int(found["port"]) <= 65_535:
        raise NoTarget(
            f"needs a port from 1 to 65535, or HOST:PORT, not {quoted(text)}; e.g. tcp:8080"
        )
    return TcpTarget((found["host"] or "").strip("[]"), int(found["port"]))


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
    if parts.scheme not in PORTS or not host or port == 0:
        raise NoTarget(wrong)
    if "@" in parts.netloc or parts.fragment:
        raise NoTarget(f"takes no user, password or fragment: {quoted(text)}")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    is_tls = parts.scheme == "https"
    return HttpTarget(host, port or PORTS[parts.scheme], path, is_tls)


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
    for name in names_in(text):
        variable = spec.variables.get(name)
        rests_on = (("variables", name),)
        if variable is None:
            hint = did_you_mean(name, spec.variables) or f"; add [variables.{name}]"
            reason = f"{shown(path)} refers to {{{{{name}}}}}, which is not declared{hint}"
            yield Problem(path, reason, rests_on)
        elif variable.type not in CHOSEN:
            yield Problem(
                path,
                f"{{{{{name}}}}} is of type {variable.type} and may not stand in {shown(path)}: "
                "who starts the job would choose what the service connects to; use type integer "
                "or choice",
                rests_on,
            )
        elif variable.default is None and not variable.required:
            yield Problem(
                path,
                f"{{{{{name}}}}} may be left out, and {shown(path)} needs it: give it a default, "
                "or required = true",
                rests_on,
            )
