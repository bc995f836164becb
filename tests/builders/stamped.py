"""Media whose stamps have holes or begin again, and what comes of them: sound in media seconds."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import numpy as np

from streamsvc.core import clock
from streamsvc.core.config import Ingest
from streamsvc.core.types import EncodedFrame, Gap, MediaTrack
from streamsvc.ingest.decoders import Decoders, audio_decoder
from streamsvc.ingest.source import SourceSink, open_source
from streamsvc.speech.audio_buffer import AudioBuffer

RATE = 48_000
LOUD = 0.05  # of full scale


@dataclass(frozen=True)
class Part:
    """A recording: a tone for all but its last half second, which is silent, and gray pictures.

    `first`: its first stamp, in seconds. `hole`: (seconds after its start, length of a hole in the stamps).
    `delay`: seconds by which the sound begins after the pictures.
    """

    seconds: float = 3.0
    first: float = 0.0
    hole: tuple[float, float] = (1e9, 0.0)
    delay: float = 0.0
    hz: float = 440.0
    audio: str | None = "aac"
    video: str | None = None
    rate: int = RATE
    layout: str = "mono"
    gray: int = 100
    pictures_first: bool = False  # among the streams of the container
    form: str | None = None  # of the container; None: as the file's name says
    options: dict[str, str] = field(default_factory=dict)

    def stamp(self, at: float) -> float:
        """The stamp of a second of the recording."""
        return self.first + at + (self.hole[1] if at >= self.hole[0] - 1e-6 else 0.0)

    def write(self, path: Path) -> Path:
        """Write it to a file."""
        with av.open(str(path), "w", format=self.form, options=self.options) as container:
            sound: Any = None
            pictures: Any = None
            if self.audio and not self.pictures_first:
                sound = container.add_stream(self.audio, rate=self.rate, layout=self.layout)
            if self.video:
                pictures = container.add_stream(self.video, rate=10)
            if self.audio and self.pictures_first:
                sound = container.add_stream(self.audio, rate=self.rate, layout=self.layout)
            queue: list[tuple[float, Any]] = []
            if sound is not None:
                queue += [(packet.dts * float(packet.time_base), packet) for packet in self._sound(sound)]
            if pictures is not None:
                pictures.width, pictures.height, pictures.pix_fmt = 160, 96, "yuv420p"
                pictures.codec_context.gop_size = 5
                queue += [
                    (packet.dts * float(packet.time_base), packet) for packet in self._pictures(pictures)
                ]
            for _, packet in sorted(queue, key=lambda pair: pair[0]):
                container.mux(packet)
        return path

    def _sound(self, stream: Any) -> Iterator[Any]:
        count = round(self.rate * (self.seconds - self.delay))
        times = np.arange(count) / self.rate
        wave = 0.5 * np.sin(2 * np.pi * self.hz * times) * (times < self.seconds - self.delay - 0.5)
        size = stream.frame_size or 960
        shape = wave.astype(np.float32)[None]
        if self.layout == "stereo":
            shape = np.repeat(shape, 2, axis=0)
        resampler = av.AudioResampler(format=stream.format.name, layout=self.layout, rate=self.rate)
        for start in range(0, count, size):
            piece = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(shape[:, start : start + size]), format="fltp", layout=self.layout
            )
            piece.sample_rate, piece.pts = self.rate, start
            piece.time_base = Fraction(1, self.rate)
            for made in resampler.resample(piece):
                made.pts = start
                yield from self._moved(stream.encode(made), self.delay)
        yield from self._moved(stream.encode(None), self.delay)

    def _pictures(self, stream: Any) -> Iterator[Any]:
        for number in range(round(10 * self.seconds)):
            picture = av.VideoFrame.from_ndarray(np.full((96, 160, 3), self.gray, np.uint8), format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, 10)
            yield from self._moved(stream.encode(picture), 0.0)
        yield from self._moved(stream.encode(None), 0.0)

    def _moved(self, packets: list[Any], delay: float) -> Iterator[Any]:
        for packet in packets:
            base = float(packet.time_base)
            moved = self.stamp(packet.pts * base + delay) - packet.pts * base
            packet.pts += round(moved / base)
            packet.dts += round(moved / base)
            yield packet


def joined(path: Path, *parts: Part) -> Path:
    """A file of several files, one behind the other: `cat`."""
    pieces = [part.write(path.with_name(f"{number}-{path.name}")) for number, part in enumerate(parts)]
    path.write_bytes(b"".join(piece.read_bytes() for piece in pieces))
    return path


# --- what comes of it ---


@dataclass
class Heard:
    """What a source gave.

    `sound`: (start, end) of what is loud, media seconds. `gaps`: as reported. `pictures`: their times.
    `stats`: of the source.
    """

    sound: list[tuple[float, float]]
    gaps: list[Gap]
    pictures: list[float]
    stats: dict[str, float]
    frames: list[EncodedFrame]


async def no_wait() -> None:
    return


async def hear(url: str | Path, settings: Ingest | None = None) -> Heard:
    """Read a source as fast as possible, and decode its sound."""
    source = await open_source(
        str(url),
        settings or Ingest(open_seconds=4.0, reconnects=0),
        session="s",
        speed=None,
        roots=None,
        private_urls=True,
    )
    tracks: dict[str, MediaTrack] = {track.kind: track for track in source.tracks}
    taken: list[tuple[MediaTrack, EncodedFrame]] = []

    def tap(frame: EncodedFrame) -> None:
        if frame.changed is not None:
            tracks[frame.kind] = frame.changed
        taken.append((tracks[frame.kind], frame))

    zero = clock.now()
    try:
        await source.run(SourceSink(tap, no_wait, lambda: zero))
        stats = dict(source.stats())
        sound, gaps = decoded([pair for pair in taken if pair[1].kind == "audio"])
    finally:
        await source.close()
    pictures = [frame.at for _, frame in taken if frame.kind == "video"]
    return Heard(sound, gaps, pictures, stats, [frame for _, frame in taken])


def decoded(taken: list[tuple[MediaTrack, EncodedFrame]]) -> tuple[list[tuple[float, float]], list[Gap]]:
    """Sound and gaps of encoded audio, as the speech pipeline decodes it."""
    buffer = AudioBuffer("s", "main")
    chunks: list[Any] = []
    with Decoders("s", audio_decoder) as decoders:
        for track, frame in taken:
            decoder, before = decoders.of(track)
            chunks += before.flush() if before is not None else []
            chunks += decoder.decode([frame])
        chunks += decoders.present.flush() if decoders.present is not None else []
    gaps = [gap for chunk in chunks for gap in buffer.append(chunk, reason="unknown", speaking=False)]
    gaps += buffer.end_loss()
    spans: list[tuple[float, float]] = []
    for chunk in chunks:
        for first in range(0, len(chunk.samples), 800):
            if np.abs(chunk.samples[first : first + 800]).max(initial=0.0) < LOUD:
                continue
            at = chunk.at + first / 16_000
            if spans and at - spans[-1][1] < 0.2:
                spans[-1] = (spans[-1][0], at + 0.05)
            else:
                spans.append((at, at + 0.05))
    return [(round(start, 2), round(end, 2)) for start, end in spans], gaps


@dataclass
class Web:
    """A web server for one folder. `asked`: the paths of all requests, in order."""

    url: str
    asked: list[str]


@contextlib.contextmanager
def web(folder: Path) -> Iterator[Web]:
    """Serve a folder on loopback, with byte ranges."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            file = folder / self.path.partition("?")[0].lstrip("/")
            span = self.headers.get("Range", "").removeprefix("bytes=")
            if not span or not file.is_file():
                super().do_GET()
                return
            first, _, last = span.partition("-")
            body = file.read_bytes()[int(first) : int(last) + 1 if last else None]
            self.send_response(206)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            return

    make: Callable[..., Any] = partial(Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), make) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield Web(f"http://127.0.0.1:{server.server_port}", asked)
        finally:
            server.shutdown()
            thread.join()


def playlist(*entries: str, seconds: float = 3.0, head: str = "", ended: bool = True) -> str:
    """A media playlist; an entry that begins with # is a line of its own."""
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", f"#EXT-X-TARGETDURATION:{round(seconds + 0.5)}"]
    lines += [head] if head else []
    for entry in entries:
        lines += [entry] if entry.startswith("#") else [f"#EXTINF:{seconds},", entry]
    return "\n".join([*lines, "#EXT-X-ENDLIST" if ended else "", ""])
