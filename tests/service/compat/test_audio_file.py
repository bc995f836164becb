"""Raw samples get a head that libav reads; channels become files."""

from __future__ import annotations

import wave
from pathlib import Path

import av
import numpy as np
import pytest

from streamsvc.core.config import Ingest
from streamsvc.core.errors import SourceError, TooLarge
from streamsvc.ingest.channel_reader import ChannelReader
from streamsvc.ingest.channels import CHANNELS
from streamsvc.ingest.source_policy import Place
from streamsvc.service.compat.audio_file import WAV_HEAD, has_container, split_channels, wav_head
from streamsvc.service.compat.audio_session import AudioFormat


def tone(seconds: float, rate: int, hertz: float) -> np.ndarray:
    return (9000 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype("<i2")


def reader(path: Path) -> ChannelReader:
    return ChannelReader(Place("file", "the file", path), Ingest(sandbox="off"))


@pytest.mark.parametrize(
    ("codec", "rate", "channels"),
    [("pcm_s16le", 16_000, 1), ("pcm_s16le", 44_100, 2), ("pcm_mulaw", 8_000, 1), ("pcm_alaw", 8_000, 2)],
)
def test_libav_reads_samples_behind_the_head(tmp_path: Path, codec: str, rate: int, channels: int) -> None:
    audio_format = AudioFormat(codec, rate, channels)
    size = audio_format.sample_bytes * rate  # a second
    head = wav_head(audio_format, size)
    assert len(head) == WAV_HEAD
    path = tmp_path / "audio"
    path.write_bytes(head + bytes(size))
    with av.open(str(path)) as container:
        (stream,) = container.streams.audio
        assert (stream.codec_context.name, stream.codec_context.sample_rate) == (codec, rate)
        assert sum(frame.samples for frame in container.decode(audio=0)) == rate


def test_each_channel_becomes_a_file(tmp_path: Path) -> None:
    left, right = tone(1.0, 8000, 200.0), tone(1.0, 8000, 700.0)
    samples = np.stack([left, right], axis=1).tobytes()
    path = tmp_path / "audio"
    path.write_bytes(wav_head(AudioFormat("pcm_s16le", 8000, 2), len(samples)) + samples)
    written = split_channels(reader(path), tmp_path, 60.0)
    loudest = []
    for one in written:
        with wave.open(str(one)) as file:
            assert (file.getnchannels(), file.getframerate()) == (1, 16_000)
            sound = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        assert len(sound) == pytest.approx(16_000, abs=64)
        loudest.append(np.abs(np.fft.rfft(sound[:16_000])).argmax() / (len(sound[:16_000]) / 16_000))
    assert loudest == [pytest.approx(200, abs=3), pytest.approx(700, abs=3)]


def test_long_audio_many_channels_and_damage_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "audio"
    samples = bytes(2 * 8000 * 3)
    path.write_bytes(wav_head(AudioFormat("pcm_s16le", 8000), len(samples)) + samples)
    with pytest.raises(TooLarge, match="longer than 1 s"):
        split_channels(reader(path), tmp_path, 1.0)
    many = AudioFormat("pcm_s16le", 8000, CHANNELS + 1)
    path.write_bytes(wav_head(many, 1800) + bytes(1800))
    with pytest.raises(TooLarge, match="at most 8 channels, not 9"):
        split_channels(reader(path), tmp_path, 60.0)
    path.write_bytes(b"no media at all")
    with pytest.raises(SourceError):
        split_channels(reader(path), tmp_path, 60.0)


def test_a_file_of_its_own_is_known_by_its_head() -> None:
    assert has_container(b"RIFF\0\0\0\0WAVE")
    assert has_container(b"\0\0\0 ftypM4A ")
    assert not has_container(bytes(12))
    assert not has_container(b"")
