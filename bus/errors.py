"""Every error jobbus raises on purpose: one root, one stable `code` each. No IO, no HTTP.

Three kinds, three treatments. *Refused*: the caller's fault; answered, never retried. *Failed*: a
fault of ours or of the system; answered, may be tried again. *Cannot happen*: an `assert`, not an
error of this module.
"""

from enum import StrEnum


class ErrorCode(StrEnum):
    """Why a command did not reach its aim. The words are part of the contract and never change."""

    # attempted, did not work
    SPAWN_ERROR = "spawn_error"
    NOT_READY = "not_ready"
    STOP_INCOMPLETE = "stop_incomplete"
    HANDLER_ERROR = "handler_error"
    HANDLER_TIMEOUT = "handler_timeout"
    INTERRUPTED = "interrupted"
    # never attempted
    UNKNOWN_JOB = "unknown_job"
    UNKNOWN_EXECUTION = "unknown_execution"
    UNKNOWN_COMMAND = "unknown_command"
    UNKNOWN_GROUP = "unknown_group"
    MALFORMED = "malformed"
    INVALID_JOB = "invalid_job"
    BAD_VARIABLES = "bad_variables"
    NOT_PERMITTED = "not_permitted"
    ALREADY_RUNNING = "already_running"
    ALREADY_ENDED = "already_ended"
    NOT_ENDED = "not_ended"
    QUEUE_FULL = "queue_full"
    START_LIMIT = "start_limit"
    DISABLED = "disabled"
    EXECUTION_REQUIRED = "execution_required"
    SECRET_BY_VALUE = "secret_by_value"  # noqa: S105 - a word of the contract, not a password
    MAINTENANCE = "maintenance"
    POISON = "poison"
    TOO_MANY_COMMANDS = "too_many_commands"
    CHAIN_TOO_LONG = "chain_too_long"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


class BusError(Exception):
    """The root of all errors of jobbus."""

    code: str = "error"


class Refused(BusError):
    """A command that must not be attempted: the caller can learn from `code` and the sentence.

    `pointer` names the faulty part as a JSON pointer into the command (RFC 6901), if there is one.
    """

    def __init__(self, code: ErrorCode, message: str, *, pointer: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.pointer = pointer


class IdInUse(BusError):
    """The command id is taken by a command with another body or of another principal."""

    code = "id_in_use"

    def __init__(self, message: str, *, same_principal: bool) -> None:
        super().__init__(message)
        self.same_principal = same_principal


class ArtifactGone(BusError):
    """A file that an execution left is not what it was."""

    code = "artifact_gone"


class TransportBusy(BusError):
    """The transport takes nothing now (full inbox, low disk, shutting down); try again later."""

    code = "transport_busy"

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NoSpace(TransportBusy):
    """The disk has no room for the command: nothing was accepted."""

    code = "no_space"


class StorageFailed(BusError):
    """A write could not be made durable; what the disk holds is unknown: restart from it."""

    code = "storage_failed"


class TooFewFiles(BusError):
    """The process may open too few files; the message says what to allow."""

    code = "too_few_files"


class NoThread(BusError):
    """The system gives no thread; the message says what to allow."""

    code = "no_thread"


class DataDirectoryError(BusError):
    """The data directory cannot be used; the message says why and what to do."""

    code = "data_directory"


class ConfigError(BusError):
    """A setting is wrong; the message names the place and what would be right."""

    code = "config"
