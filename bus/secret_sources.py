"""Where the values of secrets come from: `[secrets]` of jobbus.toml, by name. No IO, no values."""

import re
from pathlib import Path
from typing import Final

import msgspec

SECRET_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


class SecretSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `NAME = { env = "VAR" }` or `NAME = { file = "path" }`; exactly one of both is set.

    `jobs` are those that may be given it; without them, any may.
    """

    env: str | None = None
    file: Path | None = None
    jobs: tuple[str, ...] | None = None

    def is_for(self, job_id: str) -> bool:
        return self.jobs is None or job_id in self.jobs
