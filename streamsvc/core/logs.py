"""Structured logs on stderr. User speech never reaches a line: of exceptions only the places are logged."""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

import structlog

from streamsvc.core import metrics
from streamsvc.core.redaction import places, redact_libraries

log = structlog.get_logger()


def configure_logs(*, as_json: bool, file: TextIO | None = None, level: int = logging.INFO) -> None:
    """Log to stderr, as JSON lines or as coloured text; `file`: what stands for stderr."""
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    output = file or sys.stderr
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact_exception,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Lines(output),
    )
    logging.getLogger("aiortc").setLevel(logging.ERROR)
    logging.getLogger("aioice").setLevel(logging.ERROR)
    redact_libraries(lambda event, fields: log.warning(event, **fields))


class _Lines(structlog.PrintLogger):
    """Prints lines; one that the file does not take is counted, and costs its caller nothing."""

    def msg(self, message: str) -> None:
        try:
            super().msg(message)
        except (OSError, ValueError):  # a broken pipe, a full disk, a closed file
            metrics.log_lines_lost.inc()

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def redact_exception(logger: Any, method: str, event: Any) -> Any:
    """Replace exc_info by "places" (file:line of the traceback): messages and values may quote speech.

    A structlog processor. Of an exception group the first exception's traceback is followed. An exception
    that is a value of its own becomes its class.
    """
    if given := event.pop("exc_info", None):
        event["places"] = places(given if isinstance(given, BaseException) else sys.exc_info()[1])
    for name, value in event.items():
        if isinstance(value, BaseException):
            event[name] = type(value).__name__
    return event
