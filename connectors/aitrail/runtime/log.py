"""Logging: key-value lines on stderr, JSON when stderr is not a terminal. Never content of a record."""

import logging
import sys

import structlog

_LEVELS = {0: logging.WARNING, 1: logging.INFO}


def configure(verbosity: int) -> None:
    """Set up structlog: warnings by default, ``-v`` info, ``-vv`` debug."""
    plain = sys.stderr.isatty()
    # JSON escapes control characters, so a file name or a host name cannot forge a second line (CWE-117).
    renderer = structlog.dev.ConsoleRenderer() if plain else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS.get(verbosity, logging.DEBUG)),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
