"""Each channel of a file's sound by itself, decoded by libav: a generator, which another process can run."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
import av.error

from streamsvc.core.errors import SourceError
from streamsvc.core.types import SAMPLE_RATE
from streamsvc.ingest.container import open_bytes
from streamsvc.ingest.web_client import Readable

CHANNELS = 8  # security limit
_BLOCK_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class Block:
    """Some samples of all channels: int16 at SAMPLE_RATE, interleaved; none where there are over CHANNELS."""

    channels: int
    samples: bytes


def channel_blocks(file: Readable, name: str) -> Iterator[Block]:
    """The first audio track of a file, block by block.

    Args:
        file: its bytes, with `seek` where it has one.
        name: for messages.

    Raises:
        SourceError: "corrupt", "no_audio".
    """
    count, waiting = 0, bytearray()
    with contextlib.ExitStack() as stack:
        container = open_bytes(file, name, stack)
        if not container.streams.audio:
            raise SourceError(f"{name} has no audio", code="no_audio")
        resampler: Any = av.AudioResampler("s16", None, SAMPLE_RATE)
        try:
            for frame in itertools.chain(container.decode(audio=0), (None,)):
                if frame is not None and not count:
                    count = len(frame.layout.channels)
                    if count > CHANNELS:  # PyAV knows no more planes than these
                        yield Block(count, b"")
                        return
                for piece in resampler.resample(frame) if count else ():
                    waiting += piece.to_ndarray().tobytes()
                if len(waiting) >= _BLOCK_BYTES:
                    yield Block(count, bytes(waiting))
                    waiting.clear()
        except (av.error.FFmpegError, ValueError):
            raise SourceError(f"{name} is damaged", code="corrupt") from None
    if not count:
        raise SourceError(f"{name} has no audio", code="no_audio")
    if waiting:
        yield Block(count, bytes(waiting))
