"""The errors of streamsvc. Each says by its class whether a retry can help, and how it looks at the doors.

    StreamsvcError
    |-- ConfigError            the settings are wrong: the command ends with exit status 2
    |-- HookError              the pinned aiortc has changed under us: refuse to start
    |-- RequestError           the client's fault
    |   |-- InvalidRequest           400
    |   |-- Unauthorized             401  (4401)
    |   |-- Forbidden                403  (4403)
    |   |-- NotFound                 404  (4404)
    |   |-- Conflict                 409
    |   |-- PreconditionFailed       412
    |   |-- TooLarge                 413
    |   |-- UnsupportedMediaType     415
    |   |-- Unprocessable            422
    |   |-- PreconditionRequired     428
    |   `-- RateLimited              429  retryable
    |-- SourceError            a source cannot be read (422: bad media; 502: it does not answer, retryable)
    |-- CapacityError          503, retryable, with Retry-After
    |-- ModelMissing           503: a model file is not there or is broken; says how to get it
    |-- WorkerError            503, retryable: a worker died, hung or refused
    |-- Cancelled              409: whoever asked no longer wants it
    `-- DeadlineMissed         504, retryable: the work could not be done in time, and was not

A WebSocket is closed with the code in brackets, 4400 where none is given for a client's fault, and 1011 otherwise.
"""

from __future__ import annotations

from typing import Any


class StreamsvcError(Exception):
    """Base of all errors of ours.

    Args:
        message: what was wrong, naming it; shown to the client.
        code: a stable, machine-readable word; the class has a default.
    """

    type = "server_error"
    code = "internal"
    status = 500  # HTTP
    close_code = 1011  # WebSocket
    retryable = False

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]"

    def headers(self) -> dict[str, str]:
        """The headers that belong to the status, at every door that speaks HTTP."""
        headers = {"Cache-Control": "no-store"}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        elif self.status == 429 or isinstance(self, CapacityError):
            headers["Retry-After"] = str(max(1, round(getattr(self, "retry_after", 5.0))))
        return headers

    def body(self) -> dict[str, Any]:
        """The JSON body at every door."""
        return {
            "error": {
                "type": self.type,
                "code": self.code,
                "message": self.message,
                "retryable": self.retryable,
            }
        }


class ConfigError(StreamsvcError):
    """The settings are wrong."""

    type, code = "config_error", "bad_config"


class HookError(StreamsvcError):
    """A private name of aiortc that we build on is not there."""

    type, code = "server_error", "aiortc_changed"


class RequestError(StreamsvcError):
    """The client asked for something that cannot be."""

    type, code, status, close_code = "invalid_request_error", "bad_request", 400, 4400


class InvalidRequest(RequestError):
    """The request cannot be read."""


class Unauthorized(RequestError):
    """No token, or one that is not valid."""

    type, code, status, close_code = "authentication_error", "unauthorized", 401, 4401


class Forbidden(RequestError):
    """The token does not allow this."""

    type, code, status, close_code = "permission_error", "forbidden", 403, 4403


class NotFound(RequestError):
    """There is no such thing."""

    code, status, close_code = "not_found", 404, 4404


class Conflict(RequestError):
    """Somebody else already does this."""

    code, status = "conflict", 409


class PreconditionFailed(RequestError):
    """If-Match names an old state."""

    code, status = "stale_etag", 412


class TooLarge(RequestError):
    """The body is over its limit."""

    code, status = "too_large", 413


class UnsupportedMediaType(RequestError):
    """The Content-Type is not one that this door takes."""

    code, status = "unsupported_media_type", 415


class Unprocessable(RequestError):
    """The request is well formed, and cannot be served."""

    code, status = "unprocessable", 422


class PreconditionRequired(RequestError):
    """If-Match is missing."""

    code, status = "if_match_required", 428


class RateLimited(RequestError):
    """Too many requests."""

    type, code, status, retryable = "rate_limit_error", "rate_limited", 429, True


class SourceError(StreamsvcError):
    """A source of media cannot be read. `retryable`: it did not answer (502); else what it holds is of no use (422)."""

    type, code, status, close_code = "source_error", "bad_source", 422, 4400

    def __init__(self, message: str, *, code: str | None = None, retryable: bool = False) -> None:
        super().__init__(message, code=code)
        self.retryable = retryable
        if retryable:
            self.status = 502


class CapacityError(StreamsvcError):
    """The machine is full. `retry_after`: seconds."""

    type, code, status, close_code, retryable = "overloaded_error", "capacity", 503, 1013, True

    def __init__(self, message: str, *, retry_after: float = 5.0, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class ModelMissing(StreamsvcError):
    """A model file is not there, or is not what the registry says."""

    code, status = "model_missing", 503


class WorkerError(StreamsvcError):
    """A worker died, hung, or failed at its work."""

    code, status, retryable = "worker_failed", 503, True


class Cancelled(StreamsvcError):
    """Whoever asked no longer wants it."""

    type, code, status = "invalid_request_error", "cancelled", 409


class DeadlineMissed(StreamsvcError):
    """The deadline passed before the work could be done."""

    type, code, status, retryable = "timeout_error", "deadline_missed", 504, True
