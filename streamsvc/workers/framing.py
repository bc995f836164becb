"""The wire format between the service and its workers: length-prefixed frames of a JSON header and numpy arrays."""

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

FRAME = struct.Struct("!II")
_MAX_FRAME = 64 * 1024 * 1024  # bytes; security limit: a broken peer must not make us allocate more


def pack(header: Mapping[str, Any], payload: Payload) -> bytes:
    """One frame: the payload's arrays travel as raw bytes behind the JSON header."""
    arrays = {
        key: np.ascontiguousarray(value) for key, value in payload.items() if isinstance(value, np.ndarray)
    }
    plain = {key: value for key, value in payload.items() if key not in arrays}
    described = [[key, value.dtype.str, value.shape, value.nbytes] for key, value in arrays.items()]
    head = json.dumps({**header, "payload": plain, "arrays": described}, separators=(",", ":")).encode()
    blob = b"".join(value.tobytes() for value in arrays.values())
    return FRAME.pack(len(head), len(blob)) + head + blob


def unpack(head: bytes, blob: bytes) -> tuple[dict[str, Any], Payload]:
    """Header and payload of one frame. The arrays are read-only views of `blob`."""
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
    """Bytes of header and blob of a frame, from its prefix. Raises WorkerError: over the security limit."""
    head, blob = FRAME.unpack(prefix)
    if head + blob > _MAX_FRAME:
        raise WorkerError(f"a frame of {head + blob} bytes is over the limit of {_MAX_FRAME}")
    return head, blob


_ERRORS: dict[str, type[StreamsvcError]] = {
    c.__name__: c for c in (CapacityError, ConfigError, DeadlineMissed, ModelMissing, WorkerError)
}


def error_from(told: Mapping[str, Any]) -> StreamsvcError:
    """The exception that an error frame describes."""
    error = _ERRORS.get(told["class"], WorkerError)(told["message"])
    if isinstance(error, CapacityError):
        error.retry_after = float(told.get("retry_after", error.retry_after))
    return error


def error_payload(error: BaseException) -> dict[str, Any]:
    """An error as the wire carries it. A foreign error's text is left out: it may quote what was said or shown."""
    if isinstance(error, StreamsvcError):
        after = {"retry_after": error.retry_after} if isinstance(error, CapacityError) else {}
        return {"class": type(error).__name__, "message": error.message, **after}
    return {"class": "WorkerError", "message": f"the engine failed with {type(error).__name__}"}
