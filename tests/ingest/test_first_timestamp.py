"""The first timestamps of real segments, and of broken ones."""

from __future__ import annotations

import random

import pytest

from streamsvc.ingest.first_timestamp import CLOCK, first_timestamp
from tests.builders.hls_video import hls_video


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    ts = hls_video(tmp_path_factory.mktemp("ts"), 4.0, first=95_440.0).parent
    mp4 = hls_video(tmp_path_factory.mktemp("mp4"), 4.0, mp4=True).parent
    files = [ts / "0.ts", ts / "1.ts", mp4 / "init.mp4", mp4 / "0.m4s", mp4 / "1.m4s"]
    return {file.name: file.read_bytes() for file in files}


def test_a_transport_stream_tells_the_time_of_its_pictures(segments: dict[str, bytes]) -> None:
    assert first_timestamp(segments["0.ts"]) == 95_440 * CLOCK
    assert first_timestamp(segments["1.ts"]) == 95_442 * CLOCK
    sound = b"".join(
        segments["0.ts"][at : at + 188]
        for at in range(0, len(segments["0.ts"]), 188)
        if b"\0\0\1\xe0" not in segments["0.ts"][at : at + 188]
    )
    assert first_timestamp(sound) == pytest.approx(95_440 * CLOCK, abs=CLOCK / 10), "else of its sound"


def test_fragmented_mp4_tells_it_with_its_initial_file(segments: dict[str, bytes]) -> None:
    assert first_timestamp(segments["0.m4s"], segments["init.mp4"]) == 0
    assert first_timestamp(segments["1.m4s"], segments["init.mp4"]) == 2 * CLOCK
    assert first_timestamp(segments["init.mp4"] + segments["1.m4s"]) == 2 * CLOCK, "both in one file"
    assert first_timestamp(segments["1.m4s"]) is None


def test_packed_audio_tells_it_in_a_tag() -> None:
    owner = b"com.apple.streaming.transportStreamTimestamp\0"
    tag = b"ID3\4\0\0\0\0\0\x3fPRIV\0\0\0\x35\0\0" + owner
    assert first_timestamp(tag + (9_000_000).to_bytes(8) + b"\xff\xf1") == 9_000_000
    assert first_timestamp(tag + b"\0\0") is None
    assert first_timestamp(b"ID3 and nothing") is None


def test_broken_segments_tell_nothing_or_something_and_never_fail(segments: dict[str, bytes]) -> None:
    chance = random.Random(7)
    for name in ("0.ts", "0.m4s"):
        whole = segments[name][:4000]
        for _ in range(300):
            broken = bytearray(whole[: chance.randrange(len(whole))])
            for _ in range(chance.randrange(8)):
                if broken:
                    broken[chance.randrange(len(broken))] = chance.randrange(256)
            initial = bytearray(segments["init.mp4"])
            initial[chance.randrange(len(initial))] = chance.randrange(256)
            found = first_timestamp(bytes(broken), bytes(initial))
            assert found is None or found >= 0
    for odd in (b"", b"\x47", b"<html>", b"\0\0\0\0moof", b"\0\0\0\1moof", bytes(100)):
        assert first_timestamp(odd) is None
