"""How much of the past is kept: `[keep]` of jobbus.toml. No IO, no clock."""

import msgspec

DAY_MS = 86_400_000


class RetentionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is forgotten first when there is more; on from the first day.

    `executions`, `days`: ended executions of one job, their status files and output; a job's own
    `[keep]` goes before. `output_bytes`: output of all ended executions together, `result_bytes`:
    their results, which are kept in memory. `commands`,
    `command_days`: ended commands and their result files; `command_bytes`: variables, results and
    errors of them all together; `status_s`: those of `status` commands. Of these two, those without
    an effect (reads, refusals) have a part of their own, and who has the most gives way first.
    `id_days`: ids of commands that had an effect, so that a repeat is known as one. None goes
    earlier: who has `ids` of them, or more than a fair part when all have `ids_in_all`, starts
    nothing more until some are old enough. `rejects`,
    `reject_days`, `reject_bytes`: files that were no command. `audit_days`: who did what.
    """

    executions: int = 100
    days: float = 30.0
    output_bytes: int = 10 * 1024**3
    result_bytes: int = 64 * 1024**2
    commands: int = 100_000
    command_days: float = 7.0
    command_bytes: int = 256 * 1024**2
    status_s: float = 3600.0
    ids: int = 1_000_000
    ids_in_all: int = 4_000_000
    id_days: float = 30.0
    rejects: int = 1000
    reject_days: float = 7.0
    reject_bytes: int = 64 * 1024**2
    audit_days: float = 90.0
