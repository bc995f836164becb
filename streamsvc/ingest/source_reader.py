"""The thread of a source: opens, demuxes, and reopens a live URL that breaks off.

Packets are passed to the event loop through a bounded queue of AHEAD packets; when it is full, the thread
waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import av
import av.error

from streamsvc.core import clock
from streamsvc.core.config import Ingest
from streamsvc.core.errors import SourceError, StreamsvcError
from streamsvc.core.types import Kind, MediaTrack
from streamsvc.ingest.container import (
    RecentPackets,
    check_decodable,
    choose,
    open_file,
    open_url,
    packets,
    with_headers,
)
from streamsvc.ingest.source_policy import Place, check_file
from streamsvc.ingest.timestamps import MediaPacket, TrackClock

AHEAD = 256  # packets read ahead of the event loop
BACKOFF = (0.5, 8.0)  # seconds between tries to reopen a live URL: first, longest


class SourceReader(threading.Thread):
    """Reads one source.

    Args:
        place: of the source.
        settings: time limits and reconnects.
        private_urls: security limit: whether hosts of private networks are allowed.
        loop: the event loop that takes the packets.

    Attributes:
        opened: done when the tracks are known, or failed with a StreamsvcError.
        tracks: the first audio and the first video track.
        duration: seconds; None: live.
        bursts: packets come in bursts (HLS segments): to be paced although live.
        reconnects: times that a live URL was reopened.
        damaged: packets that libav could not read or marked as corrupt.
    """

    def __init__(
        self, place: Place, settings: Ingest, private_urls: bool, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(name="source", daemon=True)
        self.tracks: tuple[MediaTrack, ...] = ()
        self.duration: float | None = None
        self.bursts = False
        self.reconnects = 0
        self.damaged = 0
        self.settings = settings
        self.opened: asyncio.Future[None] = loop.create_future()
        # Retrieve the exception, so that asyncio does not log it as never retrieved.
        self.opened.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._place = place
        self._private_urls = private_urls
        self._loop = loop
        self._stopped = threading.Event()
        self._slots = threading.Semaphore(AHEAD)
        self._packets: deque[MediaPacket | BaseException | None] = deque()
        self._filled = asyncio.Event()
        self._clocks: dict[Kind, TrackClock] = {}
        self._streams: list[Any] = []
        self._recent = RecentPackets()
        self._start: float | None = None  # pts in seconds: media time 0, or where the connection continues
        self._origin: float | None = None  # monotonic seconds of media time 0
        self._finite = False  # whether the container has a known end

    # --- called on the event loop ---

    async def take(self) -> MediaPacket | None:
        """The next packet; None at the end. Raises what ended the thread."""
        while not self._packets:
            self._filled.clear()
            await self._filled.wait()
        item = self._packets.popleft()
        self._slots.release()
        if isinstance(item, BaseException):
            raise item
        return item

    def stop(self) -> None:
        """Tell the thread to end as soon as libav returns."""
        self._stopped.set()
        self._slots.release()

    def _put(self, item: MediaPacket | BaseException | None) -> None:
        self._packets.append(item)
        self._filled.set()

    def _set_opened(self, error: BaseException | None) -> None:
        if not self.opened.done():
            self.opened.set_result(None) if error is None else self.opened.set_exception(error)

    # --- called in the thread ---

    def run(self) -> None:
        """Open, demux, and pass on packets until the end or `stop`."""
        report: Callable[[Any], None] = self._set_opened
        with contextlib.ExitStack() as stack:
            try:
                container = self._open(stack)
                self._call_soon(self._set_opened, None)
                report = self._put
                self._read(container, stack)
                self._call_soon(self._put, None)
            except StreamsvcError as error:
                self._call_soon(report, error)
            except Exception as error:  # any other class that libav raises
                text = f"{self._place.name} cannot be read: {type(error).__name__}"
                self._call_soon(report, SourceError(text, code="corrupt"))

    def _call_soon(self, function: Callable[[Any], None], item: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(function, item)

    def _open(self, stack: contextlib.ExitStack) -> Any:
        """Open the container and choose its tracks; at the first time, set `tracks` and `duration`."""
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
            duration = 0.0  # a file has an end, even if its header does not say when
        if self.tracks:  # reopened: the kinds stay
            kinds = {track.kind for track in self.tracks}
            streams = [stream for stream in streams if stream.type in kinds]
        else:
            self.tracks = tracks
            self.duration = duration
            self.bursts = "hls" in container.format.name
        self._finite = duration is not None
        self._streams = streams
        starts = [
            float(stream.start_time * stream.time_base) for stream in streams if stream.start_time is not None
        ]
        self._start = min(starts) if starts else None
        return container

    def _read(self, container: Any, stack: contextlib.ExitStack) -> None:
        """Demux to the end; a live URL that breaks off is reopened, and its time continues."""
        tries = 0
        while True:
            error: SourceError | None = None
            before = self._media_end()
            try:
                self._demux(container, reopened=self.reconnects > 0)
            except (av.error.FFmpegError, OSError):
                error = self._read_error()
            if self._media_end() != before:  # media flowed: earlier failures do not count
                tries = 0
            if self.duration is not None or self._is_finite() or self._stopped.is_set():
                if error is not None:
                    raise error
                return
            container, tries = self._reopen(stack, tries, error)
            if container is None or self._is_finite():  # ended, or replaced by its recording
                return
            self.reconnects += 1

    def _reopen(self, stack: contextlib.ExitStack, tries: int, error: SourceError | None) -> tuple[Any, int]:
        """Reopen a live URL, with backoff; return the container and the tries so far.

        The container is None if `stop` was called, or if the stream ended without an error and does not exist
        any more.

        Raises:
            SourceError: of the last try.
        """
        stack.close()
        ended = error is None
        error = error or self._read_error()
        first, longest = BACKOFF
        while tries < self.settings.reconnects:
            if self._stopped.wait(min(longest, first * 2**tries)):
                return None, tries
            tries += 1
            try:
                return self._open(stack), tries
            except SourceError as failure:
                stack.close()
                error = failure
        if ended and error.code == "not_found":
            return None, tries
        raise error

    def _demux(self, container: Any, reopened: bool) -> None:
        """Pass on every packet of one connection. `reopened`: it is not the first one."""
        # Tracks of which a reopened connection has given no new packet yet.
        resuming = {stream.type for stream in self._streams} if reopened else set()
        base: float | None = None  # media time at which a new time line starts
        repeats = False  # the connection repeats packets, so its time line is the old one
        for packet in packets(container, self._streams, self._place.name, self._count_damaged):
            if self._stopped.is_set():
                return
            kind = packet.stream.type
            pts = packet.pts if packet.pts is not None else packet.dts
            stamp = None if pts is None else float(pts * packet.time_base)
            duration = float(packet.duration * packet.time_base) if packet.duration else 0.0
            payload = bytes(packet)
            if self.bursts and pts is not None and not self._recent.add(kind, pts, payload):
                repeats = True
                continue  # a reopened playlist starts some segments back
            if self._start is None:
                self._start = stamp or 0.0
            track_clock = self._clocks.setdefault(kind, TrackClock(self._start))
            before = track_clock.end or 0.0
            if kind in resuming and not (repeats and track_clock.continues(stamp)):
                if base is None:
                    base = max(self._media_end(), clock.now() - (self._origin or 0.0))
                    self._start = stamp if stamp is not None else self._start
                track_clock.restart(base, self._start)
            at = track_clock.place(stamp, duration)
            gap = 0.0
            if kind in resuming:
                resuming.discard(kind)
                gap = max(0.0, at - before)
                payload = with_headers(payload, packet.stream)
            if self._origin is None:
                self._origin = clock.now() - at
            due = track_clock.advance_due(kind, at, duration)
            self._slots.acquire()
            if self._stopped.is_set():
                return
            self._call_soon(
                self._put,
                MediaPacket(kind, payload, bool(packet.is_keyframe), at, due, clock.now(), gap),
            )

    def _count_damaged(self) -> None:
        self.damaged += 1

    def _is_finite(self) -> bool:
        return self._finite  # a method, since `_open` changes it between two checks of one function

    def _media_end(self) -> float:
        return max((track_clock.end or 0.0 for track_clock in self._clocks.values()), default=0.0)

    def _read_error(self) -> SourceError:
        if self._place.path is not None:
            return SourceError(f"{self._place.name} is damaged and cannot be read further", code="corrupt")
        return SourceError(f"{self._place.name} stopped answering", code="no_answer", retryable=True)
