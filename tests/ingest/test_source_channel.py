"""Messages of a process that cannot be trusted: bounded, in time, and each field checked."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from streamsvc.core.errors import SourceError
from streamsvc.ingest import source_channel
from streamsvc.ingest.source_channel import (
    Broken,
    Channel,
    Fields,
    Late,
    error_header,
    error_of,
    raised_header,
    raised_of,
)


@pytest.fixture
def pair() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    yield channel, theirs
    channel.close()
    theirs.close()


def raw(header: bytes, size: int = 0) -> bytes:
    return struct.pack("!II", len(header), size) + header


def test_a_message_arrives_as_it_was_sent(pair: tuple[Channel, socket.socket]) -> None:
    channel, theirs = pair
    big = bytes(range(256)) * 2000  # longer than what is joined
    sent: list[list[bytes]] = [[], [b"a", b"bc"], [big, b"end"]]
    for parts in sent:
        other = Channel(theirs.dup())
        sending = threading.Thread(target=other.send, args=({"op": "x"}, parts))
        sending.start()
        header, body = channel.receive(10)
        sending.join()
        other.close()
        assert header == {"op": "x"}
        assert bytes(body) == b"".join(parts)


@pytest.mark.parametrize(
    "sent",
    [
        raw(b"[]"),
        raw(b"{"),
        raw(b"\xff"),
        raw(b'{"at": NaN}'),
        raw(b'{"at": Infinity}'),
        raw(b"[" * 100_000),
        b"",
    ],
)
def test_what_is_no_message_is_refused(pair: tuple[Channel, socket.socket], sent: bytes) -> None:
    channel, theirs = pair
    theirs.sendall(sent)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(Broken):
        channel.receive(10)


@pytest.mark.parametrize(
    "sizes",
    [(source_channel.HEADER_BYTES + 1, 0), (2, source_channel.BODY_BYTES + 1), (2**32 - 1, 2**32 - 1)],
)
def test_no_room_is_made_for_a_message_that_is_too_large(
    pair: tuple[Channel, socket.socket], sizes: tuple[int, int]
) -> None:
    channel, theirs = pair
    theirs.sendall(struct.pack("!II", *sizes) + b"{}")
    with pytest.raises(Broken, match="too large"):
        channel.receive(2)


def test_a_message_that_comes_byte_by_byte_is_late(pair: tuple[Channel, socket.socket]) -> None:
    channel, theirs = pair
    ended = threading.Event()

    def trickle() -> None:
        theirs.sendall(raw(b" " * 1000)[:8])
        while not ended.wait(0.01):
            theirs.sendall(b" ")

    sending = threading.Thread(target=trickle)
    sending.start()
    began = time.monotonic()
    with pytest.raises(Late):
        channel.receive(0.2)
    ended.set()
    sending.join()
    assert time.monotonic() - began < 5


def test_another_thread_ends_the_wait(pair: tuple[Channel, socket.socket]) -> None:
    channel, _ = pair
    threading.Timer(0.05, channel.wake).start()
    with pytest.raises(Broken):
        channel.receive(30)


def test_a_socket_is_handed_over(pair: tuple[Channel, socket.socket]) -> None:
    channel, theirs = pair
    other = Channel(theirs.dup())
    with socket.create_server(("127.0.0.1", 0)) as server:
        other.send_socket(server)
        received = channel.receive_socket(10)
        assert received is not None
        with received:
            assert received.getsockname() == server.getsockname()
    other.send_socket(None)
    assert channel.receive_socket(10) is None
    other.close()


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (True, lambda fields: fields.integer("x")),
        (1.0, lambda fields: fields.integer("x")),
        (-1, lambda fields: fields.integer("x")),
        (1 << 63, lambda fields: fields.optional_integer("x")),
        ("1", lambda fields: fields.number("x")),
        (float("inf"), lambda fields: fields.number("x")),
        (10**400, lambda fields: fields.number("x")),
        (float("nan"), lambda fields: fields.optional_number("x")),
        (1, lambda fields: fields.flag("x")),
        (1, lambda fields: fields.text("x")),
        ("long", lambda fields: fields.text("x", 3)),
        ([{}] * 3, lambda fields: fields.objects("x", 2)),
        ([1], lambda fields: fields.objects("x")),
        ([1, -1], lambda fields: fields.integers("x")),
        ([1] * 5, lambda fields: fields.integers("x")),
        ([], lambda fields: fields.inner("x")),
    ],
)
def test_a_field_of_another_kind_is_refused(value: Any, read: Callable[[Fields], Any]) -> None:
    with pytest.raises(Broken):
        read(Fields({"x": value}))
    with pytest.raises(Broken):
        read(Fields({"x": [value, object()]}))


def test_an_error_is_told_in_short_and_in_one_line() -> None:
    told = error_of(
        Fields(json.loads(json.dumps(error_header(SourceError("a", code="refused", retryable=True)))))
    )
    assert told is not None
    assert (told.message, told.code, told.retryable) == ("a", "refused", True)
    assert error_of(Fields({})) is None
    told = error_of(Fields(error_header(SourceError("x\n\x1b[0m" + "y" * 1000, code="corrupt"))))
    assert told is not None
    assert told.message.isprintable()
    assert len(told.message) <= source_channel.MESSAGE_CHARACTERS


def test_a_code_that_nobody_has_is_no_label() -> None:
    told = error_of(Fields(error_header(SourceError("a", code="made_up_1"))))
    assert told is not None
    assert told.code == "corrupt"


def test_an_exception_is_told_by_its_class_and_places_and_never_by_its_text() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("what was said")
    header = json.loads(json.dumps(raised_header(caught.value)))
    assert "said" not in str(header)
    told = raised_of(Fields(header))
    assert told is not None
    assert told["error"] == "JSONDecodeError"
    assert [place.partition(":")[0] for place in told["places"]][-2:] == ["json.decoder", "json.decoder"]
    assert all(place.partition(":")[2].isdigit() for place in told["places"])
    assert raised_of(Fields({"packets": []})) is None


def test_what_a_stranger_calls_a_class_or_a_module_reaches_no_log() -> None:
    names = ["streamsvc.ingest.source_child", "json", "what_was_said", "streamsvc.what_was_said", "../etc"]
    places = [{"module": name, "line": 7} for name in names[: source_channel.PLACES]]
    told = raised_of(Fields({"raised": {"error": "WhatWasSaid", "places": places}}))
    assert told == {
        "error": "other",
        "places": ["streamsvc.ingest.source_child:7", "json:7", "other:7", "other:7"],
    }
    told = raised_of(
        Fields({"raised": {"error": "ValueError", "places": [{"module": names[-1], "line": 1}]}})
    )
    assert told == {"error": "ValueError", "places": ["other:1"]}
    malformed: tuple[Any, ...] = (
        [],
        {"error": 1, "places": []},
        {"error": "x", "places": [{"module": "json", "line": -1}]},
    )
    for wrong in malformed:
        with pytest.raises(Broken):
            raised_of(Fields({"raised": wrong}))
