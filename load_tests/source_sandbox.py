"""What the process of a source costs: CPU seconds a second of media, within the service and apart, in turns.

    python -m load_tests.source_sandbox [--seconds 60] [--turns 5]

The clip is made here: 1280x720 at 30 frames a second in H.264, and AAC. Each turn reads it once within and
once apart, in an order that alternates. Sound is decoded by the second, five pictures a second become
thumbnails and one a keyframe's JPEG, as in a session. Counted: user and system time of this process and of
its children that have ended.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from streamsvc.core import clock
from streamsvc.core.config import Ingest
from streamsvc.core.types import EncodedFrame
from streamsvc.ingest.decode import jpeg, thumbnail
from streamsvc.ingest.decoders import audio_decoder, video_decoder
from streamsvc.ingest.source import SourceSink, open_source

FPS, RATE = 30, 48_000


def made(path: Path, seconds: int) -> Path:
    """Write the clip: a moving pattern with noise, and a tone."""
    noise = np.random.default_rng(1)
    with av.open(str(path), "w") as container:
        pictures: Any = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
        pictures.width, pictures.height, pictures.pix_fmt = 1280, 720, "yuv420p"
        sound: Any = container.add_stream("aac", rate=RATE, layout="stereo")
        base = noise.integers(0, 255, (90, 160, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        for number in range(seconds * FPS):
            frame = av.VideoFrame.from_ndarray(np.roll(base, number * 3, axis=1), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode(None))
        times = np.arange(1024) / RATE
        for number in range(seconds * RATE // 1024):
            wave = 0.3 * np.sin(2 * np.pi * 440 * (times + number * 1024 / RATE))
            piece = av.AudioFrame.from_ndarray(np.stack([wave, wave]).astype(np.float32), "fltp", "stereo")
            piece.sample_rate, piece.pts = RATE, number * 1024
            container.mux(sound.encode(piece))
        container.mux(sound.encode(None))
    return path


def spent() -> float:
    """CPU seconds of this process and of its ended children."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, kinds))


async def no_wait() -> None:
    return


async def read(path: Path, mode: str) -> tuple[float, float]:
    """CPU seconds for the whole clip, and seconds until the source was open."""
    before, began = spent(), clock.now()
    settings = Ingest.model_validate({"sandbox": mode})
    source = await open_source(str(path), settings, session="s", speed=None, roots=None)
    opened = clock.now() - began
    frames: dict[str, list[EncodedFrame]] = {"audio": [], "video": []}
    await source.run(SourceSink(lambda frame: frames[frame.kind].append(frame), no_wait, lambda: began))
    tracks = {track.kind: track for track in source.tracks}
    hearing, seeing = audio_decoder(tracks["audio"], "s"), video_decoder(tracks["video"], "s")
    process = source._process
    await asyncio.to_thread(_decode, hearing, seeing, frames)
    hearing.close()
    seeing.close()
    await source.close()
    if process is not None:
        await asyncio.to_thread(process._process.wait)
    return spent() - before, opened


def _decode(hearing: Any, seeing: Any, frames: dict[str, list[EncodedFrame]]) -> None:
    for first in range(0, len(frames["audio"]), 47):
        hearing.decode(frames["audio"][first : first + 47])
    shown = 0
    for first in range(0, len(frames["video"]), 8):
        for picture in seeing.decode(frames["video"][first : first + 8]):
            if shown % (FPS // 5) == 0:
                thumbnail(picture)
            if shown % FPS == 0:
                jpeg(picture)
            shown += 1


async def main(seconds: int, turns: int) -> None:
    """Measure in turns, and print both medians."""
    costs: dict[str, list[float]] = {"off": [], "auto": []}
    opened: dict[str, list[float]] = {"off": [], "auto": []}
    with tempfile.TemporaryDirectory() as folder:
        path = await asyncio.to_thread(made, Path(folder) / "a.mp4", seconds)
        for turn in range(turns):
            for mode in ("off", "auto") if turn % 2 == 0 else ("auto", "off"):
                cost, wait = await read(path, mode)
                costs[mode].append(cost / seconds)
                opened[mode].append(wait)
    for mode, name in (("off", "within the service"), ("auto", "apart, confined")):
        low, middle, high = min(costs[mode]), statistics.median(costs[mode]), max(costs[mode])
        print(f"{name:20} {middle:.4f} CPU s a second of media ({low:.4f} to {high:.4f})", end="")
        print(f", open after {statistics.median(opened[mode]):.2f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    asyncio.run(main(given.seconds, given.turns))
