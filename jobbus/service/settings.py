"""What can be set about a service: one record a section of `jobbus.toml`; `config` reads them."""

from pathlib import Path

import msgspec

from bus.access import RoleDefaults
from bus.retention_settings import RetentionSettings
from bus.secret_sources import SecretSource
from handlers.calendars.calendar_set import NOTHING_WRITTEN, Written

DATA_DEFAULT = Path("jobbus-data")
LISTEN_DEFAULT = "127.0.0.1:8765"
SIGNED_IN = "authenticated"


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


class LogSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[log]`: what the service writes to stderr.

    `level`: the least that is shown. `format`: `text` is for people, `json` for programs, `journal`
    for systemd's journal, which adds the time and knows the level; `auto` is what fits stderr.
    """

    level: str = "info"
    format: str = "auto"


class DirectorySection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[directory]`: how far the writers of queue files are believed.

    `admin`: whether a file may claim the role admin. `default_roles`: what a file without Roles
    has. `role_map`: which of our roles a word for a role of the host counts as, beside itself.
    `look_ms`: how often folders are looked at where the system announces no changes of others.
    `group`: other accounts of this group may write files, too. `uid_roles`: what the files of
    other accounts may, by uid; one not named has no roles.
    """

    admin: bool = False
    default_roles: tuple[str, ...] = ("operator",)
    role_map: dict[str, tuple[str, ...]] = {}
    look_ms: int = 250
    group: str | None = None
    uid_roles: dict[int, tuple[str, ...]] = {}

    def mapped_roles(self) -> dict[str, tuple[str, ...]]:
        """`role_map` with what is shipped: `authenticated`, which the host gives to everyone who
        has signed in, counts as `default_roles` unless it is mapped otherwise."""
        return {SIGNED_IN: self.default_roles} | self.role_map


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


class JobsSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[jobs]`: what programs get whose definitions say nothing of it, whatever the service has.

    `umask`: octal, as a text. `open_files`: the soft limit; the hard one is the service's own.
    """

    umask: str = "0022"
    open_files: int = 1024


class GroupSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[group.NAME]`: how many executions of all jobs that name the group may run at a time."""

    max_running: int


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All that can be set. Paths are absolute."""

    serve: ServeSettings = ServeSettings()
    log: LogSection = LogSection()
    directory: DirectorySection = DirectorySection()
    roles: RoleDefaults = RoleDefaults()
    proxy: ProxySection = ProxySection()
    limits: LimitsSection = LimitsSection()
    keep: RetentionSettings = RetentionSettings()
    jobs: JobsSection = JobsSection()
    secrets: dict[str, SecretSource] = {}
    group: dict[str, GroupSection] = {}
    calendars: Written = NOTHING_WRITTEN
    """`[calendar.NAME]` and `[blackout.NAME]`; the files that they name have whole paths."""

    def group_limits(self) -> dict[str, int]:
        """How many may run at a time of each group."""
        return {name: group.max_running for name, group in self.group.items()}

    def files(self) -> tuple[Path, ...]:
        """What a service reads beside its data; people may keep it in the same folder."""
        serve = self.serve
        given = (serve.apps, serve.tls_cert, serve.tls_key)
        secrets = (source.file for source in self.secrets.values())
        return tuple(path for path in (*given, *secrets) if path is not None)
