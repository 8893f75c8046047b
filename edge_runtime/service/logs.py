"""Owns the service's logs: JSON lines on stderr, one event each, with trigger ids where there are some."""

import logging
import os
import sys

import structlog


def configure(process: str) -> None:
    """Send structlog's events to stderr as JSON lines.

    Args:
        process: who speaks: `supervisor`, `broker`, `worker:NAME`, `camera:NAME`.
    """
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="utc"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(process=process, pid=os.getpid())
