"""The error tree. A class sets HTTP status, WebSocket close code, and whether to retry.

    StreamsvcError
    |-- ConfigError            invalid settings: the command ends with exit status 2
    |-- HookError              the installed aiortc lacks a private name we use: refuse to start
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
    |   `-- RateLimited              429  (4429), retryable
    |-- SourceError            a source cannot be read (422: bad media; 502: no answer, retryable)
    |-- CapacityError          503, retryable, with Retry-After
    |-- ModelMissing           503: a model file is missing or broken; the message says how to get it
    |-- WorkerError            503, retryable: a worker died, hung or refused
    |-- ClusterUnavailable     503, retryable: Redis, which the nodes share, does not answer
    |-- Redirected             307: another node of the cluster does it
    |-- Cancelled              409: the client cancelled the request
    `-- DeadlineMissed         504, retryable: the deadline passed before the work was done

The WebSocket close code is in brackets; without one it is 4400 for the client's fault, 1013 for
CapacityError, 1011 otherwise.
"""

from __future__ import annotations

from typing import Any


class StreamsvcError(Exception):
    """Base class of all errors raised on purpose.

    Args:
        message: what is wrong, by name; shown to the client.
        code: stable and machine-readable; the class has a default.
    """

    type = "server_error"
    code = "internal"
    status = 500  # HTTP
    close_code = 1011  # WebSocket
    retryable = False
    retry_after = 5.0  # seconds
    question_id: str | None = None  # of the question that the error is about

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]"

    def headers(self) -> dict[str, str]:
        """HTTP headers that belong to the status."""
        headers = {"Cache-Control": "no-store"}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        elif self.status == 429 or isinstance(self, CapacityError):
            headers["Retry-After"] = str(max(1, round(self.retry_after)))
        return headers

    def body(self) -> dict[str, Any]:
        """The JSON body of the HTTP response, and of the `error` event."""
        body: dict[str, Any] = {
            "error": {
                "type": self.type,
                "code": self.code,
                "message": self.message,
                "retryable": self.retryable,
            }
        }
        if self.question_id is not None:
            body["question_id"] = self.question_id
        return body


class ConfigError(StreamsvcError):
    """The settings are invalid."""

    type = "config_error"
    code = "bad_config"


class HookError(StreamsvcError):
    """A private name of aiortc that we use is missing."""

    type = "server_error"
    code = "aiortc_changed"


class RequestError(StreamsvcError):
    """The request cannot be served, by the client's fault."""

    type = "invalid_request_error"
    code = "bad_request"
    status = 400
    close_code = 4400


class InvalidRequest(RequestError):
    """The request is malformed."""


class Unauthorized(RequestError):
    """The token is missing or invalid."""

    type = "authentication_error"
    code = "unauthorized"
    status = 401
    close_code = 4401


class Forbidden(RequestError):
    """The token does not grant this."""

    type = "permission_error"
    code = "forbidden"
    status = 403
    close_code = 4403


class NotFound(RequestError):
    """The named resource does not exist."""

    code = "not_found"
    status = 404
    close_code = 4404


class Conflict(RequestError):
    """The request conflicts with the present state: a second publisher, for example."""

    code = "conflict"
    status = 409


class PreconditionFailed(RequestError):
    """If-Match names a stale state."""

    code = "stale_etag"
    status = 412


class TooLarge(RequestError):
    """The request body is over its limit."""

    code = "too_large"
    status = 413


class UnsupportedMediaType(RequestError):
    """The Content-Type is not supported here."""

    code = "unsupported_media_type"
    status = 415


class Unprocessable(RequestError):
    """The request is well formed but cannot be served."""

    code = "unprocessable"
    status = 422


class PreconditionRequired(RequestError):
    """If-Match is missing."""

    code = "if_match_required"
    status = 428


class RateLimited(RequestError):
    """Too many requests."""

    type = "rate_limit_error"
    code = "rate_limited"
    status = 429
    close_code = 4429
    retryable = True


class SourceError(StreamsvcError):
    """A media source cannot be read.

    `retryable`: it did not answer (502); otherwise its content is unusable (422).
    """

    type = "source_error"
    code = "bad_source"
    status = 422
    close_code = 4400

    def __init__(self, message: str, *, code: str | None = None, retryable: bool = False) -> None:
        super().__init__(message, code=code)
        self.retryable = retryable
        if retryable:
            self.status = 502


class CapacityError(StreamsvcError):
    """No capacity left. `retry_after`: seconds."""

    type = "overloaded_error"
    code = "capacity"
    status = 503
    close_code = 1013
    retryable = True

    def __init__(self, message: str, *, retry_after: float = 5.0, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class ModelMissing(StreamsvcError):
    """A model file is missing or does not match the registry."""

    code = "model_missing"
    status = 503


class WorkerError(StreamsvcError):
    """A worker died, hung, or failed a request."""

    code = "worker_failed"
    status = 503
    retryable = True


class ClusterUnavailable(StreamsvcError):
    """Redis, which the nodes of the cluster share, does not answer."""

    code = "cluster_unavailable"
    status = 503
    close_code = 1013
    retryable = True


class Redirected(StreamsvcError):
    """Another node of the cluster does it. `location`: where; it may hold a ticket, so it is not logged."""

    type = "redirect"
    code = "another_node"
    status = 307
    retryable = True

    def __init__(self, message: str, location: str) -> None:
        super().__init__(message)
        self.location = location

    def headers(self) -> dict[str, str]:
        """HTTP headers that belong to the status."""
        return super().headers() | {"Location": self.location}


class Cancelled(StreamsvcError):
    """The client cancelled the request."""

    type = "invalid_request_error"
    code = "cancelled"
    status = 409


class DeadlineMissed(StreamsvcError):
    """The deadline passed before the work was done."""

    type = "timeout_error"
    code = "deadline_missed"
    status = 504
    retryable = True
