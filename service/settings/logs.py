"""Logs are events with fields (`log.info("job.claimed", job_id=...)`): never user text, keys or dataset rows."""

import logging
import sys

import structlog

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(level: str) -> None:
    """Writes one line per event to stderr; a trainer's stdout belongs to its protocol. Called once per process."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # its import warns that a hub has other kernels
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
