"""Uploaded audio as files that a session reads: a head for raw samples, and a file per channel."""

from __future__ import annotations

import contextlib
import struct
import wave
from pathlib import Path

from streamsvc.core.errors import TooLarge
from streamsvc.core.types import SAMPLE_RATE
from streamsvc.ingest.channel_reader import ChannelReader
from streamsvc.service.compat.audio_session import SAMPLE_BYTES, AudioFormat

WAV_HEAD = 44  # bytes
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


def split_channels(reader: ChannelReader, folder: Path, seconds: float) -> list[Path]:
    """Write each channel of a file's first audio track as a mono WAV file of SAMPLE_RATE. Blocking.

    Args:
        reader: of the file.
        folder: where the new files are written.
        seconds: security limit: the longest audio.

    Raises:
        SourceError, TooLarge: as of the reader, or too long.
    """
    written: list[Path] = []
    outputs: list[wave.Wave_write] = []
    with contextlib.ExitStack() as stack:
        for block in stack.enter_context(contextlib.closing(reader.blocks())):
            if not outputs:
                written = [folder / f"channel{index}.wav" for index in range(block.shape[1])]
                outputs = [stack.enter_context(_writer(path)) for path in written]
            for channel, output in enumerate(outputs):
                output.writeframes(block[:, channel].tobytes())
            if outputs[0].tell() > seconds * SAMPLE_RATE:
                raise TooLarge(f"The audio is longer than {seconds:g} s")
    return written


def _writer(path: Path) -> wave.Wave_write:
    writer = wave.open(str(path), "wb")  # noqa: SIM115 (closed by the caller)
    writer.setnchannels(1)
    writer.setsampwidth(2)
    writer.setframerate(SAMPLE_RATE)
    return writer
