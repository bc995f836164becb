"""Reads each channel of a file's sound by itself, in the process of a source."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray

from streamsvc.core.config import Ingest
from streamsvc.core.errors import TooLarge
from streamsvc.ingest.channels import CHANNELS, Block, channel_blocks
from streamsvc.ingest.demuxer import FileInputs
from streamsvc.ingest.source_channel import Broken, Fields, error_of
from streamsvc.ingest.source_inputs import ServedInputs
from streamsvc.ingest.source_policy import Place
from streamsvc.ingest.source_process import SourceProcess

_MOST_TOLD = 1024  # channels that a file may say that it has


class ChannelReader:
    """Reads one file. Made on the event loop's thread, as its process.

    Args:
        place: of the file.
        settings: `sandbox`: "off": this process reads it.
    """

    def __init__(self, place: Place, settings: Ingest) -> None:
        self._inputs = FileInputs(place)
        self._name = place.name
        self._process: SourceProcess | None = None
        self._channels = 0  # of the blocks so far
        if settings.sandbox != "off":
            self._process = SourceProcess(place.name, require=settings.sandbox == "require")

    def blocks(self) -> Generator[NDArray[np.int16], None, None]:
        """The samples at SAMPLE_RATE, shape (samples, channels). Blocking.

        Raises:
            SourceError: "corrupt", "no_audio"; "source_crashed": its process failed. TooLarge: more than
                CHANNELS channels.
        """
        blocks = self._within() if self._process is None else self._apart(self._process)
        with contextlib.closing(blocks):
            for block in blocks:
                if block.channels > CHANNELS:
                    raise TooLarge(
                        f"multichannel transcribes at most {CHANNELS} channels, not {block.channels}"
                    )
                yield np.frombuffer(block.samples, np.int16).reshape(-1, block.channels)

    def close(self) -> None:
        """End the process; `blocks` ends soon. Once."""
        if self._process is not None:
            self._process.release()

    def _within(self) -> Generator[Block, None, None]:
        with contextlib.closing(self._inputs.open()) as file:
            yield from channel_blocks(file, self._name)

    def _apart(self, process: SourceProcess) -> Generator[Block, None, None]:
        process.wait_ready()
        served = ServedInputs()
        served.use(self._inputs)
        try:
            while (
                block := process.demux({"op": "channels", "source": self._name}, served, self._checked, 0.0)
            ) is not None:
                yield block
        finally:
            served.close()

    def _checked(self, answer: Fields, body: memoryview) -> Block | None:
        """The block of an answer; None: the end. Raises Broken: it cannot be."""
        if (error := error_of(answer)) is not None:
            raise error
        channels = answer.integer("channels", 0, _MOST_TOLD)
        if not channels or channels > CHANNELS:
            return Block(channels, b"") if channels else None
        if not body or len(body) % (2 * channels) or self._channels not in (0, channels):
            raise Broken("bad block")
        self._channels = channels
        return Block(channels, bytes(body))
