"""``python -m slipway_operator.controllers``: the operator."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

import structlog
from pydantic import ValidationError

from slipway_operator.controllers.process import load_settings, run


def main() -> int:
    """Read the settings and run."""
    level = logging.getLevelNamesMapping().get(os.environ.get("SLIPWAY_LOG_LEVEL", "INFO").upper(), logging.INFO)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_JsonHandler()])
    try:
        settings = load_settings()
    except (OSError, ValidationError) as error:
        structlog.get_logger().critical("the settings cannot be read", error=str(error))
        return 2
    asyncio.run(run(settings))
    return 0


class _JsonHandler(logging.Handler):
    """What libraries log, in the same form as ours."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info or None
        )


if __name__ == "__main__":
    sys.exit(main())
