"""Media sources: a file, or an RTSP, HLS or HTTP URL, read by libav into encoded frames.

Reading blocks, so each source has its own thread (`source_reader`), joined at `close`. Here, on the event
loop, packets are merged by time, paced against the session's clock, and passed to the tap.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from streamsvc.core import clock
from streamsvc.core.config import Ingest
from streamsvc.core.errors import SourceError
from streamsvc.core.types import EncodedFrame, Kind
from streamsvc.ingest.demuxer import Demuxer, LibavDemuxer
from streamsvc.ingest.pushed_stream import PushedStream
from streamsvc.ingest.remote_demuxer import RemoteDemuxer
from streamsvc.ingest.source_policy import Place, locate
from streamsvc.ingest.source_process import START_SECONDS, SourceProcess
from streamsvc.ingest.source_reader import SourceReader
from streamsvc.ingest.timestamps import MediaPacket

TAKEN_SECONDS = 30.0  # at the end, for decoders to take what is queued
MERGE = 512  # packets buffered to sort a badly interleaved file by time


async def _at_once() -> None:
    """Wait for nothing."""


@dataclass(frozen=True, slots=True)
class SourceSink:
    """Where a source's frames and states go.

    `tap`: takes one frame; never blocks. `wait_for_space`: awaited before each frame of a file that is read
    as fast as possible, so that no queue drops frames. `zero`: returns `clock.now()` of session time 0.
    `on_state`: for a live URL, called on the event loop with ("stalled", reason) after `stall_seconds`
    without media, and with ("resumed", reason). `taken`: awaited at the end, until a decoder has every frame:
    it then keeps the source's process.
    """

    tap: Callable[[EncodedFrame], None]
    wait_for_space: Callable[[], Awaitable[None]]
    zero: Callable[[], float]
    on_state: Callable[[str, str], None] = lambda state, reason: None
    taken: Callable[[], Awaitable[None]] = _at_once


class Source:
    """An opened source. Made by `open_source`.

    Attributes:
        tracks: one audio and one video track at most, each with a codec context that is ready to decode.
        duration: seconds; None: live.
    """

    def __init__(
        self,
        reader: SourceReader,
        process: SourceProcess | None,
        session: str,
        speed: float | None,
        began: float | None = None,
    ) -> None:
        self._reader = reader
        self._process = process  # that reads and decodes it; None: this one
        self._session = session
        self._speed = speed
        self._began = began  # monotonic second of its first byte; None: it is read as soon as it comes
        self.tracks = reader.tracks
        self.duration = reader.duration

    @property
    def live(self) -> bool:
        """Whether the source has no known end."""
        return self.duration is None

    @property
    def reconnects(self) -> int:
        """Times that a live URL was reopened."""
        return self._reader.reconnects

    @property
    def damaged(self) -> int:
        """Packets that libav could not read or marked as corrupt."""
        return self._reader.damaged

    async def run(self, sink: SourceSink) -> None:
        """Pass every packet to the sink until the source ends.

        Args:
            sink: where frames and states go.

        Raises:
            SourceError: "no_answer" (retryable): a URL stopped answering, also after `reconnects` tries;
                "corrupt": a file cannot be read further; "source_crashed": its process failed.
        """
        codecs = {track.kind: track.codec for track in self.tracks}
        async for packet in self._live_packets(sink) if self.live else self._merged_packets():
            arrived = packet.arrived
            if not self.live and self._speed is None:
                await sink.wait_for_space()
                arrived = clock.now()
            elif not self.live or self._reader.bursts:  # other live URLs pace themselves
                wait = sink.zero() + packet.due / (self._speed or 1.0) - clock.now()
                if wait > 0:
                    await clock.sleep(wait)
                arrived = clock.now()
            if packet.changed is not None:
                codecs[packet.kind] = packet.changed.codec
            sink.tap(
                EncodedFrame(
                    session=self._session,
                    track="main",
                    at=packet.at,
                    arrived=arrived,
                    kind=packet.kind,
                    payload=packet.payload,
                    codec=codecs[packet.kind],
                    keyframe=packet.keyframe,
                    gap=packet.gap,
                    stamped=packet.stamped,
                    loss="missing",
                    changed=packet.changed,
                    joint=packet.joint,
                )
            )

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TAKEN_SECONDS):
                await sink.taken()
        if self._process is not None and self._process.failure is not None:
            raise self._process.failure

    async def _merged_packets(self) -> AsyncIterator[MediaPacket]:
        """Packets of a file in the order in which they are due, whatever the muxer's interleaving."""
        queues: dict[Kind, deque[MediaPacket]] = {track.kind: deque() for track in self.tracks}
        ended = False
        while True:
            while not ended and not all(queues.values()) and sum(map(len, queues.values())) < MERGE:
                packet = await self._reader.take()
                if packet is None:
                    ended = True
                else:
                    queues.setdefault(packet.kind, deque()).append(packet)
            filled = [queue for queue in queues.values() if queue]
            if not filled:
                return
            yield min(filled, key=lambda queue: queue[0].due).popleft()

    async def _live_packets(self, sink: SourceSink) -> AsyncIterator[MediaPacket]:
        """Packets of a live source, shifted so that the first is at the session time of its arrival."""
        shift: float | None = None
        while (packet := await self._take_live(sink)) is not None:
            if shift is None:
                arrived = packet.arrived if self._began is None else self._began
                shift = max(0.0, arrived - sink.zero()) - packet.at
            yield replace(packet, at=packet.at + shift, due=packet.due + shift)

    async def _take_live(self, sink: SourceSink) -> MediaPacket | None:
        """The next packet of a live URL; reports a long silence and its end."""
        try:
            async with asyncio.timeout(self._reader.settings.stall_seconds):
                return await self._reader.take()
        except TimeoutError:
            sink.on_state("stalled", "no media")
        before = self.reconnects
        packet = await self._reader.take()
        if packet is not None:
            sink.on_state("resumed", "opened again" if self.reconnects > before else "media again")
        return packet

    def stats(self) -> dict[str, float]:
        """What the source counts: see SourceReader."""
        reader = self._reader
        return {
            "reconnects": reader.reconnects,
            "damaged": reader.damaged,
            "time_lines": reader.time_lines,
            "missing_segments": reader.missing_segments,
        }

    def request_keyframe(self) -> None:
        """Do nothing: the encoder of a source cannot be asked."""

    async def close(self) -> None:
        """Stop reading and join the thread: a silent URL may take its read time limit. Idempotent."""
        self._reader.stop()
        if self._reader.is_alive():
            await asyncio.to_thread(self._reader.join)
        process, self._process = self._process, None
        _release(process)


async def open_source(
    url: str,
    settings: Ingest,
    *,
    session: str,
    speed: float | None = 1.0,
    roots: Sequence[Path] | None = (),
    private_urls: bool = False,
) -> Source:
    """Open a media source.

    Args:
        url: a path, or a URL with the scheme file, http, https, rtsp or rtsps.
        settings: time limits and reconnects.
        session: id that the frames carry.
        speed: of a source with an end: 1.0 is real time, None as fast as possible. A live URL is not paced.
        roots: security limit: a file must lie below one of these folders; None: anywhere (the command line's
            own user).
        private_urls: security limit: whether hosts of private networks are allowed.

    Raises:
        Forbidden: "outside_sources" or "private_url".
        SourceError: "bad_scheme", "not_found", "empty", "corrupt", "no_media", "no_decoder", or "no_answer"
            (retryable).
    """
    if speed is not None and not speed > 0:
        raise SourceError(f"the speed must be above 0, not {speed}", code="bad_speed")
    return await _open(locate(url, roots), settings, session, speed, private_urls)


async def open_published(place: Place, settings: Ingest, *, session: str) -> Source:
    """Open what somebody publishes to a media server of ours, or of the operator's. Live: it is not paced.

    Args:
        place: of the settings' own making (`rtmp_place`): it is not checked against any policy.
        settings: time limits.
        session: id that the frames carry.

    Raises:
        SourceError: see `open_source`.
    """
    return await _open(place, settings, session, 1.0, private_urls=True)


async def _open(
    place: Place, settings: Ingest, session: str, speed: float | None, private_urls: bool
) -> Source:
    demuxer, process = _demuxer(place, settings)
    reader = SourceReader(place, settings, private_urls, demuxer, asyncio.get_running_loop())
    # libav has its own time limits, but name resolution has none.
    limit = None if place.path is not None else 2 * settings.open_seconds + 2.0 + START_SECONDS
    await _opened(reader, process, place.name, limit)
    return Source(reader, process, session, speed)


async def open_pushed(sock: socket.socket, name: str, settings: Ingest, session: str) -> Source:
    """Open a container that a publisher pushes, such as the MPEG-TS of a caller by SRT: a live source.

    Args:
        sock: connected, with the container's bytes; closed here or by the source, which disconnects the
            publisher.
        name: for messages.
        settings: time limits: `open_seconds` for its first media, `close_seconds` of silence that end it.
        session: id that the frames carry.

    Raises:
        SourceError: "corrupt", "no_media", "no_decoder"; "no_answer" (retryable): too little came in time.
    """
    place = Place("pushed", name)
    process: SourceProcess | None = None
    try:
        demuxer, process = _demuxer(place, settings)
        async with asyncio.timeout(settings.open_seconds):
            await _readable(sock)
    except BaseException as error:
        sock.close()
        _release(process)
        if isinstance(error, TimeoutError):
            raise _no_answer(name, settings) from None
        raise
    began = clock.now()
    stream = PushedStream(sock, name, settings.close_seconds)
    reader = SourceReader(place, settings, False, demuxer, asyncio.get_running_loop(), stream)
    await _opened(reader, process, name, settings.open_seconds + START_SECONDS)
    return Source(reader, process, session, 1.0, began)


async def _readable(sock: socket.socket) -> None:
    """Wait until something has come, or the other side has closed."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(sock, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(sock)


def _no_answer(name: str, settings: Ingest) -> SourceError:
    text = f"{name} did not answer within {settings.open_seconds:g} s"
    return SourceError(text, code="no_answer", retryable=True)


def _demuxer(place: Place, settings: Ingest) -> tuple[Demuxer, SourceProcess | None]:
    """What reads the containers of a place, and its process; None: this one."""
    if settings.sandbox == "off":
        return LibavDemuxer(), None
    require, loopback = settings.sandbox == "require", place.scheme in ("rtsp", "rtsps", "rtmp")
    process = SourceProcess(place.name, require=require, loopback=loopback)
    return RemoteDemuxer(process), process


async def _opened(
    reader: SourceReader, process: SourceProcess | None, name: str, limit: float | None
) -> None:
    """Start a reader and wait until its tracks are known. Raises what keeps it from that."""
    reader.start()
    try:
        await asyncio.wait_for(asyncio.shield(reader.opened), limit)
    except TimeoutError:
        reader.stop()
        _release(process)
        raise _no_answer(name, reader.settings) from None
    except BaseException:
        reader.stop()
        _release(process)
        if reader.opened.done():
            await asyncio.to_thread(reader.join)
        raise


def _release(process: SourceProcess | None) -> None:
    if process is not None:
        process.release()
