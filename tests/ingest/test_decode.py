from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest

from streamsvc.core.types import EncodedFrame, MediaTrack
from streamsvc.ingest.decode import AudioDecoder, VideoDecoder, jpeg, thumbnail
from tests.builders.clips import clip


def frames(path: Path, kind: str) -> tuple[MediaTrack, list[EncodedFrame]]:
    with av.open(str(path)) as container:
        stream: Any = container.streams.get({kind: 0})[0]
        packets = [
            EncodedFrame(
                "s", "main", float(p.pts * p.time_base), 100.0 + i, stream.type, bytes(p), "x", p.is_keyframe
            )
            for i, p in enumerate(cast(Any, container.demux(stream)))
            if p.size
        ]
        return MediaTrack(stream.type, stream.codec_context.codec.name, stream.codec_context), packets


def noise(path: Path) -> Path:
    """A second of noise, without two equal packets."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libopus", rate=48_000, layout="mono")
        random = np.random.default_rng(1)
        for number in range(50):
            piece = av.AudioFrame.from_ndarray(
                random.normal(0, 0.1, (1, 960)).astype(np.float32), format="fltp", layout="mono"
            )
            piece.sample_rate, piece.pts = 48_000, 960 * number
            for made in av.AudioResampler(format=stream.format.name, layout="mono", rate=48_000).resample(
                piece
            ):
                container.mux(stream.encode(made))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [("a.mp4", "aac", 44_100), ("a.webm", "libopus", 48_000), ("a.wav", "pcm_s16le", 8_000)],
)
def test_any_codec_becomes_16_khz_mono_without_gaps(tmp_path: Path, name: str, codec: str, rate: int) -> None:
    track, packets = frames(clip(tmp_path / name, video=None, audio=codec, rate=rate), "audio")
    decoder = AudioDecoder(track, "s")
    chunks = [chunk for packet in packets for chunk in decoder.decode([packet])] + decoder.flush()
    assert decoder.errors == 0
    assert not any(chunk.gap for chunk in chunks)
    assert chunks[0].at == pytest.approx(0.0, abs=0.02)
    assert chunks[-1].end == pytest.approx(1.0, abs=0.05)
    assert all(abs(b.at - a.end) < 0.001 for a, b in pairwise(chunks))
    samples = np.concatenate([chunk.samples for chunk in chunks])
    assert samples.dtype == np.float32
    middle = samples[4000:12000]
    assert np.abs(middle).max() == pytest.approx(0.5, abs=0.08)
    assert np.argmax(np.abs(np.fft.rfft(middle))) == 220, "440 Hz"


@pytest.mark.parametrize("codec", ["pcm_s16le", "libopus"])
def test_stereo_becomes_mono_at_the_same_level(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a.mkv"
    wave = (0.8 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000) * 32767).astype(np.int16)
    writer: Any = av.open(str(path), "w")
    with writer as container:
        sound = container.add_stream(codec, rate=48_000, layout="stereo", format="s16")
        for start in range(0, 48_000, 960):
            piece = np.repeat(wave[start : start + 960], 2)[None]
            frame = av.AudioFrame.from_ndarray(piece, format="s16", layout="stereo")
            frame.sample_rate, frame.pts = 48_000, start
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    track, packets = frames(path, "audio")
    samples = np.concatenate([chunk.samples for chunk in AudioDecoder(track, "s").decode(packets)])
    assert np.abs(samples[4000:12000]).max() == pytest.approx(0.8, abs=0.05)


def test_lost_audio_becomes_marked_silence_of_its_length(tmp_path: Path) -> None:
    track, packets = frames(clip(tmp_path / "a.webm", video=None, audio="libopus"), "audio")
    decoder = AudioDecoder(track, "s")
    chunks = decoder.decode(packets[:20]) + decoder.decode(packets[30:]) + decoder.flush()
    gaps = [chunk for chunk in chunks if chunk.gap]
    assert len(gaps) == 1
    assert gaps[0].at == pytest.approx(packets[20].at, abs=0.01)
    assert len(gaps[0].samples) == pytest.approx(0.2 * 16000, abs=160)
    assert not gaps[0].samples.any()
    assert all(abs(b.at - a.end) < 0.002 for a, b in pairwise(chunks))


def test_a_reported_loss_of_one_packet_is_marked_too(tmp_path: Path) -> None:
    track, packets = frames(clip(tmp_path / "a.webm", video=None, audio="libopus"), "audio")
    received = [*packets[:20], replace(packets[21], gap=0.02), *packets[22:]]
    gaps = [chunk for chunk in AudioDecoder(track, "s").decode(received) if chunk.gap]
    assert [len(gap.samples) for gap in gaps] == [pytest.approx(320, abs=32)]


def test_of_a_long_loss_the_first_and_the_last_second_become_silence(tmp_path: Path) -> None:
    track, packets = frames(clip(tmp_path / "a.webm", video=None, audio="libopus"), "audio")
    later = [replace(packet, at=packet.at + 3600.0, loss="missing") for packet in packets[30:]]
    chunks = [chunk for chunk in AudioDecoder(track, "s").decode([*packets[:20], *later]) if chunk.gap]
    assert [chunk.end - chunk.at for chunk in chunks] == pytest.approx([1.0, 1.0])
    assert [chunk.loss for chunk in chunks] == ["missing", "missing"]
    assert chunks[0].at == pytest.approx(packets[20].at, abs=0.01)
    assert chunks[1].end == pytest.approx(later[0].at, abs=0.01)


def test_sound_missing_at_the_start_and_at_the_end_is_marked(tmp_path: Path) -> None:
    track, packets = frames(clip(tmp_path / "a.webm", video=None, audio="libopus"), "audio")
    late = [replace(packets[5], at=9.0, gap=9.0), *(replace(p, at=p.at + 8.9) for p in packets[6:20])]
    end = replace(packets[0], payload=b"", at=15.0, gap=5.0)
    decoder = AudioDecoder(track, "s")
    gaps = [chunk for chunk in decoder.decode([*late, end]) + decoder.flush() if chunk.gap]
    assert gaps[0].at == 0.0
    assert gaps[1].end == pytest.approx(9.0)
    assert gaps[-1].end == pytest.approx(15.0)


def test_audio_whose_stamp_is_too_early_is_kept_behind_what_came_before(tmp_path: Path) -> None:
    """Durations of a container that are too short, and packets without a stamp."""
    track, packets = frames(clip(tmp_path / "a.mp4", video=None), "audio")
    whole = np.concatenate([chunk.samples for chunk in AudioDecoder(track, "s").decode(packets)])
    for squeezed in (
        [replace(packet, at=packet.at / 3) for packet in packets],
        [replace(packet, at=0.0, stamped=False) for packet in packets],
        [packets[0], *(replace(packet, at=packet.at + 0.5, stamped=False) for packet in packets[1:])],
    ):
        track, _ = frames(tmp_path / "a.mp4", "audio")
        decoder = AudioDecoder(track, "s")
        chunks = [chunk for packet in squeezed for chunk in decoder.decode([packet])]
        assert sum(len(chunk.samples) for chunk in chunks) >= len(whole) - 300
        assert all(abs(b.at - a.end) < 0.05 for a, b in pairwise(chunks))
        assert not any(chunk.gap for chunk in chunks) and decoder.repeated == 0


def test_repeated_audio_is_left_out_and_counted(tmp_path: Path) -> None:
    track, packets = frames(noise(tmp_path / "a.webm"), "audio")
    decoder = AudioDecoder(track, "s")
    chunks = decoder.decode([*packets[:30], *packets[10:30], *packets[30:]]) + decoder.flush()
    assert decoder.repeated >= 17
    assert chunks[-1].end == pytest.approx(1.0, abs=0.1)


def test_bad_and_empty_audio_is_counted_and_decoding_goes_on(tmp_path: Path) -> None:
    track, packets = frames(clip(tmp_path / "a.mp4", video=None), "audio")
    decoder = AudioDecoder(track, "s")
    packets[10] = replace(packets[10], payload=b"\xff" * 40)
    packets[11] = replace(packets[11], payload=b"")
    chunks = decoder.decode(packets)
    assert decoder.errors >= 1
    assert chunks[-1].end > 0.9


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.webm", "libvpx"), ("b.mp4", "mpeg4")])
def test_pictures_keep_the_time_and_arrival_of_their_own_payload(
    tmp_path: Path, name: str, codec: str
) -> None:
    b_frames = 2 if codec == "libx264" else 0
    track, packets = frames(clip(tmp_path / name, video=codec, audio=None, b_frames=b_frames), "video")
    decoder = VideoDecoder(track, "s")
    pictures = [picture for packet in packets for picture in decoder.decode([packet])] + decoder.flush()
    assert len(pictures) == 25
    assert decoder.errors == 0
    assert [picture.at for picture in pictures] == sorted(picture.at for picture in pictures)
    arrival = {round(packet.at, 3): packet.arrived for packet in packets}
    assert all(arrival[round(picture.at, 3)] == picture.arrived for picture in pictures)


def test_after_a_loss_the_decoder_waits_for_a_codec_keyframe(tmp_path: Path) -> None:
    track, packets = frames(clip(tmp_path / "a.webm", video="libvpx", audio=None), "video")
    decoder = VideoDecoder(track, "s")
    assert decoder.decode(packets[:5])
    inter = [replace(packet, keyframe=False) for packet in packets[6:]]
    assert decoder.decode([replace(inter[0], gap=0.04), *inter[1:]]) == []
    assert decoder.waiting
    assert decoder.skipped == len(packets) - 6
    assert decoder.decode(packets[:1])
    assert not decoder.waiting


def test_a_damaged_picture_never_raises(tmp_path: Path) -> None:
    track, packets = frames(clip(tmp_path / "a.webm", video="libvpx", audio=None), "video")
    decoder = VideoDecoder(track, "s")
    decoder.decode([replace(packets[0], payload=b"\x00\x01\x02"), *packets[1:4]])
    assert decoder.errors + decoder.skipped >= 1
    assert decoder.decode(packets[:2])


def test_thumbnails_are_small_and_gray_and_jpegs_can_be_opened(tmp_path: Path) -> None:
    track, packets = frames(clip(tmp_path / "a.mp4", video="libx264", audio=None), "video")
    decoder = VideoDecoder(track, "s")
    picture = (decoder.decode(packets) + decoder.flush())[20]
    gray = thumbnail(picture, 40)
    assert gray.shape == (24, 40)
    assert gray.dtype == np.uint8
    assert gray.mean() == pytest.approx(100, abs=4)
    assert jpeg(picture, max_width=80).startswith(b"\xff\xd8")
