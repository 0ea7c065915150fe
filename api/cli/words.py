"""Structured logs of a role: one event a line, JSON or for a terminal, everything bound to the request it is about."""

from __future__ import annotations

import logging
import sys
from typing import Any

import msgspec
import structlog

from bus.config import Settings

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_encode = msgspec.json.Encoder(enc_hook=repr).encode


def configure(settings: Settings, role: str) -> None:
    """Set up this process's logs, third parties' too, on standard output."""
    console = settings.log_format == "console" or (settings.log_format == "auto" and sys.stdout.isatty())
    render: Any = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback) if console else _json
    level = _LEVELS[settings.log_level]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.StackInfoRenderer(),
            *([] if console else [structlog.processors.format_exc_info]),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(role=role)
    logging.basicConfig(handlers=[_Forwarded()], level=max(level, logging.WARNING), force=True)


def _json(_logger: Any, _name: str, event: dict[str, Any]) -> str:
    ordered = {
        "timestamp": event.pop("timestamp", ""),
        "level": event.pop("level", ""),
        "event": event.pop("event", ""),
    }
    return _encode({**ordered, **event}).decode()


class _Forwarded(logging.Handler):
    """What libraries say through the standard library, in our words' shape."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        log.log(record.levelno, record.getMessage(), library=record.name, exc_info=record.exc_info)
