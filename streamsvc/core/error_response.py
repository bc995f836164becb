"""The HTTP response of an error: one JSON body at every door."""

from __future__ import annotations

from starlette.responses import JSONResponse

from streamsvc.core.errors import StreamsvcError


def error_response(error: StreamsvcError) -> JSONResponse:
    """Status, headers and body of an error."""
    return JSONResponse(error.body(), error.status, error.headers())


def fault_response() -> JSONResponse:
    """The response where an exception is a fault of ours."""
    return error_response(StreamsvcError("Internal error. The server log records the exception class."))
