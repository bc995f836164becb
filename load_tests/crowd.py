"""Many subscribers of event sockets in one process, so light that they do not measure themselves.

A frame of a server is not masked (RFC 6455 section 5.1), so of most frames only the id of the event is read.
Meant for `beside.Beside`: `watch` follows sessions until it is told to stop.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
import time
from collections.abc import Mapping
from typing import Any

from load_tests.beside import begun, stopped

_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA
_ID = b'"id":"'
_POLL = 0.05  # seconds between two looks at whether to stop
CONNECT_SECONDS = 60.0
Seen = dict[str, list[float]]  # id of an event -> the monotonic second at which each subscriber had it


class Viewer(asyncio.Protocol):
    """One subscriber. `ready` is set once the server has accepted it.

    Args:
        path: of the event socket.
        seen: takes the times of events, by their ids.
        kept: takes whole events with their times; None: they are not parsed.
    """

    def __init__(self, path: str, seen: Seen, kept: list[Any] | None) -> None:
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended: int | None = None  # close code; None: it is still open
        self._path, self._seen, self._kept = path, seen, kept
        self._buffer = b""
        self._open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the socket."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def connection_lost(self, error: Exception | None) -> None:
        """It is over."""
        self.ended = self.ended or 1006
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("the event socket was refused"))

    def data_received(self, data: bytes) -> None:
        """Read whole frames."""
        now = time.monotonic()
        self._buffer += data
        if not self._open:
            head, end, self._buffer = self._buffer.partition(b"\r\n\r\n")
            if not end:
                self._buffer = head
                return
            if b" 101 " not in head.split(b"\r\n", 1)[0]:
                self._transport.abort()
                return
            self._open = True
            self.ready.set_result(None)
        start = 0
        while (frame := _frame(self._buffer, start)) is not None:
            kind, payload, start = frame
            self._take(kind, payload, now)
        self._buffer = self._buffer[start:]

    def _take(self, kind: int, payload: bytes, now: float) -> None:
        if kind == _TEXT:
            first = payload.find(_ID) + len(_ID)
            self._seen.setdefault(payload[first : payload.find(b'"', first)].decode(), []).append(now)
            if self._kept is not None:
                self._kept.append((now, json.loads(payload)))
        elif kind == _PING:
            self._transport.write(_masked(_PONG, payload))
        elif kind == _CLOSE:
            self.ended = int.from_bytes(payload[:2]) if len(payload) > 1 else 1005
            self._transport.write(_masked(_CLOSE, payload[:2]))
            self._transport.close()

    def close(self) -> None:
        """Leave, without a word."""
        self._transport.abort()


def _frame(buffer: bytes, start: int) -> tuple[int, bytes, int] | None:
    """Opcode and payload of the frame at `start`, and where the next begins; None: it is not complete."""
    if len(buffer) < start + 2:
        return None
    kind, size, at = buffer[start] & 0x0F, buffer[start + 1] & 0x7F, start + 2
    if size >= 126:
        wide = 2 if size == 126 else 8
        if len(buffer) < at + wide:
            return None
        size, at = int.from_bytes(buffer[at : at + wide]), at + wide
    if len(buffer) < at + size:
        return None
    return kind, buffer[at : at + size], at + size


def _masked(kind: int, payload: bytes) -> bytes:
    """A short frame of a client, with a mask of zeros."""
    return struct.pack("!BB4x", 0x80 | kind, 0x80 | len(payload)) + payload


async def _watch(port: int, subscribers: Mapping[str, int], cpus: list[int]) -> dict[str, Any]:
    if cpus:
        os.sched_setaffinity(0, cpus)
    loop = asyncio.get_running_loop()
    seen: Seen = {}
    kept: dict[str, list[Any]] = {session: [] for session in subscribers}
    viewers: list[Viewer] = []
    for session, count in subscribers.items():
        path = f"/v1/sessions/{session}/events?after=0"
        for number in range(count):

            def made(path: str = path, session: str = session, number: int = number) -> Viewer:
                return Viewer(path, seen, kept[session] if number == 0 else None)

            _, viewer = await loop.create_connection(made, "127.0.0.1", port)
            async with asyncio.timeout(CONNECT_SECONDS):
                await viewer.ready
            viewers.append(viewer)
    begun()
    cpu, began, latest = time.process_time(), time.monotonic(), 0.0
    while not stopped():
        due = loop.time() + _POLL
        await asyncio.sleep(_POLL)
        latest = max(latest, loop.time() - due)
    figures = {
        "began": began,
        "cpu": (time.process_time() - cpu) / (time.monotonic() - began),
        "latest": latest,
        "cut": sum(viewer.ended not in (None, 1000) for viewer in viewers),
    }
    for viewer in viewers:
        viewer.close()
    await asyncio.sleep(0)
    return {"seen": seen, "events": kept, **figures}


def watch(port: int, subscribers: Mapping[str, int], cpus: list[int]) -> dict[str, Any]:
    """Follow sessions until told to stop.

    Args:
        port: of the server on this machine.
        subscribers: how many each session has.
        cpus: cores that this process is held to; []: all.

    Returns:
        began: monotonic second from which on all were there. seen: see Seen. events: (monotonic second,
        event) of the first subscriber, by session. cpu: seconds a second of this process. latest: seconds by
        which its event loop was late at most. cut: subscribers that the server has cut off.
    """
    return asyncio.run(_watch(port, subscribers, cpus))
