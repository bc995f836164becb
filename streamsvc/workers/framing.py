"""Wire format between service and workers: length-prefixed frames of JSON and numpy arrays.

A frame is a prefix `!II` (bytes of header, bytes of blob), a JSON header, and a blob: the arrays that the
header describes, one after the other. `payload` holds the plain values, `arrays` name, dtype, shape and bytes
of each array.

    to the worker     {"id", "kind": "call" | "stream", "role", "op", "affinity", "deadline_in_s", "idle",
                       "payload", "arrays"}
                      {"id", "kind": "probe", "role", "deadline_in_s"}: the engine's own tiny request
                      {"id", "kind": "cancel" | "ping"}
    from the worker   {"id", "kind": "result" | "item" | "end" | "pong", "payload", "arrays"}
                      {"id", "kind": "error", "error": {"class", "message", "retry_after"}}
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from streamsvc.core.errors import (
    CapacityError,
    ConfigError,
    DeadlineMissed,
    ModelMissing,
    StreamsvcError,
    WorkerError,
)
from streamsvc.core.roles import Payload

PREFIX = struct.Struct("!II")
_MAX_FRAME = 64 * 1024 * 1024  # bytes; security limit on what a broken peer makes us allocate

_ERRORS: dict[str, type[StreamsvcError]] = {
    error.__name__: error for error in (CapacityError, ConfigError, DeadlineMissed, ModelMissing, WorkerError)
}


def pack(header: Mapping[str, Any], payload: Payload) -> bytes:
    """Encode one frame."""
    arrays = {
        key: np.ascontiguousarray(value) for key, value in payload.items() if isinstance(value, np.ndarray)
    }
    plain = {key: value for key, value in payload.items() if key not in arrays}
    described = [[key, value.dtype.str, value.shape, value.nbytes] for key, value in arrays.items()]
    head = json.dumps({**header, "payload": plain, "arrays": described}, separators=(",", ":")).encode()
    blob = b"".join(value.tobytes() for value in arrays.values())
    return PREFIX.pack(len(head), len(blob)) + head + blob


def unpack(head: bytes, blob: bytes) -> tuple[dict[str, Any], Payload]:
    """Decode header and payload of one frame. The arrays are read-only views of `blob`."""
    header = json.loads(head)
    payload: Payload = header.pop("payload", {})
    offset = 0
    for key, dtype, shape, size in header.pop("arrays", ()):
        payload[key] = np.frombuffer(
            blob, dtype=dtype, count=size // np.dtype(dtype).itemsize, offset=offset
        ).reshape(shape)
        offset += size
    return header, payload


def sizes(prefix: bytes) -> tuple[int, int]:
    """Decode a prefix: bytes of header and of blob. Raises WorkerError: over the security limit."""
    head, blob = PREFIX.unpack(prefix)
    if head + blob > _MAX_FRAME:
        raise WorkerError(f"a frame of {head + blob} bytes is over the limit of {_MAX_FRAME}")
    return head, blob


def error_from(described: Mapping[str, Any]) -> StreamsvcError:
    """The exception that an error frame describes; WorkerError for an unknown class."""
    error = _ERRORS.get(described["class"], WorkerError)(described["message"])
    if isinstance(error, CapacityError):
        error.retry_after = float(described.get("retry_after", error.retry_after))
    return error


def error_payload(error: BaseException) -> dict[str, Any]:
    """Describe an exception for an error frame, without a foreign error's text.

    That text may quote user content.
    """
    if isinstance(error, StreamsvcError):
        after = {"retry_after": error.retry_after} if isinstance(error, CapacityError) else {}
        return {"class": type(error).__name__, "message": error.message, **after}
    return {"class": "WorkerError", "message": f"the engine failed with {type(error).__name__}"}
