"""Debian's libsrt by ctypes: a listener that takes many callers on one UDP port.

Source: docs/API/API-functions.md of Haivision/srt, version 1.5. A call of the library releases the
interpreter's lock, so its threads and ours go on beside each other.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Callable, Sequence

# OpenSSL's build (Debian, Fedora), then GnuTLS's, which GStreamer and FFmpeg bring with them on Debian.
_NAMES = ("libsrt.so.1.5", "libsrt-openssl.so.1.5", "libsrt-gnutls.so.1.5", "libsrt.so.1")
ADVICE = "install libsrt (Debian: apt install libsrt1.5-openssl)"
OLDEST = (1, 4, 2)  # refuses a caller with a reason of our own

MESSAGE_BYTES = 1456  # of the largest live message
_INVALID = -1
_OFF = ctypes.c_int(0)
_OPTION_RECEIVE_BLOCKING, _OPTION_PASSPHRASE, _OPTION_LATENCY, _OPTION_PEER_IDLE = 2, 26, 43, 55
_EPOLL_IN, _EPOLL_ERROR = 0x1, 0x8
_BACKLOG = 32
_LOG_CRITICAL = 2
_STATE_CONNECTED = 5
_WOULD_BLOCK = 6002  # SRT_EASYNCRCV
_MOST_EVENTS = 64
# Of SRT_TRACEBSTATS: packets that came too late to be given on, and those that could not be decrypted.
_STATISTICS = struct.Struct("@68xii")
_STATISTICS_BYTES = 4096  # more than the structure has in any version

_Hook = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p
)
# What may be asked when a caller connects: its socket, its address, its stream id -> 0, or why not (1000-).
Asked = Callable[[int, str, bytes], int]


class SrtError(Exception):
    """libsrt is not there, or refused a call."""


class _Event(ctypes.Structure):
    _fields_ = (("socket", ctypes.c_int), ("events", ctypes.c_int))


def load() -> ctypes.CDLL:
    """libsrt, not started. Raises SrtError: it is missing or too old."""
    for name in _NAMES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        number = library.srt_getversion()
        version = (number >> 16 & 0xFF, number >> 8 & 0xFF, number & 0xFF)
        if version < OLDEST:
            raise SrtError(f"libsrt {'.'.join(map(str, version))} is too old; {ADVICE}")
        return library
    raise SrtError(f"libsrt is missing: {ADVICE}")


class Listener:
    """A listening socket of libsrt, and the callers that it has accepted. One thread, but for `asked`.

    Made before the process confines itself, for the hook is code made at run time; `listen` comes after.

    Args:
        library: of `load`.
        asked: decides on each caller, on a thread of libsrt, which receives nothing meanwhile.
    """

    def __init__(self, library: ctypes.CDLL, asked: Asked) -> None:
        self._srt = library
        self._hook = _Hook(self._connecting)  # kept: libsrt calls it
        self._asked = asked
        self._events = (_Event * _MOST_EVENTS)()
        self._buffer = ctypes.create_string_buffer(MESSAGE_BYTES)
        self._statistics = ctypes.create_string_buffer(_STATISTICS_BYTES)
        library.srt_getlasterror_str.restype = ctypes.c_char_p
        library.srt_epoll_uwait.argtypes = (
            ctypes.c_int,
            ctypes.c_void_p,
            ctypes.c_int,
            ctypes.c_int64,
        )
        self._epoll = self._socket = _INVALID

    def listen(self, udp: socket.socket, latency: int, passphrase: bytes) -> None:
        """Start libsrt, and listen.

        Args:
            udp: bound; libsrt closes it.
            latency: milliseconds in which lost packets are sent again; the larger one of both sides holds.
            passphrase: of 10 to 79 bytes; b"": not encrypted, and encrypted callers are refused.

        Raises:
            SrtError.
        """
        library = self._srt
        library.srt_setloglevel(_LOG_CRITICAL)  # its lines may hold stream ids
        self._check(library.srt_startup())
        self._epoll = self._check(library.srt_epoll_create())
        self._socket = self._check(library.srt_create_socket())
        self._set(_OPTION_LATENCY, ctypes.c_int(latency))
        if passphrase:
            self._set(_OPTION_PASSPHRASE, ctypes.create_string_buffer(passphrase, len(passphrase)))
        self._set(_OPTION_RECEIVE_BLOCKING, _OFF)
        self._check(library.srt_bind_acquire(self._socket, udp.detach()))
        self._check(library.srt_listen_callback(self._socket, self._hook, None))
        self._check(library.srt_listen(self._socket, _BACKLOG))
        self._watch(self._socket)

    def _set(self, option: int, value: ctypes.Array[ctypes.c_char] | ctypes.c_int) -> None:
        size = ctypes.sizeof(value)
        self._check(self._srt.srt_setsockflag(self._socket, option, ctypes.byref(value), size))

    def _check(self, result: int) -> int:
        if result == _INVALID:
            raise SrtError(self._srt.srt_getlasterror_str().decode(errors="replace"))
        return result

    def _watch(self, number: int) -> None:
        wanted = ctypes.c_int(_EPOLL_IN | _EPOLL_ERROR)
        self._check(self._srt.srt_epoll_add_usock(self._epoll, number, ctypes.byref(wanted)))

    def _connecting(
        self, _: object, number: int, version: int, address: int | None, stream_id: bytes | None
    ) -> int:
        """Decide on a caller, as the hook of libsrt: 0 accepts."""
        try:
            refused = self._asked(number, peer_host(address), stream_id or b"")
        except BaseException:
            refused = 1500  # an exception cannot pass through libsrt
        if refused:
            self._srt.srt_setrejectreason(number, refused)
            return -1
        return 0

    def wait(self, milliseconds: int) -> Sequence[int]:
        """Sockets that have something, or have ended: the listener itself (`is_listener`), or callers."""
        count = self._srt.srt_epoll_uwait(self._epoll, self._events, _MOST_EVENTS, milliseconds)
        return [self._events[index].socket for index in range(max(0, count))]

    def is_listener(self, number: int) -> bool:
        """Whether a number of `wait` says that a caller is to be accepted."""
        return number == self._socket

    def accept(self) -> int | None:
        """The next caller, whose number `asked` was given; None: there is none."""
        number = self._srt.srt_accept(self._socket, None, None)
        if number == _INVALID:
            return None
        self._watch(number)
        return int(number)

    def receive(self, number: int) -> bytes | None:
        """The next message of a caller; b"": there is none yet; None: it has left."""
        size = self._srt.srt_recvmsg(number, self._buffer, MESSAGE_BYTES)
        if size > 0:
            return self._buffer.raw[:size]
        if size == 0 or self._srt.srt_getlasterror(None) != _WOULD_BLOCK:
            return None
        return b"" if self._srt.srt_getsockstate(number) == _STATE_CONNECTED else None

    def missing(self, number: int) -> int:
        """Packets of a caller that are lost for good: too late, or not to be decrypted."""
        if self._srt.srt_bstats(number, self._statistics, 0) == _INVALID:
            return 0
        late, undecrypted = _STATISTICS.unpack_from(self._statistics)
        return int(late + undecrypted)

    def disconnect(self, number: int) -> None:
        """End the connection of a caller, which is told so."""
        self._srt.srt_close(number)

    def close(self) -> None:
        """End everything; every caller is told so."""
        self._srt.srt_cleanup()


def peer_host(address: int | None) -> str:
    """The host of a `struct sockaddr` at a memory address; "": none, or of no known family."""
    if not address:
        return ""
    (family,) = struct.unpack("=H", ctypes.string_at(address, 2))
    if family == socket.AF_INET:
        return socket.inet_ntop(family, ctypes.string_at(address + 4, 4))
    if family == socket.AF_INET6:
        return socket.inet_ntop(family, ctypes.string_at(address + 8, 16)).removeprefix("::ffff:")
    return ""
