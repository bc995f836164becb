"""The SRT listener's process, from our side (`srt_child`): started, asked by it, handed its callers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import structlog

from streamsvc.core import errors, metrics, web_address
from streamsvc.core.config import Ingest
from streamsvc.core.errors import ConfigError, SourceError, StreamsvcError
from streamsvc.ingest import libsrt
from streamsvc.ingest.door_process import Start

log = structlog.get_logger()
ACCEPT_SECONDS = 3.0  # from our consent until the caller is there: its passphrase is checked after it
_MESSAGE_BYTES = 8192
# Errors as SRT's access control tells them (srt/access_control.h), the first that fits.
_REASONS: tuple[tuple[type[StreamsvcError], int], ...] = (
    (errors.Unauthorized, 1401),
    (errors.Forbidden, 1403),
    (errors.Conflict, 1409),
    (errors.RateLimited, 1402),
    (errors.CapacityError, 1402),
    (errors.NotFound, 1404),
    (errors.RequestError, 1400),
)
INTERNAL = 1500


# The stream of an admitted caller, once it is connected. Raises SourceError: it did not connect.
Connected = Callable[[], Awaitable[socket.socket]]


class Callers(Protocol):
    """Decides on callers, and takes what they send."""

    async def admit(self, stream_id: str, host: str, connected: Connected) -> None:
        """Admit a caller; soon, for all others wait meanwhile.

        Args:
            stream_id: untrusted; holds a token.
            host: address of the caller.
            connected: gives the stream on which its bytes come; called once at most.

        Raises:
            StreamsvcError: it is refused, and told why by a code.
        """
        ...


class SrtProgram:
    """Program of DoorProcess: the listener of the settings' `srt_listen`.

    Args:
        settings: address, latency and passphrase.
        callers: decides on them.

    Attributes:
        port: that it listens on.

    Raises:
        ConfigError: libsrt is missing; the address cannot be bound.
    """

    name = "srt"

    def __init__(self, settings: Ingest, callers: Callers) -> None:
        check_library()
        self._settings = settings
        self._callers = callers
        self._udp = bound(settings.srt_listen)  # kept over restarts: nobody else takes the port
        self.port: int = self._udp.getsockname()[1]
        self._link: _Link | None = None

    def prepare(self, folder: Path) -> Start:
        """See Program."""
        self._end_link()
        self._link = _Link(self._callers)
        descriptors = (self._udp.fileno(), *(one.fileno() for one in self._link.theirs))
        return Start(
            (sys.executable, "-m", "streamsvc.ingest.srt_child", *map(str, descriptors)),
            {"PYTHONPATH": os.pathsep.join(one for one in sys.path if one)},
            descriptors,
        )

    async def ready(self, folder: Path) -> None:
        """See Program."""
        assert self._link is not None
        passphrase = self._settings.srt_passphrase
        await self._link.start(
            {
                "latency": self._settings.srt_latency_ms,
                "passphrase": passphrase.get_secret_value() if passphrase is not None else "",
                "sandbox": self._settings.sandbox,
            }
        )

    def _end_link(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def close(self) -> None:
        """Give up the port, once the process has ended."""
        self._end_link()
        self._udp.close()


class _Link:
    """The sockets to one run of the process. `theirs`: its ends, closed here once it is started."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
        (self._asks, _), (self._media, _) = pairs
        self.theirs = [theirs for _, theirs in pairs]
        self._coming: dict[int, asyncio.Future[socket.socket]] = {}
        self._loop = asyncio.get_running_loop()
        self._answering: set[asyncio.Task[None]] = set()
        self._ready = self._loop.create_future()
        for sock in (self._asks, self._media):
            sock.setblocking(False)

    async def start(self, options: dict[str, Any]) -> None:
        """Tell the process its options, and wait until it listens."""
        for sock in self.theirs:
            sock.close()
        self._asks.send(json.dumps(options).encode())
        self._loop.add_reader(self._media, self._receive_media)
        self._loop.add_reader(self._asks, self._receive_ask)
        await self._ready

    def _receive_ask(self) -> None:
        try:
            data = self._asks.recv(_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._asks)
            return
        task = self._loop.create_task(self._answer(json.loads(data)))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, asked: dict[str, Any]) -> None:
        number, refused = int(asked["ask"]), 0
        coming = self._coming[number] = self._loop.create_future()
        try:
            connected = functools.partial(self._connected, number, coming)
            await self._callers.admit(str(asked["stream_id"]), str(asked["host"]), connected)
        except StreamsvcError as error:
            refused = reason_of(error)
        except Exception as error:
            log.error("SRT caller failed", error=type(error).__name__)
            refused = INTERNAL
        if refused:
            self._coming.pop(number, None)
        with contextlib.suppress(OSError):
            self._asks.send(json.dumps({"answer": number, "refused": refused}).encode())

    async def _connected(self, number: int, coming: asyncio.Future[socket.socket]) -> socket.socket:
        try:
            async with asyncio.timeout(ACCEPT_SECONDS):
                return await asyncio.shield(coming)
        except TimeoutError:
            raise SourceError("the SRT caller did not connect", code="no_answer", retryable=True) from None
        except BaseException:
            if coming.done() and not coming.cancelled():
                coming.result().close()
            raise
        finally:
            self._coming.pop(number, None)

    def _receive_media(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._media, _MESSAGE_BYTES, 1)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        if not data:
            self._loop.remove_reader(self._media)
            return
        message = json.loads(data)
        if "ready" in message and not self._ready.done():
            self._ready.set_result(None)
        metrics.srt_lost.inc(int(message.get("lost", 0)))
        for descriptor in descriptors:
            media = socket.socket(fileno=descriptor)
            coming = self._coming.pop(int(message.get("accepted", 0)), None)
            if coming is None or coming.done():
                media.close()  # it came too late
            else:
                coming.set_result(media)

    def close(self) -> None:
        """Close everything; callers are ended by the end of the process."""
        for sock in (self._asks, self._media):
            self._loop.remove_reader(sock)
            sock.close()
        for sock in self.theirs:
            sock.close()
        for coming in self._coming.values():
            coming.cancel()
        for task in self._answering:
            task.cancel()


def reason_of(error: StreamsvcError) -> int:
    """The code of SRT's access control for an error."""
    return next((code for kind, code in _REASONS if isinstance(error, kind)), INTERNAL)


def check_library() -> None:
    """Raise ConfigError unless libsrt can be loaded."""
    try:
        libsrt.load()
    except libsrt.SrtError as error:
        raise ConfigError(f"ingest.srt_listen: {error}", code="no_door") from None


def bound(address: str) -> socket.socket:
    """A UDP socket at "host:port". Raises ConfigError."""
    host, port = web_address.host_and_port(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise ConfigError(f"ingest.srt_listen: UDP {address}: {error.strerror}", code="no_door") from None
    return sock
