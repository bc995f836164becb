from __future__ import annotations

from typing import Any

import pytest
from aiortc.rtp import RtpPacket

from streamsvc.ingest.depacketizer import HOLE_SECONDS, WITHHOLD_SECONDS, Assembler, Picture, is_keyframe

KEY = b"\x10\0\0\x9d\x01\x2a"  # VP8
INTER = b"\x11\0\0\0\0\0"


def packet(number: int, picture: int, data: bytes, marker: int = 1) -> Any:
    rtp = RtpPacket(sequence_number=number & 0xFFFF, timestamp=picture * 3000, marker=marker)
    rtp._data = data  # type: ignore[attr-defined]
    return rtp


def feed(assembler: Assembler, *packets: Any, start: float = 0.0) -> list[Picture]:
    return [
        picture for place, p in enumerate(packets) for picture in assembler.push(p, start + place * 0.01)[0]
    ]


def test_a_picture_is_released_by_its_marker() -> None:
    (picture,) = feed(Assembler("vp8"), packet(1, 0, KEY, 0), packet(2, 0, b"more"))
    assert picture == Picture(0, KEY + b"more", keyframe=True, after_loss=False)


def test_a_picture_without_marker_is_released_by_the_next_one() -> None:
    pictures = feed(Assembler("vp8"), packet(1, 0, KEY, 0), packet(2, 1, INTER, 0), packet(3, 2, INTER, 0))
    assert [picture.timestamp for picture in pictures] == [0, 3000]


def test_after_a_repaired_hole_all_pictures_are_released_at_once() -> None:
    assembler = Assembler("vp8")
    assert len(feed(assembler, packet(1, 0, KEY), packet(3, 2, INTER), packet(4, 3, INTER))) == 1
    assert [p.timestamp for p in feed(assembler, packet(2, 1, INTER))] == [3000, 6000, 9000]


def test_a_hole_within_the_newest_picture_is_repaired_at_once() -> None:
    assembler = Assembler("vp8")
    feed(assembler, packet(1, 0, KEY), packet(2, 1, INTER, 0), packet(4, 1, b"c"))
    (picture,) = feed(assembler, packet(3, 1, b"b", 0))
    assert picture.payload == INTER + b"bc"


def test_an_unrepaired_hole_is_given_up_and_a_keyframe_requested_and_awaited() -> None:
    assembler = Assembler("vp8")
    feed(assembler, packet(1, 0, KEY), packet(3, 2, INTER))
    pictures, send_pli = assembler.push(packet(4, 3, INTER), HOLE_SECONDS + 1.0)
    assert (pictures, send_pli, assembler.holes) == ([], True, 1)
    assert feed(assembler, packet(5, 4, INTER), start=1.4) == []
    assert assembler.withheld == 1
    (picture,) = feed(assembler, packet(6, 5, KEY), start=1.5)
    assert (picture.keyframe, picture.after_loss) == (True, True)


def test_without_a_keyframe_pictures_are_released_after_a_while() -> None:
    assembler = Assembler("vp8")
    feed(assembler, packet(1, 0, KEY))
    assembler.skip(1.0)
    assert feed(assembler, packet(2, 1, INTER), start=2.0) == []
    assert len(feed(assembler, packet(3, 2, INTER), start=1.0 + WITHHOLD_SECONDS)) == 1


def test_padding_yields_no_picture() -> None:
    assert len(feed(Assembler("vp8"), packet(1, 0, KEY), packet(2, 0, b""), packet(3, 1, INTER))) == 2


def test_sequence_numbers_wrap() -> None:
    pictures = feed(Assembler("vp8"), *[packet(65_530 + n, n, INTER if n else KEY) for n in range(20)])
    assert len(pictures) == 20


@pytest.mark.parametrize(
    ("codec", "data", "key"),
    [
        ("vp8", KEY, True),
        ("vp8", INTER, False),
        ("vp8", b"\x10\0", False),
        ("h264", b"\0\0\0\1\x67ab\0\0\0\1\x68c\0\0\0\1\x65abc", True),
        ("h264", b"\0\0\0\1\x41abc", False),
        ("h264", b"\0\0\1", False),
    ],
)
def test_keyframes_are_recognised_by_their_headers(codec: str, data: bytes, key: bool) -> None:
    assert is_keyframe(codec, data) is key


SPS, IDR = b"\0\0\0\1\x67\x64", b"\0\0\0\1\x65\x88"


@pytest.mark.parametrize(("sent", "released"), [(IDR, SPS + IDR), (SPS + IDR, SPS + IDR)])
def test_parameter_sets_of_the_offer_go_before_a_keyframe_without_any(sent: bytes, released: bytes) -> None:
    (picture,) = feed(Assembler("h264", SPS), packet(1, 0, sent))
    assert picture.payload == released


def test_a_sender_that_begins_anew_is_not_waited_for_like_a_loss() -> None:
    assembler = Assembler("vp8")
    feed(assembler, packet(1, 0, KEY), packet(2, 1, INTER))
    (picture,) = feed(assembler, packet(400, 900_000, KEY))
    assert (picture.keyframe, picture.after_loss, assembler.holes) == (True, True, 0)
    assert feed(assembler, packet(420, 900_001, INTER)) == [], "a hole without a step in time is a loss"


def test_a_pause_without_a_hole_is_no_new_beginning() -> None:
    assembler = Assembler("vp8")
    feed(assembler, packet(1, 0, KEY))
    (picture,) = feed(assembler, packet(2, 1000, INTER))
    assert not picture.after_loss
