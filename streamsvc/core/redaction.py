"""Exceptions and records of libraries without their texts, which may quote speech, tokens and URLs.

Libraries log through Python's `logging`, and quote what they were given: of their records the logger, the
place and the class of the exception are said, never the message or the traceback. Of an exception that nobody
caught the same.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

PLACES = 8  # innermost places of a traceback that are said
Fields = dict[str, object]
Say = Callable[[str, Fields], object]  # an event and its fields


def redact_libraries(say: Say) -> None:
    """Have warnings of libraries, and exceptions that nobody caught, said by `say` without their texts."""
    logging.getLogger().handlers[:] = [_Redacted(say)]

    def uncaught(where: str, kind: type[BaseException] | None, trace: TracebackType | None) -> None:
        name = "" if kind is None else kind.__name__
        say("uncaught exception", {"where": where, "error": name, "places": _places(trace)[-PLACES:]})

    sys.excepthook = lambda kind, error, trace: uncaught("main", kind, trace)
    sys.unraisablehook = lambda args: uncaught("finalizer", args.exc_type, args.exc_traceback)
    threading.excepthook = lambda args: uncaught("thread", args.exc_type, args.exc_traceback)


class _Redacted(logging.Handler):
    """Says where a record comes from, and nothing of its text."""

    def __init__(self, say: Say) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        fields: Fields = {
            "logger": record.name,
            "at": f"{Path(record.pathname).name}:{record.lineno}",
            "severity": record.levelname.lower(),
        }
        if error is not None:
            fields |= {"error": type(error).__name__, "places": places(error)}
        self._say("a library logged", fields)


def places(error: BaseException | None) -> list[str]:
    """The innermost places (file:line) of an exception, of a group those of its first one too."""
    found: list[str] = []
    while error is not None:
        found += _places(error.__traceback__)
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else None
    return found[-PLACES:]


def _places(trace: TracebackType | None) -> list[str]:
    found = []
    while trace is not None:
        found.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return found
