"""Where things lie in a data directory: the names and nothing else. No IO.

Every part that touches the disk asks here, so that the names of DESIGN's data directory stand once.
"""

from pathlib import Path

import msgspec


class DataLayout(msgspec.Struct, frozen=True):
    """The places below one data directory. None of the properties creates or checks anything."""

    root: Path

    @property
    def queue(self) -> Path:
        """Commands that wait or are being handled, one `{CommandID}.json` each."""
        return self.root / "JobCommandQueue"

    @property
    def queue_tmp(self) -> Path:
        """Files on their way into the queue; same file system, random names."""
        return self.queue / ".tmp"

    @property
    def results(self) -> Path:
        """Ended commands, one `{CommandID}.json` each."""
        return self.root / "JobCommandResults"

    @property
    def status(self) -> Path:
        """One `{ExecutionID}.json` per execution."""
        return self.root / "JobStatus"

    @property
    def output(self) -> Path:
        """One folder per execution, see `ExecutionLayout`."""
        return self.root / "JobOutput"

    @property
    def rejects(self) -> Path:
        """Files that were no command, each with a `.reason.json`."""
        return self.root / "JobCommandRejects"

    @property
    def journal(self) -> Path:
        """The segments of the journal."""
        return self.root / "Journal"

    @property
    def audit(self) -> Path:
        """The segments of the audit."""
        return self.journal / "Audit"

    @property
    def sockets(self) -> Path:
        """The names by which service, shims and programs reach one another."""
        return self.root / "Sockets"

    @property
    def lock(self) -> Path:
        """Held by an exclusive `flock` for the life of the one service of this directory."""
        return self.root / "lock"

    @property
    def instance(self) -> Path:
        """`instance.json`: who this data directory is and where its service can be reached."""
        return self.root / "instance.json"

    @property
    def admin_token(self) -> Path:
        """The token of the first start, mode 0600."""
        return self.root / "admin.token"

    @property
    def secret_key(self) -> Path:
        """What seals the commands of our own publishers, mode 0600."""
        return self.root / "secret.key"

    @property
    def tokens(self) -> Path:
        """Hashed tokens of people and services."""
        return self.root / "tokens.json"

    @property
    def sessions(self) -> Path:
        """Hashed sign-ins of browsers, so that they outlive a restart."""
        return self.root / "sessions.json"

    @property
    def all(self) -> tuple[Path, ...]:
        """What lies in the directory itself, once all of it has come."""
        folders = (self.queue, self.results, self.status, self.output, self.rejects)
        ours = (self.journal, self.sockets, self.lock, self.instance)
        return (*folders, *ours, self.admin_token, self.secret_key, self.tokens, self.sessions)

    def execution(self, execution_id: str) -> "ExecutionLayout":
        """The folder of one execution."""
        return ExecutionLayout(self.output / execution_id)


class ExecutionLayout(msgspec.Struct, frozen=True):
    """The files of one execution. The shim writes all of them except `control`."""

    root: Path

    @property
    def claim(self) -> Path:
        """Created with O_EXCL: the process that creates it decides whether the job ever runs."""
        return self.root / "claim"

    @property
    def process(self) -> Path:
        """Who runs: pids, start ticks, boot id, session."""
        return self.root / "process.json"

    @property
    def control(self) -> Path:
        """What the service asks of the shim: stop, grace, kill. Written durably by the service."""
        return self.root / "control"

    @property
    def progress(self) -> Path:
        """Lines the job appends; named in `JOBBUS_PROGRESS`."""
        return self.root / "progress"

    @property
    def own(self) -> "ExecutionLayout":
        """The files that the program writes, if its definition names an account."""
        return ExecutionLayout(self.root / "own")

    @property
    def result(self) -> Path:
        """A JSON object in which the job says what came of it; named in `JOBBUS_RESULT`."""
        return self.root / "result.json"

    @property
    def artifacts(self) -> Path:
        """The folder in which the job leaves files; named in `JOBBUS_ARTIFACTS`."""
        return self.root / "artifacts"

    @property
    def artifact_list(self) -> Path:
        """Which of these files may be had."""
        return self.root / "artifacts.json"

    @property
    def exit(self) -> Path:
        """How it ended; the shim's last act."""
        return self.root / "exit.json"

    @property
    def lock(self) -> Path:
        """Held by `flock` while the shim lives."""
        return self.root / "lock"

    @property
    def output(self) -> Path:
        """The raw bytes of stdout and stderr in the order read."""
        return self.root / "output.log"

    @property
    def output_index(self) -> Path:
        """Byte offset to time, stream and line number."""
        return self.root / "output.idx"


DIRECTORY_MODE = 0o700
FILE_MODE = 0o600
