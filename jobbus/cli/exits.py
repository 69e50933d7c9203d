"""How a command of the CLI ends: its exit code, and the error that carries one. No IO."""

from enum import IntEnum

from bus.errors import BusError, ConfigError, ErrorCode
from bus.model import CommandStatus
from jobbus.client.errors import (
    ApiProblem,
    BadAddress,
    BadToken,
    CommandFailed,
    JobbusError,
    Unreachable,
    WaitTimeout,
)
from jobbus.client.records import Command


class Exit(IntEnum):
    """The exit codes of the contract."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_PERMITTED = 4
    UNREACHABLE = 5
    CONFLICT = 6
    TIMEOUT = 124
    INTERRUPTED = 130


class CliError(BusError):
    """Something that only the CLI can find wrong; the message is for people."""

    code = "cli"

    def __init__(self, message: str, exit_code: Exit = Exit.ERROR) -> None:
        super().__init__(message)
        self.exit_code = exit_code


_OF_CODE: dict[str, Exit] = {
    ErrorCode.UNKNOWN_JOB: Exit.NOT_FOUND,
    ErrorCode.UNKNOWN_EXECUTION: Exit.NOT_FOUND,
    ErrorCode.UNKNOWN_COMMAND: Exit.NOT_FOUND,
    ErrorCode.UNKNOWN_GROUP: Exit.NOT_FOUND,
    ErrorCode.NOT_PERMITTED: Exit.NOT_PERMITTED,
    ErrorCode.BAD_VARIABLES: Exit.USAGE,
    ErrorCode.MALFORMED: Exit.USAGE,
    ErrorCode.SECRET_BY_VALUE: Exit.USAGE,
    ErrorCode.ALREADY_RUNNING: Exit.CONFLICT,
    ErrorCode.ALREADY_ENDED: Exit.CONFLICT,
    ErrorCode.NOT_ENDED: Exit.CONFLICT,
    ErrorCode.QUEUE_FULL: Exit.CONFLICT,
    ErrorCode.START_LIMIT: Exit.CONFLICT,
    ErrorCode.DISABLED: Exit.CONFLICT,
    ErrorCode.INVALID_JOB: Exit.CONFLICT,
    ErrorCode.EXECUTION_REQUIRED: Exit.CONFLICT,
    ErrorCode.CANCELLED: Exit.CONFLICT,
    ErrorCode.SUPERSEDED: Exit.CONFLICT,
}
_OF_STATUS = {
    400: Exit.USAGE,
    422: Exit.USAGE,
    401: Exit.NOT_PERMITTED,
    403: Exit.NOT_PERMITTED,
    404: Exit.NOT_FOUND,
    410: Exit.NOT_FOUND,
    409: Exit.CONFLICT,
    412: Exit.CONFLICT,
    502: Exit.UNREACHABLE,
    503: Exit.UNREACHABLE,
    504: Exit.UNREACHABLE,
}


def exit_of(error: BusError | JobbusError) -> Exit:
    """The exit code that says what kind of trouble it was."""
    match error:
        case CliError():
            return error.exit_code
        case Unreachable():
            return Exit.UNREACHABLE
        case WaitTimeout():
            return Exit.TIMEOUT
        case CommandFailed(command=command):
            return exit_of_command(command) or Exit.ERROR
        case ConfigError() | BadAddress() | BadToken():
            return Exit.USAGE
        case ApiProblem(code=code, status=status):
            return _of_code(code) or _OF_STATUS.get(status, Exit.ERROR)
        case _:
            return _of_code(error.code) or Exit.ERROR


def exit_of_command(answer: Command) -> Exit:
    """The exit code for an ended command; a command still on its way is fine."""
    if answer.status in (CommandStatus.PENDING, CommandStatus.RUNNING, CommandStatus.COMPLETED):
        return Exit.OK
    return _of_code(answer.error_code or "") or Exit.ERROR


def _of_code(code: str) -> Exit | None:
    return _OF_CODE.get(code)
