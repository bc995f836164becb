"""Uploaded audio as files that libav opens: a head for raw samples, and a file per channel."""

from __future__ import annotations

import contextlib
import itertools
import struct
import wave
from pathlib import Path
from typing import Any

import av
import av.error

from streamsvc.core.errors import SourceError, TooLarge
from streamsvc.core.types import SAMPLE_RATE
from streamsvc.ingest.container import open_file
from streamsvc.ingest.source_policy import Place
from streamsvc.service.compat.audio_session import SAMPLE_BYTES, AudioFormat

WAV_HEAD = 44  # bytes
CHANNELS = 8  # security limit: channels transcribed of one file
_WAV_TAGS = {"pcm_s16le": 1, "pcm_alaw": 6, "pcm_mulaw": 7}
# What files with a container begin with: such a body is no raw audio, whatever the request says.
_CONTAINERS = (b"RIFF", b"fLaC", b"OggS", b"ID3", b"\x1aE\xdf\xa3")


def has_container(head: bytes) -> bool:
    """Whether a body that begins with `head` is a file of its own, not raw samples."""
    return head.startswith(_CONTAINERS) or head[4:8] == b"ftyp"


def wav_head(audio_format: AudioFormat, size: int) -> bytes:
    """The head of a WAV file with `size` bytes of samples; WAV_HEAD bytes."""
    bits = 8 * SAMPLE_BYTES[audio_format.codec]
    frame = audio_format.sample_bytes
    fields = (_WAV_TAGS[audio_format.codec], audio_format.channels, audio_format.rate)
    form = struct.pack("<HHIIHH", *fields, audio_format.rate * frame, frame, bits)
    chunks = (
        b"RIFF",
        struct.pack("<I", 36 + size),
        b"WAVEfmt \x10\0\0\0",
        form,
        b"data",
        struct.pack("<I", size),
    )
    return b"".join(chunks)


def split_channels(path: Path, folder: Path, seconds: float) -> list[Path]:
    """Write each channel of a file's first audio track as a mono WAV file of SAMPLE_RATE. Blocking.

    Args:
        path: of the file.
        folder: where the new files are written.
        seconds: security limit: the longest audio.

    Raises:
        SourceError: "corrupt", "no_audio". TooLarge: too long, or more than CHANNELS channels.
    """
    written: list[Path] = []
    with contextlib.ExitStack() as stack:
        container = open_file(Place("file", "the file", path), stack)
        if not container.streams.audio:
            raise SourceError("the file has no audio", code="no_audio")
        outputs: list[wave.Wave_write] = []
        resampler: Any = av.AudioResampler("s16", None, SAMPLE_RATE)
        try:
            for frame in itertools.chain(container.decode(audio=0), (None,)):
                if frame is not None and not outputs:
                    count = len(frame.layout.channels)
                    _check_count(count)  # before libav's planes of more than 8 channels are read
                    written = [folder / f"channel{index}.wav" for index in range(count)]
                    outputs = [stack.enter_context(_writer(name)) for name in written]
                for piece in resampler.resample(frame) if outputs else ():
                    samples = piece.to_ndarray().reshape(-1, len(outputs))
                    for channel, output in enumerate(outputs):
                        output.writeframes(samples[:, channel].tobytes())
                    if outputs[0].tell() > seconds * SAMPLE_RATE:
                        raise TooLarge(f"The audio is longer than {seconds:g} s")
        except (av.error.FFmpegError, ValueError):
            raise SourceError("the file is damaged", code="corrupt") from None
    if not written:
        raise SourceError("the file has no audio", code="no_audio")
    return written


def _check_count(channels: int) -> None:
    if channels > CHANNELS:
        raise TooLarge(f"multichannel transcribes at most {CHANNELS} channels, not {channels}")


def _writer(path: Path) -> wave.Wave_write:
    writer = wave.open(str(path), "wb")  # noqa: SIM115 (closed by the caller)
    writer.setnchannels(1)
    writer.setsampwidth(2)
    writer.setframerate(SAMPLE_RATE)
    return writer
