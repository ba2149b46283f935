"""Log lines on stderr, through structlog. Rule: the formatter is imported with the first line, not with the program."""

from __future__ import annotations

import logging
import sys

from .. import ConfigError

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

_CHATTY = ("httpx", "httpcore", "asyncio", "urllib3", "filelock")


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]
    """Formats records of the standard library's loggers with structlog, looked up when the first one comes."""

    def format(self, record: logging.LogRecord) -> str:
        if self.formatter is None:
            self.formatter = _formatter()
        return super().format(record)


def _formatter() -> logging.Formatter:
    import structlog

    return structlog.stdlib.ProcessorFormatter(
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
        ],
    )


def set_up(level: str) -> None:
    """Send log records of ``level`` and above to stderr.

    Raises:
        ConfigError: there is no such level.
    """
    name = level.upper()
    if name not in LEVELS:
        raise ConfigError(f"--log-level: {level!r} is not a level; choose one of {', '.join(LEVELS)}", path="log_level")
    handler = _Handler(sys.stderr)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(name)
    for chatty in _CHATTY:  # a line for each request is for those who ask for it
        logging.getLogger(chatty).setLevel("DEBUG" if name == "DEBUG" else "WARNING")
