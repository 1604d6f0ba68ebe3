"""Logging: structlog on standard error, as lines for people or as JSON (LOG_FORMAT=json)."""

import logging
import sys

import structlog

from bus.log_limit import RepeatLimit, shorten
from bus.redaction import redact
from bus.settings import Settings


def setup(settings: Settings) -> None:
    """Sets up structlog and the standard library's logging by LOG_LEVEL and LOG_FORMAT.

    Events are snake_case names with fields. Secrets are never among the fields, and those in the
    texts of errors are hidden.
    """
    level = logging.getLevelNamesMapping()[settings.LOG_LEVEL.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            RepeatLimit(),
            shorten,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _renderer(settings),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    libraries = max(level, logging.WARNING)
    logging.basicConfig(
        level=libraries,
        stream=sys.stderr,
        format="%(name)s: %(message)s",
    )
    # nats-py logs every failed attempt; bus/transport/connection.py logs each change once
    logging.getLogger("nats").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").addFilter(_is_no_end_of_tls)


def _is_no_end_of_tls(record: logging.LogRecord) -> bool:
    """Whether this is something else than asyncio's warning at the end of each TLS connection.

    asyncio's streams do not know that nats-py has put TLS under them, and complain when it ends.
    """
    return not record.getMessage().startswith("returning true from eof_received() has no effect")


def _renderer(settings: Settings) -> structlog.typing.Processor:
    render: structlog.typing.Processor
    if settings.LOG_FORMAT == "json":
        render = structlog.processors.JSONRenderer()
    else:
        render = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())

    def render_without_secrets(
        logger: structlog.typing.WrappedLogger,
        name: str,
        event: structlog.typing.EventDict,
    ) -> str:
        return redact(str(render(logger, name, event)))

    return render_without_secrets
