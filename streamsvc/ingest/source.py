"""A file, or an RTSP, HLS or HTTP URL, read by libav into the same units that a WebRTC peer gives.

Reading blocks, so each source has one thread of its own, which is joined at `close`. The thread hands packets to the
event loop through a bounded store; the loop paces them against the session's clock and gives them to the tap.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error

from streamsvc.core import clock
from streamsvc.core.config import Ingest
from streamsvc.core.errors import SourceError, StreamsvcError
from streamsvc.core.types import EncodedFrame, Kind, MediaTrack
from streamsvc.ingest.container import (
    Recent,
    check_decodable,
    choose,
    open_file,
    open_url,
    packets,
    with_headers,
)
from streamsvc.ingest.source_policy import Place, check_file, find, shown

AHEAD = 256  # packets read ahead of the event loop
MERGE = 512  # packets looked at to put a badly interleaved file into the order of time
JUMP = 10.0  # seconds: a step between packets of one track that is no pause but a new time line
FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0  # seconds between tries to reach a live URL again


@dataclass(frozen=True, slots=True)
class Packet:
    """One demuxed packet on the clock that all tracks of a source share. Times are media seconds."""

    kind: Kind
    payload: bytes
    keyframe: bool
    at: float
    due: float  # media time at which a live sender could have sent it: the end of its audio, the latest picture so far
    arrived: float  # monotonic seconds at which it was read
    gap: float = 0.0  # seconds lost before it


@dataclass(slots=True)
class TrackClock:
    """Turns the pts of one track into media seconds that never jump: missing, wrapped and restarted stamps are bridged.

    `start`: the pts, in seconds, that is media time 0.
    """

    start: float
    offset: float = 0.0
    end: float | None = None  # media seconds at which the last packet ended
    due: float = -1.0

    def place(self, stamp: float | None, duration: float) -> float:
        """Media seconds of a packet whose pts is `stamp` seconds (None: it has none) and which lasts `duration`."""
        at = (self.end or 0.0) if stamp is None else stamp - self.start + self.offset
        expected = self.end
        if expected is not None and abs(at - expected) > JUMP:
            self.offset += expected - at
            at = expected
        self.end = max(at + duration, expected or 0.0) if abs(duration) < JUMP else at
        return at

    def go_on_at(self, at: float, start: float) -> None:
        """A new connection begins: its stamp `start` is media time `at`, and so is a packet without one."""
        self.start, self.offset, self.end = start, at, at

    def goes_on(self, stamp: float | None) -> bool:
        """Whether a stamp belongs to the time line so far."""
        return (
            stamp is not None
            and self.end is not None
            and abs(stamp - self.start + self.offset - self.end) <= JUMP
        )


class Source:
    """An opened source. Made by `open_source`.

    Attributes:
        tracks: the first audio and the first video track, each with a codec context that is ready to decode.
        duration: seconds, None when it is live.
        reconnects: how often a live URL had to be opened again.
        broken: packets that libav called damaged, and skipped.
        on_state: told of a live URL, on the event loop: ("stalled", why) after `stall_seconds` without media, and ("resumed", why).
    """

    def __init__(self, reader: _Reader, session: str, speed: float | None) -> None:
        self._reader = reader
        self._session = session
        self._speed = speed
        self.on_state: Callable[[str, str], None] = lambda state, why: None
        self.tracks = reader.tracks
        self.duration = reader.duration

    @property
    def live(self) -> bool:
        """Whether the source has no end that is known."""
        return self.duration is None

    @property
    def reconnects(self) -> int:
        """How often a live URL was opened again."""
        return self._reader.reconnects

    @property
    def broken(self) -> int:
        """Packets that libav could not read."""
        return self._reader.broken

    async def run(
        self,
        tap: Callable[[EncodedFrame], None],
        room: Callable[[], Awaitable[None]],
        zero: Callable[[], float],
    ) -> None:
        """Give every packet to `tap`, until the source ends.

        Args:
            tap: takes one EncodedFrame; never blocks.
            room: awaited before each frame when the speed is None: so a file read as fast as possible loses nothing.
            zero: `clock.now()` of session time 0.

        Raises:
            SourceError: a URL stopped answering and `reconnects` tries did not bring it back ("no_answer", retryable), or the
                file cannot be read further ("corrupt").
        """
        async for packet in self._live_packets(zero) if self.live else self._merged_packets():
            arrived = packet.arrived
            if self.live and not self._reader.bursts:
                pass  # as it comes
            elif self._speed is None and not self.live:
                await room()
                arrived = clock.now()
            else:
                wait = zero() + packet.due / (self._speed or 1.0) - clock.now()
                if wait > 0:
                    await clock.sleep(wait)
                arrived = clock.now()
            codec = next(track.codec for track in self.tracks if track.kind == packet.kind)
            tap(
                EncodedFrame(
                    self._session,
                    "main",
                    packet.at,
                    arrived,
                    packet.kind,
                    packet.payload,
                    codec,
                    packet.keyframe,
                    packet.gap,
                )
            )

    async def _merged_packets(self) -> Any:
        """Packets of a file in the order in which they are due, even where a muxer wrote a second of each track in turn."""
        waiting: dict[Kind, deque[Packet]] = {track.kind: deque() for track in self.tracks}
        ended = False
        while True:
            while not ended and not all(waiting.values()) and sum(map(len, waiting.values())) < MERGE:
                packet = await self._reader.take()
                if packet is None:
                    ended = True
                else:
                    waiting[packet.kind].append(packet)
            heads = [queue for queue in waiting.values() if queue]
            if not heads:
                return
            yield min(heads, key=lambda queue: queue[0].due).popleft()

    async def _live_packets(self, zero: Callable[[], float]) -> Any:
        """Packets of a live URL; media time 0 is the moment of the first one."""
        shift: float | None = None
        while (packet := await self._take()) is not None:
            if shift is None:
                shift = max(0.0, packet.arrived - zero()) - packet.at
            yield Packet(
                packet.kind,
                packet.payload,
                packet.keyframe,
                packet.at + shift,
                packet.due + shift,
                packet.arrived,
                packet.gap,
            )

    async def _take(self) -> Packet | None:
        """The next packet of a live URL; a silence is told when it is long, and when it ends."""
        try:
            async with asyncio.timeout(self._reader.settings.stall_seconds):
                return await self._reader.take()
        except TimeoutError:
            self.on_state("stalled", "no media")
        opened = self.reconnects
        packet = await self._reader.take()
        if packet is not None:
            self.on_state("resumed", "opened again" if self.reconnects > opened else "media again")
        return packet

    def stats(self) -> dict[str, float]:
        """Nothing: a source counts no losses."""
        return {}

    def request_keyframe(self) -> None:
        """Do nothing: the encoder of a source cannot be asked."""

    async def close(self) -> None:
        """Stop reading and join the thread. May be called twice; waits at most for the read time limit of a silent URL."""
        self._reader.stop()
        if self._reader.is_alive():
            await asyncio.to_thread(self._reader.join)


async def open_source(
    url: str,
    settings: Ingest,
    *,
    session: str,
    speed: float | None = 1.0,
    roots: Sequence[Path] | None = (),
    private_urls: bool = False,
) -> Source:
    """Open a source of media.

    Args:
        url: a path, or a URL with the scheme file, http, https, rtsp or rtsps.
        settings: time limits and reconnects.
        session: id that the frames carry.
        speed: of a source that has an end; 1.0 is real time, None as fast as possible. A live URL comes as it comes.
        roots: security limit: a file must lie below one of these folders; None: anywhere (the command line's own user).
        private_urls: security limit: whether hosts of private networks may be named.

    Raises:
        Forbidden: "outside_sources" or "private_url".
        SourceError: "bad_scheme", "not_found", "empty", "corrupt", "no_media", "no_decoder", or "no_answer" (retryable).
    """
    if speed is not None and not speed > 0:
        raise SourceError(f"the speed must be above 0, not {speed}", code="bad_speed")
    place = find(url, roots)
    reader = _Reader(place, settings, private_urls, asyncio.get_running_loop())
    reader.start()
    try:
        # libav has its own time limits; the look-up of a host's name has none
        await asyncio.wait_for(
            asyncio.shield(reader.opened), None if place.path is not None else 2 * settings.open_seconds + 2.0
        )
    except TimeoutError:
        reader.stop()
        raise SourceError(
            f"{shown(url)} did not answer within {settings.open_seconds:g} s",
            code="no_answer",
            retryable=True,
        ) from None
    except BaseException:
        reader.stop()
        if reader.opened.done():
            await asyncio.to_thread(reader.join)
        raise
    return Source(reader, session, speed)


class _Reader(threading.Thread):
    """The thread of one source: opens it, demuxes it, opens it again."""

    def __init__(
        self, place: Place, settings: Ingest, private_urls: bool, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(name="source", daemon=True)
        self.tracks: tuple[MediaTrack, ...] = ()
        self.duration: float | None = None
        self.bursts = False  # it comes in bursts (HLS segments): to be paced although it is live
        self.reconnects = 0
        self.broken = 0
        self.opened: asyncio.Future[None] = loop.create_future()
        self.opened.add_done_callback(
            lambda future: future.cancelled() or future.exception()
        )  # never "was never retrieved"
        self._place = place
        self.settings = settings
        self._private_urls = private_urls
        self._loop = loop
        self._stopped = threading.Event()
        self._slots = threading.Semaphore(AHEAD)
        self._packets: deque[Packet | BaseException | None] = deque()
        self._filled = asyncio.Event()
        self._clocks: dict[Kind, TrackClock] = {}
        self._streams: list[Any] = []
        self._recent = Recent()
        self._start: float | None = (
            None  # pts, in seconds, that is media time 0, or where the present connection goes on
        )
        self._origin: float | None = None  # monotonic seconds of media time 0
        self._ends = False  # whether the container has a known end

    # --- called on the event loop ---

    async def take(self) -> Packet | None:
        """The next packet; None at the end."""
        while not self._packets:
            self._filled.clear()
            await self._filled.wait()
        item = self._packets.popleft()
        self._slots.release()
        if isinstance(item, BaseException):
            raise item
        return item

    def stop(self) -> None:
        """Let the thread end as soon as libav lets go."""
        self._stopped.set()
        self._slots.release()

    def _put(self, item: Packet | BaseException | None) -> None:
        self._packets.append(item)
        self._filled.set()

    def _settle(self, error: BaseException | None) -> None:
        if not self.opened.done():
            self.opened.set_result(None) if error is None else self.opened.set_exception(error)

    # --- called in the thread ---

    def run(self) -> None:
        """Open, demux, and hand over until the end or `stop`."""
        tell: Callable[..., Any] = self._settle
        with contextlib.ExitStack() as stack:
            try:
                container = self._open(stack)
                self._tell(self._settle, None)
                tell = self._put
                self._read_on(container, stack)
                self._tell(self._put, None)
            except StreamsvcError as error:
                self._tell(tell, error)
            except Exception as error:  # anything else that libav raises: said, never swallowed
                self._tell(
                    tell,
                    SourceError(f"{self._place.name} cannot be read: {type(error).__name__}", code="corrupt"),
                )

    def _tell(self, function: Callable[[Any], None], item: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
            self._loop.call_soon_threadsafe(function, item)

    def _open(self, stack: contextlib.ExitStack) -> Any:
        """Open the container, choose its tracks, fill `tracks` and `duration`."""
        place = self._place
        if place.path is not None:
            check_file(place.path, place.name)
            container = open_file(place, stack)
        else:
            container = open_url(place, self.settings.open_seconds, self._private_urls, stack)
        streams, tracks = choose(container, place.name)
        if place.path is not None:
            check_decodable(place, {stream.index for stream in streams})
        duration = (
            container.duration / av.time_base if container.duration and container.duration > 0 else None
        )
        if place.path is not None and duration is None:
            duration = 0.0  # a file always has an end, even where its header does not tell it
        if self.tracks:  # a new connection: the kinds stay
            kinds = {track.kind for track in self.tracks}
            streams = [stream for stream in streams if stream.type in kinds]
        else:
            self.tracks, self.duration = tracks, duration
            self.bursts = "hls" in container.format.name
        self._ends = duration is not None
        self._streams = streams
        known = [
            float(stream.start_time * stream.time_base) for stream in streams if stream.start_time is not None
        ]
        self._start = min(known) if known else None
        return container

    def _read_on(self, container: Any, stack: contextlib.ExitStack) -> None:
        """Demux to the end; a live URL that breaks off is opened again, and the time goes on."""
        tries = 0
        while True:
            error: SourceError | None = None
            before = self._clock_end()
            try:
                self._demux(container, again=self.reconnects > 0)
            except (av.error.FFmpegError, OSError):
                error = self._said()
            if self._clock_end() != before:  # media flowed: what failed before is forgiven
                tries = 0
            if self.duration is not None or self._ended() or self._stopped.is_set():
                if error is not None:
                    raise error
                return
            container, tries = self._again(stack, tries, error)
            if (
                container is None or self._ended()
            ):  # gone, or the live stream is over and its recording is there instead
                return
            self.reconnects += 1

    def _again(self, stack: contextlib.ExitStack, tries: int, error: SourceError | None) -> tuple[Any, int]:
        """Open a live URL once more: container, tries so far. None: `stop` was called, or it ended in order and does not exist any more.

        Raises:
            SourceError: of the last try.
        """
        stack.close()
        ended = error is None
        error = error or self._said()
        while tries < self.settings.reconnects:
            if self._stopped.wait(min(LONGEST_WAIT, FIRST_WAIT * 2**tries)):
                return None, tries
            tries += 1
            try:
                return self._open(stack), tries
            except SourceError as again:
                stack.close()
                error = again
        if ended and error.code == "not_found":
            return None, tries
        raise error

    def _damaged(self) -> None:
        self.broken += 1

    def _ended(self) -> bool:
        return self._ends

    def _said(self) -> SourceError:
        if self._place.path is not None:
            return SourceError(f"{self._place.name} is damaged and cannot be read further", code="corrupt")
        return SourceError(f"{self._place.name} stopped answering", code="no_answer", retryable=True)

    def _clock_end(self) -> float:
        return max((clock_.end or 0.0 for clock_ in self._clocks.values()), default=0.0)

    def _demux(self, container: Any, again: bool) -> None:
        """Hand over every packet of one connection. `again`: it is not the first one."""
        fresh = (
            {stream.type for stream in self._streams} if again else set()
        )  # tracks of which it has given no new packet yet
        base: float | None = None  # media time at which a new time line begins
        known = False  # it repeats packets, so that its time line is the old one
        for packet in packets(container, self._streams, self._place.name, self._damaged):
            if self._stopped.is_set():
                return
            stream, kind = packet.stream, packet.stream.type
            unit = packet.time_base
            stamp = packet.pts if packet.pts is not None else packet.dts
            seconds = None if stamp is None else float(stamp * unit)
            duration = float(packet.duration * unit) if packet.duration else 0.0
            payload, gap = bytes(packet), 0.0
            if self.bursts and stamp is not None and not self._recent.add(kind, stamp, payload):
                known = True
                continue  # a playlist opened again begins some segments back
            if self._start is None:
                self._start = seconds or 0.0
            track_clock = self._clocks.setdefault(kind, TrackClock(self._start))
            before = track_clock.end or 0.0
            if kind in fresh and not (known and track_clock.goes_on(seconds)):
                if base is None:
                    base = max(self._clock_end(), clock.now() - (self._origin or 0.0))
                    self._start = seconds if seconds is not None else self._start
                track_clock.go_on_at(base, self._start)
            at = track_clock.place(seconds, duration)
            if kind in fresh:
                fresh.discard(kind)
                gap = max(0.0, at - before)
                payload = with_headers(payload, stream)
            if self._origin is None:
                self._origin = clock.now() - at
            track_clock.due = max(track_clock.due, at + duration if kind == "audio" else at)
            self._slots.acquire()
            if self._stopped.is_set():
                return
            self._tell(
                self._put,
                Packet(kind, payload, bool(packet.is_keyframe), at, track_clock.due, clock.now(), gap),
            )
