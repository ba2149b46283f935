"""Log lines on stderr, through structlog. Rule: the formatter is imported with the first line, not with the program.

Other libraries speak from WARNING on, and all of it with DEBUG: what they tell about each step is not for users.
"""

from __future__ import annotations

import logging
import sys

from .. import ConfigError

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


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
            # plain: with the values of all variables a traceback fills screens, and shows what is secret
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
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
    handler.addFilter(_unsaid)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel("WARNING" if name == "INFO" else name)
    logging.getLogger("asyncinfer").setLevel(name)


def _unsaid(record: logging.LogRecord) -> bool:
    """Whether no library has written the line by a handler of its own."""
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None and logger.parent is not None:
        if any(record.levelno >= one.level and not isinstance(one, logging.NullHandler) for one in logger.handlers):
            return False
        logger = logger.parent if logger.propagate else None
    return True
