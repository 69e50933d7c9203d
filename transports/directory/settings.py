"""What can be set about the directory transport; `[directory]` of jobbus.toml."""

import msgspec

from bus.access import ADMIN


class DirectorySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which writers are believed what, and the bounds. Durations are seconds.

    admin: whether `admin` in the Roles of a file of the service's own account is believed.
    default_roles: what such a file has without Roles.
    role_map: the roles that a word in such a file counts as, beside itself.
    uid_roles: what files of other accounts may; an account that is not named has no roles.
    settle_s: how long a file that is no command must stand still before it goes to Rejects.
    scan_interval_s: the directory is scanned so often even if no change is announced.
    look_ms: and so often where what others change is not announced.
    group_from: from so many commands on, one `syncfs` serves all of a batch.
    syncfs_slow_s: a `syncfs` that took longer makes the next `syncfs_pause_s` do without, unless
        file by file would take even longer.
    refusals_max: so many results are kept of files that were refused before they were commands.
    inbox_max, inbox_bytes_max: commands of publishers in the process that may wait here.
    """

    admin: bool = False
    default_roles: tuple[str, ...] = ("operator",)
    role_map: dict[str, tuple[str, ...]] = {}
    uid_roles: dict[int, tuple[str, ...]] = {}
    file_size_max: int = 262_144
    settle_s: float = 5.0
    stray_s: float = 3600.0
    scan_interval_s: float = 5.0
    look_ms: int = 250
    batch_max: int = 256
    group_from: int = 4
    syncfs_slow_s: float = 0.05
    syncfs_pause_s: float = 5.0
    inbox_max: int = 10_000
    inbox_bytes_max: int = 64 * 1024 * 1024
    tmp_age_s: float = 3600.0
    refusals_max: int = 10_000
    rejects_max: int = 1000
    rejects_bytes_max: int = 64 * 1024 * 1024

    def roles_of(self, uid: int) -> tuple[str, ...]:
        """The roles of files that belong to an account other than the service's own."""
        return self.uid_roles.get(uid, (ADMIN,) if uid == 0 else ())
