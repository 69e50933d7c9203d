"""The settings of a service: `jobbus.toml`, the environment and flags become one frozen record.

Flags win over the environment, which wins over the file, which wins over the defaults. A key that
nobody knows is an error, never ignored; so is a section whose part is not built yet.
"""

import ipaddress
import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, get_origin

import msgspec

from bus.access import ADMIN, RoleDefaults
from bus.envelope import RESERVED_USERS
from bus.errors import ConfigError
from bus.keeping import Keeping
from bus.secret_sources import SECRET_NAME, SecretSource

DATA_DEFAULT = Path("jobbus-data")
LISTEN_DEFAULT = "127.0.0.1:8765"
FILE_SIZE_MAX = 1024 * 1024


class ServeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[serve]`: where the data and the apps lie, and where the gateway listens.

    `hosts` are names beyond loopback and the address itself that clients may ask for.
    `origins` are pages elsewhere that may use the API with a token of their own. Other addresses
    than loopback may be listened on with `tls_cert` and `tls_key`, or with `behind_proxy`: then
    something in front ends TLS, and only that is served.
    """

    data: Path = DATA_DEFAULT
    apps: Path = Path("apps")
    listen: str = LISTEN_DEFAULT
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    behind_proxy: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    allow_network_fs: bool = False


class DirectorySection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[directory]`: how far the writers of queue files are believed.

    `admin`: whether a file may claim the role admin. `default_roles`: what a file without Roles
    has. `uid_roles`: what the files of other accounts may, by uid; one not named has no roles.
    """

    admin: bool = False
    default_roles: tuple[str, ...] = ("operator",)
    uid_roles: dict[int, tuple[str, ...]] = {}


class ProxySection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[proxy]`: which peers are the proxy in front, and how far they are believed.

    `trusted`: addresses and networks; without any, this machine's own. `user_header` and
    `roles_header`: where the proxy names who it has signed in; it must take away what clients send
    under these names. `default_roles`: those of a user for whom it names none.
    """

    trusted: tuple[str, ...] = ()
    user_header: str | None = None
    roles_header: str | None = None
    default_roles: tuple[str, ...] = ()


class LimitsSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[limits]`: how much one principal, or all together, may have at a time.

    `posts_per_s`, `post_burst`: requests of one principal that change something. `waits`: requests
    that wait for a command's end; beyond, they are answered at once. `session_idle_s`,
    `session_age_s`: how long a sign-in lasts, unused and at most.
    """

    streams: int = 1000
    streams_per_principal: int = 20
    posts_per_s: float = 5_000.0
    post_burst: float = 10_000.0
    waits: int = 1000
    waits_per_principal: int = 200
    sessions: int = 1000
    session_idle_s: float = 43_200.0
    session_age_s: float = 604_800.0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All that can be set. Paths are absolute."""

    serve: ServeSettings = ServeSettings()
    directory: DirectorySection = DirectorySection()
    roles: RoleDefaults = RoleDefaults()
    proxy: ProxySection = ProxySection()
    limits: LimitsSection = LimitsSection()
    keep: Keeping = Keeping()
    secrets: dict[str, SecretSource] = {}


SECTIONS: Final[dict[str, type[msgspec.Struct]]] = {
    "serve": ServeSettings,
    "directory": DirectorySection,
    "roles": RoleDefaults,
    "proxy": ProxySection,
    "limits": LimitsSection,
    "keep": Keeping,
}
SECRETS: Final = "secrets"
"""The section whose keys are names of the operator's choice. It stands in the file only."""

NOT_BUILT: Final = ("nats",)
"""Sections of the contract whose part does not exist yet: set, they are refused, not ignored."""

_SHORT_NAMES: Final = {"JOBBUS_DATA": ("serve", "data")}
_PATHS: Final = (
    ("serve", "data"),
    ("serve", "apps"),
    ("serve", "tls_cert"),
    ("serve", "tls_key"),
)
_ORIGIN: Final = re.compile(
    r"https?://(?:\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?)(?::[1-9][0-9]{0,4})?\Z"
)
_HEADER: Final = re.compile(r"[A-Za-z0-9-]{1,64}\Z")
_Values = dict[tuple[str, str], Any]


def load_settings(
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Settings:
    """The settings of file, environment and flags together.

    `flags` are named `section.key`; a value of None was not given. Relative paths in the file count
    from its folder, all others from the current one.

    Raises:
        ConfigError: a key is unknown or a value wrong; the message names the place.
    """
    values: _Values = {}
    if config is not None:
        values |= _from_file(config)
    values |= _from_environ(environ or {})
    values |= _from_flags(flags or {})
    sections: dict[str, Any] = {name: _section(name, values) for name in SECTIONS}
    serve: ServeSettings = sections["serve"]
    sections["serve"] = msgspec.structs.replace(
        serve, data=serve.data.absolute(), apps=serve.apps.absolute()
    )
    settings = Settings(**sections, secrets=_secrets(values))
    _check(settings)
    return settings


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


def _from_file(path: Path) -> _Values:
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_SIZE_MAX + 1)
        if len(raw) > FILE_SIZE_MAX:
            raise ConfigError(f"{path} is larger than {FILE_SIZE_MAX} bytes")
        document = tomllib.loads(raw.decode("utf-8"))
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ConfigError(f"{path} is no TOML: {exc}") from exc
    values: _Values = {}
    for section, table in document.items():
        _known_section(section, str(path))
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {section} must be a section: write [{section}]")
        for key, value in table.items():
            if section == SECRETS:
                values[section, key] = _from_here(path, value)
                continue
            _known_key(section, key, str(path))
            if (section, key) in _PATHS and isinstance(value, str):
                value = str(path.absolute().parent / value)
            values[section, key] = value
    return values


def _from_environ(environ: Mapping[str, str]) -> _Values:
    values: _Values = {}
    for name, text in environ.items():
        place = _SHORT_NAMES.get(name) or _place_of(name)
        if place is None or not text:
            continue
        section, key = place
        if section == SECRETS:
            raise ConfigError(f"{name}: [secrets] stands in the file only, by --config")
        _known_section(section, name)
        _known_key(section, key, name)
        values[place] = _value_of(section, key, text, name)
    # JOBBUS_SERVE_DATA says it more exactly than JOBBUS_DATA.
    if environ.get("JOBBUS_SERVE_DATA"):
        values["serve", "data"] = environ["JOBBUS_SERVE_DATA"]
    return values


def _place_of(name: str) -> tuple[str, str] | None:
    """Section and key of `JOBBUS_<SECTION>_<KEY>`; None for other variables of ours."""
    prefix, _, rest = name.partition("_")
    section, _, key = rest.lower().partition("_")
    known = section in SECTIONS or section in NOT_BUILT or section == SECRETS
    return (section, key) if prefix == "JOBBUS" and known and key else None


def _value_of(section: str, key: str, text: str, name: str) -> object:
    """The text of a variable as what the key holds: lists are comma-separated words."""
    kind: Any = SECTIONS[section].__annotations__[key]
    if get_origin(kind) is tuple:
        return [word for word in (part.strip() for part in text.split(",")) if word]
    if get_origin(kind) is dict:
        raise ConfigError(f"{name}: [{section}] {key} is a table; set it in the file")
    if kind is bool:
        return _boolean(text, name)
    if kind in (int, float):
        return _number(text, name)
    return text


def _number(text: str, name: str) -> int | float:
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        raise ConfigError(f"{name} must be a number, not {text!r}") from None


def _boolean(text: str, name: str) -> bool:
    match text.lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off":
            return False
        case _:
            raise ConfigError(f"{name} must be true or false, not {text!r}")


def _from_flags(flags: Mapping[str, object]) -> _Values:
    values: _Values = {}
    for name, value in flags.items():
        section, _, key = name.partition(".")
        assert section in SECTIONS, name
        assert key in SECTIONS[section].__struct_fields__, name
        if value is not None:
            values[section, key] = str(value) if isinstance(value, Path) else value
    return values


def _known_section(section: str, where: str) -> None:
    if section in NOT_BUILT:
        raise ConfigError(f"{where}: the section [{section}] is not built in this version")
    if section not in SECTIONS and section != SECRETS:
        raise ConfigError(f"{where}: there is no section [{section}]{_nearest(section, SECTIONS)}")


def _known_key(section: str, key: str, where: str) -> None:
    known = SECTIONS[section].__struct_fields__
    if key not in known:
        raise ConfigError(f"{where}: [{section}] has no key {key!r}{_nearest(key, known)}")


def _nearest(word: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


def _section(name: str, values: _Values) -> msgspec.Struct:
    kind = SECTIONS[name]
    table = {}
    for key in kind.__struct_fields__:
        if (name, key) not in values:
            continue
        try:
            table[key] = msgspec.convert(
                values[name, key], kind.__annotations__[key], str_keys=True, dec_hook=_path
            )
        except msgspec.ValidationError as exc:
            sentence = str(exc)
            raise ConfigError(f"[{name}] {key}: {sentence[0].lower()}{sentence[1:]}") from exc
    return kind(**table)


def _from_here(config: Path, source: object) -> object:
    """The source with its file counted from the folder of the config."""
    if isinstance(source, dict) and isinstance(source.get("file"), str) and source["file"]:
        return source | {"file": str(config.absolute().parent / source["file"])}
    return source


def _secrets(values: _Values) -> dict[str, SecretSource]:
    return {key: _source(key, value) for (name, key), value in values.items() if name == SECRETS}


def _source(name: str, table: object) -> SecretSource:
    """Nothing of `table` is repeated: people put values where names belong."""
    if not SECRET_NAME.fullmatch(name):
        raise ConfigError(
            f"[secrets] {name[:80]!r} is no name: use letters, digits, _ . and -, at most 128"
        )
    try:
        source = msgspec.convert(table, SecretSource, dec_hook=_path)
    except msgspec.ValidationError:
        source = SecretSource()
    if (source.env is None) == (source.file is None) or source.env == "":
        raise ConfigError(
            f'[secrets] {name} must be {{ env = "VARIABLE" }} or {{ file = "path" }}; '
            "the value itself never stands here"
        )
    return source


def _path(kind: type, value: object) -> Path:
    if kind is Path and isinstance(value, str) and value and "\0" not in value:
        return Path(value)
    raise ValueError("expected a path")


def _check(settings: Settings) -> None:
    host, _ = split_listen(settings.serve.listen)
    serve = settings.serve
    if (serve.tls_cert is None) != (serve.tls_key is None):
        raise ConfigError("[serve] tls_cert and tls_key belong together: set both or none")
    if not (_is_loopback(host) or serve.behind_proxy or serve.tls_cert is not None):
        raise ConfigError(
            f"[serve] listen: {host} can be reached from outside without encryption; listen on "
            "127.0.0.1, or give --tls-cert and --tls-key, or put a proxy with TLS in front and say "
            "so with --behind-proxy"
        )
    _check_origins(serve.origins)
    _check_proxy(settings.proxy, behind_proxy=serve.behind_proxy)
    _check_limits(settings.limits)
    _check_keep(settings.keep)
    if ADMIN in settings.directory.default_roles:
        raise ConfigError("[directory] default_roles must not hold admin; see [directory] admin")
    proxy_roles = settings.proxy.default_roles
    for name in (*settings.directory.default_roles, *proxy_roles, *_role_words(settings.roles)):
        if not name or name.startswith(RESERVED_USERS):
            raise ConfigError(f"{name!r} is no role; a role is a word such as operator")


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


def _check_keep(keep: Keeping) -> None:
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
