"""The thread of a source: opens, demuxes, and reopens a live URL that breaks off.

Packets are passed to the event loop through a bounded queue of AHEAD packets; when it is full, the thread
waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from streamsvc.core import clock
from streamsvc.core.config import Ingest
from streamsvc.core.errors import SourceError, StreamsvcError
from streamsvc.core.types import Kind, MediaTrack
from streamsvc.ingest.container import RecentPackets, differs, with_headers
from streamsvc.ingest.demuxer import Demuxer, FileInputs, Inputs, OneInput, Opened, Opening
from streamsvc.ingest.file_parts import Span, links, tables_before
from streamsvc.ingest.hls import Hls, is_playlist, looks_like_playlist
from streamsvc.ingest.pushed_stream import PushedStream
from streamsvc.ingest.rtmp_relay import RtmpRelay
from streamsvc.ingest.rtsp_relay import RtspRelay
from streamsvc.ingest.source_fetch import WebFile, open_input
from streamsvc.ingest.source_policy import Place, check_file
from streamsvc.ingest.source_times import Connection, SourceTimes
from streamsvc.ingest.timestamps import MediaPacket, stamps_of

AHEAD = 256  # packets read ahead of the event loop
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
        demuxer: reads its containers.
        loop: the event loop that takes the packets.
        pushed: the place is this stream, which is read once, to its end; closed here.

    Attributes:
        opened: done when the tracks are known, or failed with a StreamsvcError.
        tracks: one audio and one video track at most.
        duration: seconds; None: live.
        bursts: packets come in bursts (HLS segments): to be paced although live.
        reconnects: times that a live URL was reopened.
        damaged: packets that libav could not read or marked as corrupt, and segments that broke off.
    """

    def __init__(
        self,
        place: Place,
        settings: Ingest,
        private_urls: bool,
        demuxer: Demuxer,
        loop: asyncio.AbstractEventLoop,
        pushed: PushedStream | None = None,
    ) -> None:
        super().__init__(name="source", daemon=True)
        self.tracks: tuple[MediaTrack, ...] = ()
        self.duration: float | None = None
        self.bursts = False
        self.reconnects = 0
        self.damaged = 0
        self.settings = settings
        self.opened: asyncio.Future[None] = loop.create_future()
        # So that asyncio does not log an exception as never retrieved.
        self.opened.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._place = place
        self._private_urls = private_urls
        self._demuxer = demuxer
        self._loop = loop
        self._pushed = pushed
        self._stopped = threading.Event()
        self._slots = threading.Semaphore(AHEAD)
        self._packets: deque[MediaPacket | BaseException | None] = deque()
        self._filled = asyncio.Event()
        self._times = SourceTimes()
        self._connection = Connection.FIRST
        self._hls: Hls | None = None
        self._web: WebFile | None = None  # a medium by HTTP that is no playlist
        self._missing = 0  # segments, of the connections before
        self._links: list[Span] = []  # of a chained file, those that are not read yet
        self._span: Span | None = None  # the present one; None: the whole file
        self._of_connection: dict[Kind, MediaTrack] = {}  # as the newest container tells them
        self._present: dict[Kind, MediaTrack] = {}
        self._changed: dict[Kind, MediaTrack] = {}  # from the next packet on
        self._recent = RecentPackets()
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
        """Tell the thread to end, as soon as libav returns where it runs in this process."""
        self._stopped.set()
        self._slots.release(AHEAD)  # nobody takes packets any more: none waits for room
        self._demuxer.interrupt()
        if self._pushed is not None:
            self._pushed.stop()

    def _put(self, item: MediaPacket | BaseException | None) -> None:
        self._packets.append(item)
        self._filled.set()

    def _set_opened(self, error: BaseException | None) -> None:
        if not self.opened.done():
            self.opened.set_result(None) if error is None else self.opened.set_exception(error)

    @property
    def time_lines(self) -> int:
        """Times that the stamps began again."""
        return self._times.lines

    @property
    def missing_segments(self) -> int:
        """Segments of a playlist that could not be fetched."""
        return self._missing + (self._hls.missing if self._hls is not None else 0)

    # --- called in the thread ---

    def run(self) -> None:
        """Open, demux, and pass on packets until the end or `stop`."""
        report: Callable[[Any], None] = self._set_opened
        with self._pushed or contextlib.nullcontext(), contextlib.ExitStack() as stack:
            try:
                self._demuxer.wait_ready()
                opened = self._open(stack)
                self._call_soon(self._set_opened, None)
                report = self._put
                self._read(opened, stack)
                self._call_soon(self._put, None)
            except StreamsvcError as error:
                self._call_soon(report, error)
            except Exception as error:  # any other class that libav raises
                text = f"{self._place.name} cannot be read: {type(error).__name__}"
                self._call_soon(report, SourceError(text, code="corrupt"))

    def _call_soon(self, function: Callable[[Any], None], item: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(function, item)

    def _open(self, stack: contextlib.ExitStack) -> Opened:
        """Open the container and choose its tracks; at the first time, set `tracks` and `duration`."""
        opened = self._open_file(stack) if self._place.path is not None else self._open_url(stack)
        self._of_connection = {track.kind: track for track in opened.tracks}
        duration = opened.duration
        ends = self._place.path is not None or (self._web is not None and self._web.length is not None)
        if ends and duration is None:
            duration = 0.0  # a file has an end, even if its header does not say when
        if self.tracks:  # opened again, or the next link of a chain
            self._note_changes(opened.tracks)
        else:
            self.tracks = opened.tracks
            self._present = {track.kind: track for track in opened.tracks}
            self.duration = duration
            self.bursts = "hls" in opened.form
            self._times.live = duration is None
            self._times.interleaved = "mpegts" in opened.form or self.bursts
        self._finite = duration is not None
        kinds = [track.kind for track in opened.tracks]
        self._times.connect(self._connection, kinds, start=opened.start, plan=self._hls)
        return opened

    def _open_file(self, stack: contextlib.ExitStack) -> Opened:
        path = self._place.path
        assert path is not None
        check_file(path, self._place.name)
        if not self.tracks:
            self._links = links(path)
        self._span = self._links.pop(0) if self._links else None
        return self._demuxed(stack, Opening(self._place.name), FileInputs(self._place, self._span))

    def _open_url(self, stack: contextlib.ExitStack) -> Opened:
        place, limit = self._place, self.settings.open_seconds
        if self._pushed is not None:
            return self._demuxed(stack, Opening(place.name, "web", limit=limit), OneInput(self._pushed))
        if place.scheme.startswith("rtsp"):
            relay = RtspRelay(place, limit, self._private_urls, self._demuxer.listener())
            stack.callback(relay.close)
            opening = Opening(place.name, "rtsp", relay.url, limit)
            return self._demuxed(stack, opening, OneInput(None), lambda: relay.error)
        if place.scheme == "rtmp":
            bridge = RtmpRelay(place, limit, self._demuxer.listener())
            stack.callback(bridge.close)
            return self._demuxed(stack, Opening(place.name, "rtmp", bridge.url, limit), OneInput(None))
        if self._hls is None and not is_playlist(place):
            file = open_input(place, limit, self._private_urls, self._count_damaged)
            stack.callback(file.close)
            if not looks_like_playlist(file.peek(16)):
                self._web = file
                opening = Opening(place.name, "web", limit=limit)
                opened = self._demuxed(stack, opening, OneInput(file), lambda: file.error)
                file.opened()
                return opened
            stack.close()
        self._missing = self.missing_segments
        hls = self._hls = Hls(place, limit, self._private_urls, self._count_damaged)
        stack.callback(hls.close)
        return self._demuxed(stack, Opening(place.name, "hls", hls.start(), limit), hls, lambda: hls.error)

    def _demuxed(
        self,
        stack: contextlib.ExitStack,
        opening: Opening,
        inputs: Inputs,
        refusal: Callable[[], StreamsvcError | None] = lambda: None,
    ) -> Opened:
        """Open a container. `refusal`: what its inputs refused: it says more than what libav makes of it."""
        stack.callback(self._demuxer.close)
        error: SourceError | None = None
        opened: Opened | None = None
        try:
            opened = self._demuxer.open(opening, inputs)
        except SourceError as failed:
            error = failed
        if (refused := refusal()) is not None:
            raise refused
        if opened is None:
            assert error is not None
            raise error
        return opened

    def _note_changes(self, tracks: Sequence[MediaTrack]) -> None:
        """Decode with new parameters where those of a later connection differ."""
        for track in tracks:
            present = self._present.get(track.kind)
            if present is None or self._connection is Connection.LINK or differs(track, present):
                self._changed[track.kind] = track

    def _read(self, opened: Opened | None, stack: contextlib.ExitStack) -> None:
        """Demux to the end; a live URL that breaks off is reopened, and its time continues."""
        tries = 0
        while opened is not None:
            error: SourceError | None = None
            before = self._times.end
            try:
                self._demux()
            except OSError:
                error = self._read_error()
            error = self._failure() or error
            if self._times.end != before:  # media flowed: earlier failures do not count
                tries = 0
            if self._links and not self._stopped.is_set():
                stack.close()
                self._connection = Connection.LINK
                opened = self._open(stack)
                continue
            if self.duration is not None or self._is_finite() or self._stopped.is_set() or self._left():
                if error is not None:
                    raise error
                self._report_missing_end(opened)
                return
            self._connection = Connection.AGAIN
            opened, tries = self._reopen(stack, tries, error)
            if opened is None or self._is_finite():  # ended, or replaced by its recording
                return
            self.reconnects += 1

    def _reopen(
        self, stack: contextlib.ExitStack, tries: int, error: SourceError | None
    ) -> tuple[Opened | None, int]:
        """Reopen a live URL, with backoff; return what was opened and the tries so far.

        It is None if `stop` was called, or if the stream ended without an error and does not exist
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

    def _demux(self) -> None:
        """Pass on every packet of one connection."""
        for packet in self._demuxer.packets(self._count_damaged):
            if self._stopped.is_set():
                return
            kind = packet.kind
            if packet.strange:
                if self._goes_on(packet.pos):
                    return
                self._count_damaged()
                continue
            stamps = stamps_of(packet)
            payload = packet.payload
            known = False
            if self.bursts and not self._finite and packet.pts is not None:
                known = not self._recent.add(kind, packet.pts, payload)
            placed = self._times.place(kind, stamps, known=known)
            if placed is None:
                continue
            changed = self._changed.pop(kind, None)
            if changed is None:
                changed = packet.changed
            if changed is not None:
                self._present[kind] = changed
            elif placed.first:
                payload = with_headers(payload, self._of_connection[kind])
            self._pass_on(
                MediaPacket(
                    kind,
                    payload,
                    packet.is_keyframe,
                    placed.at,
                    placed.due,
                    clock.now(),
                    placed.gap,
                    stamped=stamps.order is not None,
                    changed=changed,
                    joint=placed.joint,
                )
            )

    def _goes_on(self, position: int | None) -> bool:
        """Whether to end this connection, and go on at a byte of the file, or with a new connection."""
        if self._place.path is None:
            return self.duration is None
        first, end = self._span or (0, self._place.path.stat().st_size)
        start = tables_before(self._place.path, first + (position or 0), first)
        if start is None:
            return False
        self._links.insert(0, (start, end))
        return True

    def _pass_on(self, packet: MediaPacket) -> None:
        """Queue a packet, once there is room; after `stop` it is left out."""
        self._slots.acquire()
        if not self._stopped.is_set():
            self._call_soon(self._put, packet)

    def _report_missing_end(self, opened: Opened) -> None:
        """Report what a source lacks at its end, as far as it tells its duration."""
        if not self._is_finite() or not any(name in opened.form for name in TELL_DURATION):
            return
        if self._hls is not None:
            end = self._times.end + self._hls.missing_end
        else:
            end = opened.duration if opened.duration and not opened.others else 0.0
        sound = self._times.end_of("audio")
        if sound is not None and end - self._times.end > CUT:
            self._pass_on(MediaPacket("audio", b"", False, end, end, clock.now(), end - sound))

    def _count_damaged(self) -> None:
        self.damaged += 1

    def _is_finite(self) -> bool:
        """Whether the container has a known end by now: a live playlist may have got one."""
        return self._finite or (self._hls is not None and self._hls.ended)

    def _left(self) -> bool:
        """Whether a publisher has left for good: one that comes back is admitted anew."""
        return self._place.scheme == "rtmp" or (self._pushed is not None and self._pushed.ended)

    def _failure(self) -> SourceError | None:
        """What ended fetching early, where opening again may help. Raises what it is otherwise."""
        fetching = self._hls or self._web
        failure = fetching.error if fetching is not None else None
        if failure is None or (isinstance(failure, SourceError) and failure.retryable):
            return failure
        raise failure

    def _read_error(self) -> SourceError:
        if self._place.path is not None:
            return SourceError(f"{self._place.name} is damaged and cannot be read further", code="corrupt")
        return SourceError(f"{self._place.name} stopped answering", code="no_answer", retryable=True)
