"""The process of the SRT listener, with a played listener: asks, accepts, passes on, drops, forgets."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from streamsvc.ingest import srt_child
from streamsvc.ingest.srt_child import CALLERS, OVERLOAD, PENDING_BYTES, UNAVAILABLE, Asks, Caller, Receiving

LISTENER = 1  # number of the listening socket


class Played:
    """Stands in for libsrt.Listener: what each caller sends; None: it leaves."""

    def __init__(self) -> None:
        self.callers: list[int] = []  # to be accepted
        self.messages: dict[int, list[bytes | None]] = {}
        self.disconnected: list[int] = []
        self.lost = 0  # packets of each caller
        self.on_wait: Any = lambda: None

    def wait(self, milliseconds: int) -> Sequence[int]:
        self.on_wait()
        ready = [number for number, messages in self.messages.items() if messages]
        return [*([LISTENER] if self.callers else []), *ready]

    def is_listener(self, number: int) -> bool:
        return number == LISTENER

    def accept(self) -> int | None:
        return self.callers.pop(0) if self.callers else None

    def receive(self, number: int) -> bytes | None:
        return self.messages[number].pop(0) if self.messages[number] else b""

    def missing(self, number: int) -> int:
        return self.lost

    def disconnect(self, number: int) -> None:
        self.disconnected.append(number)
        self.messages.pop(number, None)


class Side:
    """Our side of both channels, and the objects of the process."""

    def __init__(self) -> None:
        kind = socket.SOCK_SEQPACKET
        self.asks, theirs = socket.socketpair(socket.AF_UNIX, kind)
        self.media, their_media = socket.socketpair(socket.AF_UNIX, kind)
        self.theirs = [theirs, their_media]
        self.played = Played()
        self.asking = Asks(theirs)
        self.receiving = Receiving(self.played, self.asking, their_media)  # type: ignore[arg-type]

    def ask(self, number: int, stream_id: bytes, refused: int | None = 0) -> int:
        """What libsrt is told of a caller; our side answers with `refused`, or not at all."""
        told: list[int] = []
        asking = threading.Thread(
            target=lambda: told.append(self.asking.asked(number, "192.0.2.7", stream_id))
        )
        asking.start()
        if refused is not None:
            asked = json.loads(self.asks.recv(4096))
            assert asked["host"] == "192.0.2.7"
            self.asks.send(json.dumps({"answer": asked["ask"], "refused": refused}).encode())
        asking.join()
        return told[0]

    def passes(self, count: int) -> None:
        """Let it run for some passes."""
        left = [count]

        def stop() -> None:
            left[0] -= 1
            self.receiving.stopped = left[0] <= 0

        self.played.on_wait = stop
        self.receiving.stopped = False
        self.receiving.run()

    def accepted(self) -> tuple[int, socket.socket]:
        data, descriptors, _, _ = socket.recv_fds(self.media, 4096, 1)
        return json.loads(data)["accepted"], socket.socket(fileno=descriptors[0])


@pytest.fixture
def side(monkeypatch: pytest.MonkeyPatch) -> Iterator[Side]:
    monkeypatch.setattr(srt_child, "_PASS_SECONDS", 0.0)
    made = Side()
    yield made
    for number in list(made.receiving._callers):
        made.receiving._forget(number)
    for sock in (made.asks, made.media, *made.theirs):
        sock.close()


def test_a_caller_is_asked_about_accepted_and_passed_on_to_its_end(side: Side) -> None:
    assert side.ask(7, b"talk") == 0
    side.played.callers.append(7)
    side.passes(1)
    number, media = side.accepted()
    assert number == 1
    with media:
        side.played.messages[7] = [b"abc", b"def", b"", b"ghi", None]
        side.passes(2)
        assert media.recv(100) == b"abcdefghi"
        assert media.recv(100) == b""
    assert side.played.disconnected == [7]


def test_a_refusal_is_told_to_libsrt(side: Side) -> None:
    assert side.ask(7, b"talk", 1401) == 1401
    side.played.callers.append(7)
    side.passes(1)
    assert side.played.disconnected == [7], "it cannot come in all the same"


def test_an_answer_that_does_not_come_refuses_and_is_not_taken_for_the_next_one(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(srt_child, "ASK_SECONDS", 0.01)
    assert side.ask(7, b"late", None) == UNAVAILABLE
    late = json.loads(side.asks.recv(4096))
    side.asks.send(json.dumps({"answer": late["ask"], "refused": 0}).encode())
    monkeypatch.setattr(srt_child, "ASK_SECONDS", 30.0)
    assert side.ask(8, b"next", 1403) == 1403


def test_more_callers_than_there_may_be_are_refused_without_a_question(side: Side) -> None:
    side.asking.callers = CALLERS
    assert side.ask(7, b"talk", None) == OVERLOAD


def test_callers_that_fail_after_our_consent_do_not_keep_others_out_for_long(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(srt_child, "CALLERS", 2)
    monkeypatch.setattr(srt_child, "ACCEPT_SECONDS", 0.0)
    for number in range(5):  # with a wrong passphrase
        assert side.ask(number, b"talk") == 0


def test_closing_our_end_disconnects_the_caller(side: Side) -> None:
    side.ask(7, b"talk")
    side.played.callers.append(7)
    side.passes(1)
    _, media = side.accepted()
    media.close()
    side.passes(1)
    assert side.played.disconnected == [7]


def test_it_ends_with_the_channel(side: Side) -> None:
    side.media.close()
    side.receiving.run()


def test_what_nobody_takes_is_kept_to_a_bound_then_dropped_and_counted() -> None:
    ours, theirs = socket.socketpair()
    caller = Caller(ours)
    piece = bytes(PENDING_BYTES // 4)
    with ours, theirs:
        for _ in range(20):
            caller.pass_on([piece])
        assert caller.dropped > 0
        assert len(caller._pending) <= PENDING_BYTES
        kept, got = (20 - caller.dropped) * len(piece), 0
        while got < kept:
            got += len(theirs.recv(1 << 20))
            caller.pass_on()
        assert got == kept, "whole messages"


def test_what_was_lost_is_told_once(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    side.ask(7, b"talk")
    side.played.callers.append(7)
    side.passes(1)
    _, media = side.accepted()
    with media:
        monkeypatch.setattr(srt_child, "TELL_SECONDS", 0.0)
        side.receiving._tells_at = 0.0
        side.receiving._callers[7].dropped = 2
        side.played.lost = 3
        side.passes(2)
        side.played.lost = 4
        side.played.messages[7] = [None]
        side.passes(2)
    assert [json.loads(side.media.recv(100)) for _ in range(2)] == [{"lost": 5}, {"lost": 1}]
