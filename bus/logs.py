"""Logging, set up once a process: structlog on standard error, for people or (LOG_FORMAT=json) for machines."""

import logging
import sys

import structlog

from bus.settings import Settings


def setup(settings: Settings) -> None:
    """Events are snake_case names with fields; never a secret among them."""
    level = logging.getLevelNamesMapping()[settings.LOG_LEVEL.upper()]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.LOG_FORMAT == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(
        level=max(level, logging.WARNING), stream=sys.stderr, format="%(name)s: %(message)s"
    )
    logging.getLogger("nats").setLevel(
        logging.CRITICAL
    )  # bus/transport/connection.py says what matters, once
