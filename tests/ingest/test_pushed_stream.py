"""A pushed stream is read to its end, ends after a silence, and outlives its containers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from streamsvc.ingest.pushed_stream import PushedStream

Pair = tuple[PushedStream, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    stream = PushedStream(ours, "a stream", 30.0)
    with theirs, stream:
        yield stream, theirs


def test_what_has_come_is_read_and_the_end_is_the_senders(pair: Pair) -> None:
    stream, sender = pair
    sender.send(b"abc")
    assert stream.read(2) == b"ab"
    assert stream.read(9) == b"c"
    assert not stream.ended
    sender.shutdown(socket.SHUT_WR)
    assert stream.read(9) == b""
    assert stream.ended


def test_closing_a_container_does_not_disconnect(pair: Pair) -> None:
    stream, sender = pair
    stream.close()
    sender.send(b"abc")
    assert stream.read(9) == b"abc"


def test_a_read_that_waits_ends_with_stop(pair: Pair) -> None:
    stream, _ = pair
    got: list[bytes] = []
    reading = threading.Thread(target=lambda: got.append(stream.read(9)))
    reading.start()
    stream.stop()
    reading.join()
    assert got == [b""]
    assert stream.ended


def test_a_sender_that_is_silent_for_too_long_has_left() -> None:
    ours, theirs = socket.socketpair()
    stream = PushedStream(ours, "a stream", 0.01)
    with theirs:
        with stream:
            assert stream.read(9) == b""
            assert stream.ended
        assert theirs.recv(9) == b"", "it is disconnected"
