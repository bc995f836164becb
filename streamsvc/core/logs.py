"""Structured logs on stderr. User speech never reaches a line: of exceptions only the places are logged.

Libraries log through Python's `logging`, and quote what they were given: of their records the logger, the
place and the class of the exception are logged, never the message or the traceback.
"""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog

_PLACES = 8  # innermost places of a traceback that are logged
log = structlog.get_logger()


def configure_logs(*, as_json: bool) -> None:
    """Log at level INFO to stderr, as JSON lines or as coloured text; libraries at WARNING, without texts."""
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
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.getLogger("aiortc").setLevel(logging.ERROR)
    logging.getLogger("aioice").setLevel(logging.ERROR)
    redact_libraries()


def redact_libraries() -> None:
    """Have records of `logging` and exceptions that nobody caught logged without their texts."""
    root = logging.getLogger()
    root.handlers[:] = [_Redacted(logging.WARNING)]
    sys.excepthook = lambda kind, error, trace: _say_uncaught("main", kind, trace)
    sys.unraisablehook = lambda args: _say_uncaught("finalizer", args.exc_type, args.exc_traceback)
    threading.excepthook = lambda args: _say_uncaught("thread", args.exc_type, args.exc_traceback)


class _Redacted(logging.Handler):
    """Logs where a record comes from, and nothing of what it says."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        fields = {} if error is None else {"error": type(error).__name__, "places": places(error)}
        log.warning(
            "a library logged",
            logger=record.name,
            at=f"{Path(record.pathname).name}:{record.lineno}",
            severity=record.levelname.lower(),
            **fields,
        )


def _say_uncaught(where: str, kind: type[BaseException] | None, trace: TracebackType | None) -> None:
    log.error("uncaught exception", where=where, error=kind.__name__ if kind else "", places=_places(trace))


def redact_exception(logger: Any, method: str, event: Any) -> Any:
    """Replace exc_info by "places" (file:line of the traceback): messages and values may quote speech.

    A structlog processor. Of an exception group the first exception's traceback is followed.
    """
    if event.pop("exc_info", None):
        event["places"] = places(sys.exc_info()[1])
    return event


def places(error: BaseException | None) -> list[str]:
    """The innermost places (file:line) of an exception, of a group those of its first one too."""
    found: list[str] = []
    while error is not None:
        found += _places(error.__traceback__)
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else None
    return found[-_PLACES:]


def _places(trace: TracebackType | None) -> list[str]:
    found = []
    while trace is not None:
        found.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return found[-_PLACES:]
