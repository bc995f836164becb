"""Messages between a source's process and ours: a JSON header, and bytes that nobody here looks into.

A message is a prefix `!II` (bytes of header, bytes of body), the header, and the body. What the process sends
is not to be trusted: sizes are bounded, a message has a time limit, and readers check each field's type.

    ours to it   demuxing: {"op": "open", ...}, {"op": "packets"}, {"op": "channels", ...}; decoding: {"op":
                 "decode" | "flush" | "pixels", ...}; each is answered by one message
    it to ours   answers; {"error": {"code", "message", "retryable"}}; while it demuxes also {"ask": "open" |
                 "nested" | "read" | "seek" | "close", ...}, each answered by one message; its last one, where
                 an exception ends it: {"raised": {"error": class, "places": [{"module", "line"}]}}
"""

from __future__ import annotations

import contextlib
import json
import math
import socket
import struct
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from streamsvc.core.errors import SourceError

HEADER_BYTES = 1 << 20  # security limit
BODY_BYTES = 64 << 20  # security limit
DAMAGED = 4096  # packets told by one answer (security limit)
MESSAGE_CHARACTERS = 300  # of an error's text
# Codes of errors: they become labels of metrics. "os": an OSError.
CODES = frozenset(
    [
        "os",
        "corrupt",
        "no_answer",
        "no_audio",
        "no_decoder",
        "no_media",
        "not_found",
        "refused",
        "private_url",
    ]
)
PLACES = 4  # innermost ones of a traceback that are told
_LINES = 1 << 20  # of a module
_PACKAGE = Path(__file__).parents[1]
_PREFIX = struct.Struct("!II")
_JOINED = 64 << 10  # bytes up to which parts are copied into one, to be sent by one call


class Broken(Exception):
    """The other side has closed, or does not keep to the protocol."""


class Late(Broken):
    """A message did not come in time."""


class Channel:
    """One end of a connected stream socket. One thread at a time.

    Args:
        sock: blocking; closed here.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send(self, header: Mapping[str, Any], parts: Sequence[bytes | memoryview] = ()) -> None:
        """Send a message. Raises Broken."""
        views = [memoryview(part).cast("B") for part in parts]
        size = sum(view.nbytes for view in views)
        head = json.dumps(header, separators=(",", ":")).encode()
        first = _PREFIX.pack(len(head), size) + head
        try:
            if size <= _JOINED:
                self._sock.sendall(b"".join((first, *views)))
            else:
                self._sock.sendall(first)
                for view in views:
                    self._sock.sendall(view)
        except (OSError, ValueError):
            raise Broken("closed") from None

    def receive(self, seconds: float | None = None) -> tuple[dict[str, Any], memoryview]:
        """The next message. `seconds`: for all of it; None: no limit. Raises Broken, Late."""
        end = None if seconds is None else time.monotonic() + seconds
        try:
            head_size, size = _PREFIX.unpack(self._exactly(_PREFIX.size, end))
            if head_size > HEADER_BYTES or size > BODY_BYTES:
                raise Broken("a message is too large")
            header = json.loads(bytes(self._exactly(head_size, end)), parse_constant=_refuse)
            body = self._exactly(size, end)
        except TimeoutError:
            raise Late("no answer in time") from None
        except (OSError, ValueError, RecursionError):
            raise Broken("closed") from None
        if not isinstance(header, dict):
            raise Broken("no header")
        return header, body

    def _exactly(self, size: int, end: float | None) -> memoryview:
        buffer = memoryview(bytearray(size))
        filled = 0
        while filled < size:
            if end is not None:
                self._sock.settimeout(max(0.001, end - time.monotonic()))
            count = self._sock.recv_into(buffer[filled:])
            if not count:
                raise Broken("closed")
            filled += count
        return buffer.toreadonly()

    def send_socket(self, sock: socket.socket | None) -> None:
        """Send a socket, or that there is none. Raises Broken."""
        try:
            socket.send_fds(self._sock, [b"1" if sock else b"0"], [sock.fileno()] if sock else [])
        except OSError:
            raise Broken("closed") from None

    def receive_socket(self, seconds: float) -> socket.socket | None:
        """What `send_socket` sent. Raises Broken, Late."""
        self._sock.settimeout(seconds)
        try:
            flag, numbers, _, _ = socket.recv_fds(self._sock, 1, 1)
        except TimeoutError:
            raise Late("no answer in time") from None
        except OSError:
            raise Broken("closed") from None
        if not flag:
            raise Broken("closed")
        return socket.socket(fileno=numbers[0]) if numbers else None

    def wake(self) -> None:
        """End whatever waits here, from another thread."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()


def _refuse(constant: str) -> float:
    raise ValueError(constant)


class Fields:
    """Checked reading of a header that was received. Raises Broken where a field is not as it must be."""

    def __init__(self, header: Any) -> None:
        if not isinstance(header, dict):
            raise Broken("no object")
        self._header: dict[str, Any] = header

    def integer(self, name: str, least: int = 0, most: int = 1 << 62) -> int:
        """A whole number within limits."""
        value = self._header.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise Broken(f"bad {name}")
        return value

    def optional_integer(self, name: str) -> int | None:
        """A whole number that fits in 64 bits, or null."""
        return None if self._header.get(name) is None else self.integer(name, -(1 << 63), (1 << 63) - 1)

    def number(self, name: str) -> float:
        """A finite number."""
        value = self._header.get(name)
        with contextlib.suppress(OverflowError):  # of a whole number
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                return float(value)
        raise Broken(f"bad {name}")

    def optional_number(self, name: str) -> float | None:
        """A finite number, or null."""
        return None if self._header.get(name) is None else self.number(name)

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self._header.get(name)
        if not isinstance(value, bool):
            raise Broken(f"bad {name}")
        return value

    def text(self, name: str, most: int = 4096) -> str:
        """A string."""
        value = self._header.get(name)
        if not isinstance(value, str) or len(value) > most:
            raise Broken(f"bad {name}")
        return value

    def objects(self, name: str, most: int = 4096) -> list[Fields]:
        """A list of objects."""
        value = self._header.get(name)
        if not isinstance(value, list) or len(value) > most:
            raise Broken(f"bad {name}")
        return [Fields(item) for item in value]

    def integers(self, name: str) -> list[int]:
        """A short list of numbers that are not negative."""
        value = self._header.get(name)
        if not isinstance(value, list) or len(value) > 4:
            raise Broken(f"bad {name}")
        return [Fields({name: one}).integer(name) for one in value]

    def inner(self, name: str) -> Fields:
        """An object."""
        return Fields(self._header.get(name))

    def has(self, name: str) -> bool:
        """Whether a field is there."""
        return self._header.get(name) is not None


def error_header(error: SourceError) -> dict[str, Any]:
    """An error as a message."""
    return {"error": {"code": error.code, "message": error.message, "retryable": error.retryable}}


def error_of(fields: Fields) -> SourceError | None:
    """The error that a message holds; None: it holds none."""
    if not fields.has("error"):
        return None
    error = fields.inner("error")
    code = error.text("code", 40)
    text = "".join(letter if letter.isprintable() else " " for letter in error.text("message"))
    return SourceError(
        text[:MESSAGE_CHARACTERS],
        code=code if code in CODES else "corrupt",
        retryable=error.flag("retryable"),
    )


def raised_header(error: BaseException) -> dict[str, Any]:
    """An exception as a message: its class and where it was raised, never its text."""
    places = []
    for frame, line in traceback.walk_tb(error.__traceback__):
        spec = frame.f_globals.get("__spec__")  # "__name__" of a program's first module is "__main__"
        name = spec.name if spec is not None else str(frame.f_globals.get("__name__"))
        places.append({"module": name, "line": line})
    return {"raised": {"error": type(error).__name__, "places": places[-PLACES:]}}


def raised_of(fields: Fields) -> dict[str, Any] | None:
    """What a message tells of an exception, for a log; None: nothing.

    Classes and modules that are not known here become "other": no words of a stranger's come into the log.

    Raises:
        Broken: it is malformed.
    """
    if not fields.has("raised"):
        return None
    told = fields.inner("raised")
    name = told.text("error")
    places = [
        f"{_module(one.text('module'))}:{one.integer('line', 0, _LINES)}"
        for one in told.objects("places", PLACES)
    ]
    return {"error": name if name in _classes(BaseException) else "other", "places": places}


def _classes(kind: type[BaseException]) -> set[str]:
    """The names of a class of exceptions, and of all below it that are known here."""
    return {kind.__name__}.union(*map(_classes, kind.__subclasses__()))


def _module(name: str) -> str:
    root, *parts = name.split(".")
    ours = root == __package__.partition(".")[0] and parts and all(map(str.isidentifier, parts))
    if name in sys.modules or (ours and _PACKAGE.joinpath(*parts).with_suffix(".py").is_file()):
        return name
    return "other"
