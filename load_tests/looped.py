"""A recording over and over in one file, without decoding it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av

PAUSE = Fraction(1, 4)  # seconds between two turns: the first stamps of a recording may be negative


def looped(recording: Path, target: Path, seconds: float) -> Path:
    """Write a recording again and again, until the file lasts `seconds` or more; return its path.

    `target`: its suffix names the container.
    """
    with av.open(str(target), "w") as out, av.open(str(recording)) as first:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in _media(first)}
        assert first.duration is not None
        length = Fraction(first.duration, av.time_base)
        start = Fraction(0)
        while start < seconds:
            with av.open(str(recording)) as again:
                for packet in again.demux(*_media(again)):
                    if packet.dts is None or packet.pts is None:  # the end of a stream
                        continue
                    shift = int(start / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = streams[packet.stream.index]
                    out.mux(packet)
            start += length + PAUSE
    return target


def _media(container: Any) -> list[Any]:
    return [stream for stream in container.streams if stream.type in ("audio", "video")]
