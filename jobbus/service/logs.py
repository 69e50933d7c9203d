"""How the service writes its log: structured lines on stderr, without secrets or query strings.

Text on a terminal, lines for systemd's journal where that reads, else JSON; or what the settings
say. The standard library's loggers (aiohttp, asyncio) go the same way.
"""

import io
import logging
import os
import re
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, TextIO

import msgspec
import structlog

from bus.visible_text import visible
from jobbus.service.stdio import STDERR, writer_to

HIDDEN: Final = "[hidden]"
_SECRET_NAME = re.compile(r"token|secret|password|authorization|cookie|credential", re.IGNORECASE)
_TOKEN = re.compile(r"\bjb_[A-Za-z0-9]+_[A-Za-z0-9_-]{8,}")
_QUERY = re.compile(r"(?<=\S)\?[^\s\"']+=[^\s\"']*")
_DEPTH_MAX = 4

_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""Of syslog(3), as sd-daemon(3) has them at the beginning of a line."""

_NOT_FIELDS: Final = frozenset({"event", "level", "logger", "timestamp", "exception", "stack"})


def configure_logs(
    level: str = "info", stream: TextIO | None = None, *, form: str = "auto"
) -> None:
    """Everything that is logged from now on goes to `stream` (stderr), one line an entry."""
    out: io.TextIOBase | TextIO = stream if stream is not None else writer_to(STDERR)
    # Exceptions become text before the redaction, so that it sees what they quote.
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                redact,
                _renderer(out, form),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_log_level(level)
    # It logs each change below what it watches: a log in there would cause its own lines.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)


def set_log_level(level: str) -> None:
    """From now on only what is at least that serious is logged: `debug`, `info`, `warning`."""
    logging.getLogger().setLevel(level.upper())


def redact(
    _logger: object, _method: str, entry: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """The entry without what must never stand in a log; a processor of structlog."""
    for name, value in entry.items():
        if not name.startswith("_"):
            entry[name] = HIDDEN if _SECRET_NAME.search(name) else _clean(value, _DEPTH_MAX)
    return entry


def _clean(value: Any, depth: int) -> Any:
    """`value` with tokens hidden, the queries of URLs cut and nothing that a terminal would obey
    (the name of a file may be another account's), as deep as logs sensibly go."""
    if isinstance(value, str):
        plain = "\t".join(visible(part, lines=True) for part in value.split("\t"))
        return _QUERY.sub("?…", _TOKEN.sub(HIDDEN, plain))
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if depth and isinstance(value, Mapping):
        return {
            name: HIDDEN if _SECRET_NAME.search(str(name)) else _clean(item, depth - 1)
            for name, item in value.items()
        }
    if depth and isinstance(value, (list, tuple)):
        return [_clean(item, depth - 1) for item in value]
    return value


def _renderer(out: io.TextIOBase | TextIO, form: str) -> structlog.typing.Processor:
    match form:
        case "json":
            return structlog.processors.JSONRenderer(ensure_ascii=False)
        case "text":
            return _as_text
        case "journal":
            return _for_journal
        case _ if out.isatty():
            return structlog.dev.ConsoleRenderer(colors=not os.environ.get("NO_COLOR"))
        case _:
            return _renderer(out, "journal" if _is_journal(out) else "json")


def _is_journal(out: io.TextIOBase | TextIO) -> bool:
    """Whether systemd's journal reads `out`: then JOURNAL_STREAM names it, see systemd.exec(5)."""
    try:
        found = os.fstat(out.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _as_text(_logger: object, _method: str, entry: MutableMapping[str, Any]) -> str:
    return f"{entry.get('timestamp', '')} {entry.get('level', ''):7} {_sentence(entry)}"


def _for_journal(_logger: object, _method: str, entry: MutableMapping[str, Any]) -> str:
    """Every line of an entry has its level; a line without would be one of `info`."""
    mark = f"<{_PRIORITIES.get(str(entry.get('level')), 6)}>"
    return "\n".join(f"{mark}{line}" for line in _sentence(entry).splitlines() or [""])


def _sentence(entry: Mapping[str, Any]) -> str:
    """The event and those fields that say more than it does; a trace below."""
    event = str(entry.get("event", ""))
    fields = (
        f"{name}={_plain(value)}"
        for name, value in entry.items()
        if not (name in _NOT_FIELDS or name.startswith("_") or _is_said(value, event))
    )
    traces = (str(entry[name]) for name in ("exception", "stack") if entry.get(name))
    return "\n".join((" ".join((event, *fields)), *traces))


def _is_said(value: object, event: str) -> bool:
    return value is None or (isinstance(value, str) and len(value) > 2 and value in event)


def _plain(value: object) -> str:
    """A word as it is; text with spaces, and whatever is not text, as JSON."""
    if isinstance(value, str) and not re.search(r"[\s\"=]", value):
        return value
    return msgspec.json.encode(value, enc_hook=str).decode()
