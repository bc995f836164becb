"""The process of the SRT listener: libsrt parses what strangers send, away from the service.

    python -m streamsvc.ingest.srt_child UDP ASKS MEDIA

The numbers are descriptors: a bound UDP socket, and two sockets of packets (SOCK_SEQPACKET) to our side.
Messages are JSON.

    ASKS   ours to it first {"latency", "passphrase", "sandbox"}; it to ours {"ask", "host", "stream_id"},
           answered {"answer": the same number, "refused": 0 or the code to refuse with}
    MEDIA  it to ours {"ready": true}, once; {"accepted": number of its `ask`} with a stream socket on which
           its bytes come, and which ends with it: closing our end disconnects the caller; {"lost": packets}

It ends with its channels. A caller whose bytes nobody takes loses the newest ones; `lost` counts them too.
"""

from __future__ import annotations

import contextlib
import json
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from streamsvc.ingest import libsrt, sandbox

ASK_SECONDS = 1.5  # for our side's answer: libsrt receives nothing meanwhile
ACCEPT_SECONDS = 3.0  # from our side's consent to `accept`: a wrong passphrase shows between them
CALLERS = 48  # at once (security limit): each has a descriptor, of sandbox.FILES
OVERLOAD, UNAVAILABLE = 1402, 1503  # SRT_REJX_OVERLOAD, SRT_REJX_DOWN
PENDING_BYTES = 1 << 20  # of a caller that nobody takes: several seconds
_STREAM_ID_BYTES = 512
# Of libsrt and of this module on sockets that are open, or that lead nowhere. No socket, connect or open.
_CALLS = """
epoll_create1 epoll_create epoll_ctl epoll_wait epoll_pwait getsockname getpeername getsockopt setsockopt
socketpair fcntl sendmmsg recvmmsg
"""
_PASS_SECONDS = 0.01  # between two passes: fewer, larger pieces for less work
_IDLE_MILLISECONDS = 200  # the same without callers: until a signal is noticed
TELL_SECONDS = 1.0  # between two counts of what was lost
_MESSAGES = 256  # of one caller in one pass


class Asks:
    """Asks our side about callers; called on a thread of libsrt. `sock`: ASKS."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._answers = select.poll()  # a time limit of the socket itself takes a system call that is barred
        self._answers.register(sock, select.POLLIN)
        self._lock = threading.Lock()
        self._last = 0
        self._waiting: dict[int, tuple[int, float]] = {}  # libsrt's number -> ours, and until when
        self.callers = 0  # accepted, as the other thread counts them

    def asked(self, number: int, host: str, stream_id: bytes) -> int:
        """See libsrt.Asked."""
        with self._lock:
            now = time.monotonic()
            self._waiting = {one: told for one, told in self._waiting.items() if told[1] > now}
            if self.callers + len(self._waiting) >= CALLERS:
                return OVERLOAD
            self._last += 1
            text = stream_id[:_STREAM_ID_BYTES].decode(errors="replace")
            send_message(self._sock, {"ask": self._last, "host": host, "stream_id": text})
            end = now + ASK_SECONDS
            while (left := end - time.monotonic()) > 0:
                if not self._answers.poll(left * 1000):
                    break
                answer = json.loads(self._sock.recv(_STREAM_ID_BYTES))
                if answer["answer"] == self._last:  # else of one that came too late
                    return self._answered(number, int(answer["refused"]))
            return UNAVAILABLE

    def _answered(self, number: int, refused: int) -> int:
        if not refused:
            self._waiting[number] = self._last, time.monotonic() + ACCEPT_SECONDS
        return refused

    def taken(self, number: int) -> int | None:
        """Our number of a caller that has been accepted; None: it waited too long."""
        with self._lock:
            known = self._waiting.pop(number, None)
            return None if known is None else known[0]


class Caller:
    """One caller's bytes on their way to our side. `sock`: a stream."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.dropped = 0  # messages
        self.missing = 0  # packets that libsrt has lost, as told
        self._pending = bytearray()

    def pass_on(self, messages: Sequence[bytes] = ()) -> None:
        """Send, and keep what does not fit; beyond PENDING_BYTES the newest is dropped. Raises OSError."""
        for message in messages:
            if len(self._pending) + len(message) > PENDING_BYTES:
                self.dropped += 1
            else:
                self._pending += message
        if self._pending:
            with contextlib.suppress(BlockingIOError):
                del self._pending[: self.sock.send(self._pending, socket.MSG_DONTWAIT)]


class Receiving:
    """Accepts callers and passes on what they send.

    Args:
        listener: of libsrt.
        asks: knows our numbers of callers.
        media: MEDIA.
    """

    def __init__(self, listener: libsrt.Listener, asks: Asks, media: socket.socket) -> None:
        self._listener = listener
        self._asks = asks
        self._media = media
        self._callers: dict[int, Caller] = {}
        self._closed = select.poll()  # for our side's end of their sockets
        self._closed.register(media, 0)
        self._numbers: dict[int, int] = {}  # descriptor -> caller
        self._tells_at = 0.0
        self._lost = 0  # packets that are not told yet
        self.stopped = False

    def run(self) -> None:
        """Until our side has closed, or `stopped`."""
        while not self.stopped:
            ready = self._listener.wait(_IDLE_MILLISECONDS)
            for number in ready:
                if self._listener.is_listener(number):
                    self._accept()
                elif number in self._callers:
                    self._receive(number, self._callers[number])
            for number, caller in list(self._callers.items()):
                if number not in ready:
                    self._send(number, caller)
            if not self._forget_closed():
                return
            self._asks.callers = len(self._callers)
            if (now := time.monotonic()) >= self._tells_at:
                self._tells_at = now + TELL_SECONDS
                self._tell_losses()
            time.sleep(_PASS_SECONDS)

    def _accept(self) -> None:
        while (number := self._listener.accept()) is not None:
            known = self._asks.taken(number)
            if known is None:
                self._listener.disconnect(number)
                continue
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            with theirs:
                send_message(self._media, {"accepted": known}, theirs)
            self._callers[number] = Caller(ours)
            self._numbers[ours.fileno()] = number
            self._closed.register(ours, 0)

    def _receive(self, number: int, caller: Caller) -> None:
        messages: list[bytes] = []
        for _ in range(_MESSAGES):
            message = self._listener.receive(number)
            if message is None:
                self._send(number, caller, messages)
                self._forget(number)
                return
            if not message:
                break
            messages.append(message)
        self._send(number, caller, messages)

    def _send(self, number: int, caller: Caller, messages: Sequence[bytes] = ()) -> None:
        try:
            caller.pass_on(messages)
        except OSError:
            self._forget(number)

    def _forget_closed(self) -> bool:
        """Disconnect callers whose socket our side has closed; False: it has closed MEDIA."""
        for descriptor, _ in self._closed.poll(0):
            if descriptor == self._media.fileno():
                return False
            self._forget(self._numbers[descriptor])
        return True

    def _count_losses(self, number: int, caller: Caller) -> None:
        missing = self._listener.missing(number)
        self._lost += caller.dropped + missing - caller.missing
        caller.dropped, caller.missing = 0, missing

    def _tell_losses(self) -> None:
        for number, caller in self._callers.items():
            self._count_losses(number, caller)
        if self._lost:
            send_message(self._media, {"lost": self._lost})
            self._lost = 0

    def _forget(self, number: int) -> None:
        caller = self._callers.pop(number, None)
        if caller is not None:
            self._count_losses(number, caller)
            self._listener.disconnect(number)
            self._closed.unregister(caller.sock)
            del self._numbers[caller.sock.fileno()]
            caller.sock.close()


def send_message(sock: socket.socket, message: dict[str, Any], passed: socket.socket | None = None) -> None:
    """Send one JSON message on a socket of packets, with a descriptor or without."""
    data = json.dumps(message).encode()
    if passed is None:
        sock.send(data)
    else:
        socket.send_fds(sock, [data], [passed.fileno()])


def main(udp: socket.socket, ask: socket.socket, media: socket.socket) -> None:
    """Listen until our side has closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for our side
    options = json.loads(ask.recv(4096))
    asks = Asks(ask)
    listener = libsrt.Listener(libsrt.load(), asks.asked)
    if options["sandbox"] != "off":
        layers = sandbox.confine(calls=_CALLS).layers
        if options["sandbox"] == "require" and not sandbox.enough(layers):
            sys.exit(f"it would be {sandbox.described(layers)} (ingest.sandbox)")
    listener.listen(udp, int(options["latency"]), options["passphrase"].encode())
    receiving = Receiving(listener, asks, media)

    def stop(number: int, frame: object) -> None:
        receiving.stopped = True

    signal.signal(signal.SIGTERM, stop)
    send_message(media, {"ready": True})
    receiving.run()
    listener.close()


if __name__ == "__main__":
    main(*(socket.socket(fileno=int(number)) for number in sys.argv[1:4]))
