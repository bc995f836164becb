"""Structured logs on stderr. User speech never reaches a line: of exceptions only the places are logged."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any, TextIO

import structlog

_PLACES = 8  # innermost places of a traceback that are logged


def configure_logs(*, as_json: bool, file: TextIO | None = None) -> None:
    """Log at level INFO to stderr, as JSON lines or as coloured text; `file`: what stands for stderr."""
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact_exception,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(file or sys.stderr),
    )
    logging.getLogger("aiortc").setLevel(logging.ERROR)
    logging.getLogger("aioice").setLevel(logging.ERROR)


def redact_exception(logger: Any, method: str, event: Any) -> Any:
    """Replace exc_info by "places" (file:line of the traceback): messages and values may quote speech.

    A structlog processor. Of an exception group the first exception's traceback is followed.
    """
    if event.pop("exc_info", None):
        error = sys.exc_info()[1]
        places = []
        while error is not None:
            trace = error.__traceback__
            while trace is not None:
                places.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
                trace = trace.tb_next
            error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else None
        event["places"] = places[-_PLACES:]
    return event
