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
    changed_track,
    check_decodable,
    choose,
    open_file,
    open_url,
    packets,
    with_headers,
)
from streamsvc.ingest.hls import Hls, is_playlist
from streamsvc.ingest.source_policy import Place, check_file
from streamsvc.ingest.timestamps import (
    HOLE,
    JUMP,
    MediaClock,
    MediaPacket,
    Step,
    fits_in_a_file,
    stamps_of,
)

AHEAD = 256  # packets read ahead of the event loop
LATE = 1.0  # seconds by which the sound of a file may begin later than its pictures, untold
CUT = 2.0  # seconds by which a file may end before the end that its header tells, untold
# Formats (libav's names) whose header tells the duration; others are estimated from the bit rate.
TELL_DURATION = ("hls", "matroska", "mov")
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
        tracks: one audio and one video track at most.
        duration: seconds; None: live.
        bursts: packets come in bursts (HLS segments): to be paced although live.
        reconnects: times that a live URL was reopened.
        damaged: packets that libav could not read or marked as corrupt, and segments that broke off.
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
        self._media: MediaClock | None = None
        self._hls: Hls | None = None
        self._streams: list[Any] = []
        self._extradata: dict[Kind, bytes] = {}
        self._recent = RecentPackets()
        self._start: float | None = None  # stamp in seconds at which the connection begins
        self._read_at: dict[Kind, float] = {}  # monotonic seconds of the newest packet
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

    @property
    def time_lines(self) -> int:
        """Times that the stamps began again."""
        return self._media.lines if self._media is not None else 0

    @property
    def missing_segments(self) -> int:
        """Segments of a playlist that could not be fetched."""
        return self._hls.missing if self._hls is not None else 0

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
            container = self._open_url(stack)
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
        self._extradata = {
            stream.type: bytes(stream.codec_context.extradata or b"") for stream in self._streams
        }
        return container

    def _open_url(self, stack: contextlib.ExitStack) -> Any:
        place, limit = self._place, self.settings.open_seconds
        if self._hls is None and not is_playlist(place):
            container = open_url(place, limit, self._private_urls, stack)
            if "hls" not in container.format.name:
                return container
            stack.close()
        self._hls = Hls(place, limit, self._private_urls, self._count_damaged)
        return self._hls.open(stack)

    # --- times, in the thread ---

    def _new_clock(self, start: float) -> MediaClock:
        """The clock of the first connection, whose stamps begin with `start`."""
        if self._hls is not None:
            return MediaClock(start, self._hls.missing_start, self._hls_is_hole, self._hls_joint)
        if self.duration is None:
            return MediaClock(start, 0.0, self._live_is_hole, self._live_joint)
        return MediaClock(start)

    def _hls_is_hole(self, step: Step) -> bool:
        return self._hls is None or (fits_in_a_file(step) and self._hls.explains(step.at))

    def _hls_joint(self, end: float) -> float:
        joint = self._hls.joint(end) if self._hls is not None else None
        return end if joint is None else joint

    def _live_is_hole(self, step: Step) -> bool:
        """A live stream's stamps cannot run ahead of the clock by much."""
        silent = clock.now() - self._read_at.get(step.kind, 0.0)
        return step.size <= min(silent + JUMP, HOLE)

    def _live_joint(self, end: float) -> float:
        return max(end, clock.now() - self._origin) if self._origin is not None else end

    def _media_end(self) -> float:
        return self._media.end if self._media is not None else 0.0

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
                self._report_missing_end(container)
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
        joined = False  # a new time line has begun for this connection
        repeats = False  # the connection repeats packets, so its time line is the old one
        for packet in packets(container, self._streams, self._place.name, self._count_damaged):
            if self._stopped.is_set():
                return
            kind: Kind = packet.stream.type
            stamps = stamps_of(packet)
            payload = bytes(packet)
            if self.bursts and not self._finite and stamps.pts is not None:
                known = not self._recent.add(kind, packet.pts, payload)
                if known and kind in resuming:
                    repeats = True
                    continue  # a reopened playlist starts some segments back
            if self._media is None:
                self._media = self._new_clock(stamps.order or 0.0 if self._start is None else self._start)
            media = self._media
            before = media.end_of(kind)
            if kind in resuming and not (repeats and media.continues(kind, stamps.order)):
                if not joined:
                    joined = True
                    base = max(media.end, clock.now() - (self._origin or 0.0))
                    media.begin_line(base, stamps.pts if stamps.pts is not None else self._start or 0.0)
                media.join_line(kind, base)
            at = media.place(kind, stamps)
            gap = 0.0
            if kind in resuming:
                resuming.discard(kind)
                gap = max(0.0, at - (before or 0.0))
                payload = with_headers(payload, packet.stream)
            elif before is None and kind == "audio" and self.duration is not None and at > LATE:
                gap = at  # its sound begins later than the rest
            if self._origin is None:
                self._origin = clock.now() - at
            due = media.advance_due(kind, at)
            self._read_at[kind] = clock.now()
            changed = changed_track(packet, self._extradata.get(kind, b""))
            if changed is not None:
                self._extradata[kind] = bytes(changed.context.extradata)
            self._pass_on(
                MediaPacket(
                    kind,
                    payload,
                    bool(packet.is_keyframe),
                    at,
                    due,
                    self._read_at[kind],
                    gap,
                    stamped=stamps.order is not None,
                    changed=changed,
                )
            )

    def _pass_on(self, packet: MediaPacket) -> None:
        """Queue a packet, once there is room."""
        self._slots.acquire()
        if not self._stopped.is_set():
            self._call_soon(self._put, packet)

    def _report_missing_end(self, container: Any) -> None:
        """Report what a source lacks at its end, as far as it tells its duration."""
        if not self._finite or not any(name in container.format.name for name in TELL_DURATION):
            return
        others = any(stream.type not in ("audio", "video") for stream in container.streams)
        end = self._hls.end if self._hls is not None else None
        if end is None:
            end = container.duration / av.time_base if container.duration and not others else 0.0
        sound = self._media.end_of("audio") if self._media is not None else None
        if sound is not None and end - self._media_end() > CUT:
            self._pass_on(MediaPacket("audio", b"", False, end, end, clock.now(), end - sound))

    def _count_damaged(self) -> None:
        self.damaged += 1

    def _is_finite(self) -> bool:
        return self._finite  # a method, since `_open` changes it between two checks of one function

    def _read_error(self) -> SourceError:
        if self._place.path is not None:
            return SourceError(f"{self._place.name} is damaged and cannot be read further", code="corrupt")
        return SourceError(f"{self._place.name} stopped answering", code="no_answer", retryable=True)
