"""Each channel of a file by itself, in blocks; what is no file of sound is said."""

from __future__ import annotations

import io
import random
import wave
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from streamsvc.core.errors import SourceError
from streamsvc.ingest import channels
from streamsvc.ingest.channels import CHANNELS, Block, channel_blocks
from tests.builders.clips import clip

RATE = 8000


def sound(*hertz: float, seconds: float = 1.0) -> bytes:
    """A WAV file with a tone in each channel."""
    times = np.arange(int(seconds * RATE)) / RATE
    tones = np.stack([9000 * np.sin(2 * np.pi * one * times) for one in hertz], axis=1).astype("<i2")
    body = io.BytesIO()
    with wave.open(body, "wb") as file:
        file.setnchannels(len(hertz))
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(tones.tobytes())
    return body.getvalue()


def blocks(body: bytes) -> list[Block]:
    return list(channel_blocks(io.BytesIO(body), "a.wav"))


def loudest(samples: NDArray[np.int16]) -> float:
    """Hertz of the loudest tone of a second at 16 kHz."""
    return float(np.abs(np.fft.rfft(samples[:16_000])).argmax())


def test_each_channel_is_resampled_by_itself_and_comes_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "_BLOCK_BYTES", 20_000)
    found = blocks(sound(200.0, 700.0))
    assert len(found) > 2 and {one.channels for one in found} == {2}
    samples = np.frombuffer(b"".join(one.samples for one in found), np.int16).reshape(-1, 2)
    assert len(samples) == pytest.approx(16_000, abs=64)
    assert [loudest(samples[:, one]) for one in range(2)] == [
        pytest.approx(200, abs=3),
        pytest.approx(700, abs=3),
    ]


def test_of_a_file_with_too_many_channels_their_number_is_told_alone() -> None:
    assert blocks(sound(*[200.0] * (CHANNELS + 1), seconds=0.1)) == [Block(CHANNELS + 1, b"")]


def test_a_file_without_sound_and_one_that_is_none_are_told_apart(tmp_path: Path) -> None:
    picture = clip(tmp_path / "a.mp4", video="libx264", audio=None).read_bytes()
    for body, code in (
        (picture, "no_audio"),
        (b"no media at all", "corrupt"),
        (sound(200.0)[:44], "no_audio"),
    ):
        with pytest.raises(SourceError) as caught:
            blocks(body)
        assert caught.value.code == code


@pytest.mark.parametrize("name", ["a.ogg", "a.m4a"])
def test_a_mutated_file_is_read_or_refused(tmp_path: Path, name: str) -> None:
    codec = "libopus" if name == "a.ogg" else "aac"
    whole = clip(tmp_path / name, video=None, audio=codec, seconds=1.0).read_bytes()
    choose = random.Random(name)
    refused = 0
    for _ in range(40):
        body = bytearray(whole)
        for _ in range(choose.randint(1, 5)):
            body[choose.randrange(len(body))] = choose.randrange(256)
        try:
            found = blocks(bytes(body[: choose.randrange(len(body) // 2, len(body) + 1)]))
        except SourceError as error:
            assert error.code in ("corrupt", "no_audio")
            refused += 1
        else:
            assert all(len(one.samples) % (2 * one.channels) == 0 for one in found)
    assert refused
