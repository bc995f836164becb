from __future__ import annotations

import gc
import io
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest
from PIL import Image

from streamsvc.core.types import EncodedFrame, MediaTrack, VideoFrame
from streamsvc.ingest.container import choose
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


TONE = 0.8 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)


def sound(path: Path, codec: str, layout: str, *factors: float) -> Path:
    """Write a second of a tone, times a factor in each channel."""
    writer: Any = av.open(str(path), "w")
    with writer as container:
        stream = container.add_stream(codec, rate=48_000, layout=layout)
        size = stream.frame_size or 960
        format = stream.format.name
        for start in range(0, 48_000, size):
            channels = np.outer(factors, TONE[start : start + size])
            if format.startswith("s16"):
                channels = (channels * 32767).astype(np.int16)
            piece = channels if format.endswith("p") else channels.T.reshape(1, -1)
            ready: Any = np.ascontiguousarray(piece, np.int16 if "16" in format else np.float32)
            frame = av.AudioFrame.from_ndarray(ready, format=format, layout=layout)
            frame.sample_rate, frame.pts = 48_000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("codec", "layout", "factors"),
    [
        ("pcm_s16le", "stereo", (1, 1)),
        ("libopus", "stereo", (1, 1)),
        ("pcm_s16le", "stereo", (1, -1)),
        ("aac", "stereo", (1, -1)),
        ("libopus", "stereo", (1, -1)),
        ("flac", "stereo", (-0.5, 1)),
        ("pcm_s16le", "stereo", (0, 1)),
        ("libopus", "stereo", (1, 0)),
        ("pcm_s16le", "5.1", (1, -1, 0, 0, 0, 0)),
        ("aac", "5.1", (0, 0, 1, 0, 0, 0)),
        ("pcm_s16le", "5.1", (-0.6, -0.6, 1, 0, 0.2, 0.2)),
        ("libopus", "5.1", (1, -1, 0, 0, 0, 0)),
        ("pcm_s16le", "quad", (1, -1, 1, -1)),
    ],
)
def test_channels_become_mono_as_loud_as_the_loudest_whatever_their_polarity(
    tmp_path: Path, codec: str, layout: str, factors: tuple[float, ...]
) -> None:
    track, packets = frames(sound(tmp_path / "a.mkv", codec, layout, *factors), "audio")
    decoder = AudioDecoder(track, "s")
    samples = np.concatenate([chunk.samples for chunk in decoder.decode(packets)])
    assert decoder.errors == 0
    middle = samples[4000:12000]
    assert np.abs(middle).max() == pytest.approx(0.8, abs=0.06)
    assert np.argmax(np.abs(np.fft.rfft(middle))) == 220, "440 Hz"


def test_webrtc_opus_is_decoded_in_stereo(tmp_path: Path) -> None:
    _, packets = frames(sound(tmp_path / "a.mkv", "libopus", "stereo", 1, -1), "audio")
    decoder = AudioDecoder(MediaTrack("audio", "opus"), "s")
    samples = np.concatenate([chunk.samples for chunk in decoder.decode(packets)])
    assert np.abs(samples[4000:12000]).max() == pytest.approx(0.8, abs=0.06)


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


def squares(path: Path, aspect: Fraction | None = None, **rotation: Any) -> Path:
    """Write a still of 160x96: white on the left, black on the right."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        if rotation:
            stream.set_display_rotation(**rotation)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        pixels = np.zeros((96, 160, 3), np.uint8)
        pixels[:, :80] = 255
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 5)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("degrees", "mirrored", "size", "bright"),
    [
        (0, False, (160, 96), np.s_[:, :18]),
        (0, True, (160, 96), np.s_[:, 22:]),
        (90, False, (96, 160), np.s_[36:, :]),
        (180, False, (160, 96), np.s_[:, 22:]),
        (270, False, (96, 160), np.s_[:30, :]),
    ],
)
def test_pictures_thumbnails_and_jpegs_are_upright(
    tmp_path: Path, degrees: int, mirrored: bool, size: tuple[int, int], bright: Any
) -> None:
    track, packets = frames(squares(tmp_path / "a.mp4", degrees=degrees, hflip=mirrored), "video")
    picture = VideoDecoder(track, "s").decode(packets)[0]
    assert (picture.width, picture.height) == size
    gray = thumbnail(picture, 40)
    assert gray.shape == (round(40 * size[1] / size[0]), 40)
    assert gray[bright].mean() > 230
    assert gray.mean() == pytest.approx(127, abs=15)
    for width in (1280, 40):
        image = Image.open(io.BytesIO(jpeg(picture, max_width=width))).convert("L")
        assert image.width == min(width, size[0])
        assert np.abs(np.asarray(image.resize(gray.shape[::-1])).astype(int) - gray).mean() < 12


def camera(count: int) -> tuple[MediaTrack, list[EncodedFrame]]:
    """The JPEGs of a camera."""
    buffer = io.BytesIO()
    Image.new("RGB", (160, 96), "teal").save(buffer, "JPEG")
    payload = buffer.getvalue()
    packets = [
        EncodedFrame("s", "main", n / 10, 100.0, "video", payload, "mjpeg", True) for n in range(count)
    ]
    return MediaTrack("video", "mjpeg", None), packets


@pytest.mark.parametrize("codec", ["libx264", "mjpeg"])
def test_a_picture_is_freed_once_nobody_has_it_without_a_collection_of_cycles(
    tmp_path: Path, codec: str
) -> None:
    if codec == "mjpeg":
        track, packets = camera(25)
    else:
        track, packets = frames(clip(tmp_path / "a.mkv", video=codec, audio=None), "video")
    decoder = VideoDecoder(track, "s")
    gc.collect()
    gc.disable()
    try:
        shown = sum(len(decoder.decode([packet])) for packet in packets) + len(decoder.flush())
        kept = sum(isinstance(each, av.VideoFrame) for each in gc.get_objects())
    finally:
        gc.enable()
    assert shown > 20
    assert kept <= 2, "the first, whose side data was read, and the one that PyAV decodes into next"


def test_a_container_overrules_the_shape_of_pixels_in_the_bitstream(tmp_path: Path) -> None:
    path = squares(tmp_path / "a.mp4", Fraction(2))
    track, packets = frames(path, "video")
    picture = VideoDecoder(track, "s").decode(packets)[0]
    assert (picture.width, picture.height) == (320, 96)
    assert thumbnail(picture, 40).shape == (12, 40)
    assert Image.open(io.BytesIO(jpeg(picture))).size == (320, 96)
    content = bytearray(path.read_bytes())
    box = content.index(b"pasp") + 4  # ISO 14496-12, 12.1.4: hSpacing, vSpacing
    content[box : box + 8] = (1).to_bytes(4, "big") + (2).to_bytes(4, "big")
    path.write_bytes(content)
    with av.open(str(path)) as container:
        _, (track,) = choose(container, "a.mp4")
    picture = VideoDecoder(track, "s").decode(packets)[0]
    assert (picture.width, picture.height) == (160, 192)


def test_a_very_tall_picture_has_a_small_thumbnail(tmp_path: Path) -> None:
    picture = av.VideoFrame.from_ndarray(np.zeros((4096, 16, 3), np.uint8), format="rgb24")
    frame = VideoFrame("s", "main", 0.0, 0.0, picture, 16, 4096)
    assert thumbnail(frame, 40).shape == (160, 40)
    assert Image.open(io.BytesIO(jpeg(frame, max_width=64))).height == 256


@pytest.mark.parametrize("made", [thumbnail, jpeg, partial(jpeg, max_width=320)])
def test_no_threads_are_made_for_a_picture(made: Callable[[VideoFrame], object]) -> None:
    """Each picture would keep those of its own scaling: their stacks fill the address space of a source."""
    tasks = Path("/proc/self/task")
    before = len(list(tasks.iterdir()))
    handles = [av.VideoFrame(640, 360, "yuv420p") for _ in range(5)]
    for handle in handles:
        made(VideoFrame("s", "main", 0.0, 0.0, handle, 640, 360))
    assert len(list(tasks.iterdir())) == before


def test_a_codec_keyframe_that_is_decoded_alone_is_not_held_back(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mkv", video="libx264", b_frames=2, seconds=1.0)
    track, (first, *_) = frames(path, "video")
    assert first.keyframe
    assert VideoDecoder(track, "s").decode([first]) == [], "pictures after it may have to be shown before it"
    decoder = VideoDecoder(frames(path, "video")[0], "s")
    for number in range(3):
        pictures = decoder.decode([replace(first, at=float(number), alone=True)])
        assert [picture.at for picture in pictures] == [float(number)]
