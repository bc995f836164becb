"""A file, or an RTSP, HLS or HTTP URL, read by libav into the same units that a WebRTC peer gives.

Reading blocks, so each source has one thread of its own, which is joined at `close`. The thread hands packets to the
event loop through a bounded store; the loop paces them against the session's clock and gives them to the tap.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import stat
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import av
import av.error
from av.stream import Disposition

from streamsvc import clock
from streamsvc.config import Ingest
from streamsvc.errors import Forbidden, SourceError, StreamsvcError
from streamsvc.types import EncodedFrame, Kind, MediaTrack

FILE_SCHEMES = ("", "file")
URL_SCHEMES = ("http", "https", "rtsp", "rtsps")
PROTOCOLS = {  # security limit: what libav may open for a URL of each scheme; a file may open nothing else at all
    "http": "http,https,tcp,tls,crypto,data",
    "https": "https,tcp,tls,crypto,data",
    "rtsp": "rtsp,rtp,udp,tcp",
    "rtsps": "rtsps,rtp,udp,tcp,tls",
}
AHEAD = 256  # packets read ahead of the event loop
MERGE = 512  # packets looked at to put a badly interleaved file into the order of time
JUMP = 10.0  # seconds: a step between packets of one track that is no pause but a new time line
PROBE = 300  # packets tried until one of a file's tracks gives a decoded frame
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
        """A new connection begins: its stamp `start` is media time `at`."""
        self.start, self.offset, self.end = start, at, None


class Source:
    """An opened source. Made by `open_source`.

    Attributes:
        tracks: the first audio and the first video track, each with a codec context that is ready to decode.
        duration: seconds, None when it is live.
        reconnects: how often a live URL had to be opened again.
        broken: packets that libav called damaged, and skipped.
    """

    def __init__(self, reader: _Reader, session: str, speed: float | None) -> None:
        self._reader = reader
        self._session = session
        self._speed = speed
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

    async def run(self, tap: Callable[[EncodedFrame], None], room: Callable[[], Awaitable[None]], zero: Callable[[], float]) -> None:
        """Give every packet to `tap`, until the source ends.

        Args:
            tap: takes one EncodedFrame; never blocks.
            room: awaited before each frame when the speed is None: so a file read as fast as possible loses nothing.
            zero: `clock.now()` of session time 0.

        Raises:
            SourceError: a URL stopped answering ("no_answer", retryable), or the file cannot be read further ("corrupt").
        """
        packets = self._live_packets(zero) if self.live else self._merged_packets()
        async for packet in packets:
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
            tap(EncodedFrame(self._session, "main", packet.at, arrived, packet.kind, packet.payload, codec, packet.keyframe, packet.gap))

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
        while (packet := await self._reader.take()) is not None:
            if shift is None:
                shift = max(0.0, packet.arrived - zero()) - packet.at
            yield Packet(packet.kind, packet.payload, packet.keyframe, packet.at + shift, packet.due + shift, packet.arrived, packet.gap)

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
    place = _place(url, roots)
    reader = _Reader(place, settings, private_urls, asyncio.get_running_loop())
    reader.start()
    try:
        await asyncio.wait_for(asyncio.shield(reader.opened), 2 * settings.open_seconds + 2.0)
    except TimeoutError:
        reader.stop()
        raise SourceError(f"{shown(url)} did not answer within {settings.open_seconds:g} s", code="no_answer", retryable=True) from None
    except BaseException:
        reader.stop()
        if reader.opened.done():
            await asyncio.to_thread(reader.join)
        raise
    return Source(reader, session, speed)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a source lies: a file's real path, or a URL. `name` is what messages call it, without credentials."""

    scheme: str
    name: str
    path: Path | None = None
    url: str = ""
    host: str = ""
    port: int = 0


def shown(url: str) -> str:
    """A URL as it may stand in messages and logs: without user, password and query."""
    parts = urlsplit(url)
    if parts.scheme not in URL_SCHEMES:
        return url
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"


def _place(url: str, roots: Sequence[Path] | None) -> Place:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise SourceError(f"{url!r} is not a URL", code="bad_scheme") from None
    scheme = parts.scheme.lower()
    if scheme in URL_SCHEMES:
        if not parts.hostname:
            raise SourceError(f"{url!r} names no host", code="bad_scheme")
        default = {"http": 80, "https": 443, "rtsp": 554, "rtsps": 322}[scheme]
        return Place(scheme, shown(url), url=url, host=parts.hostname, port=port or default)
    if scheme not in FILE_SCHEMES:
        raise SourceError(f"sources begin with file:, http:, https:, rtsp: or rtsps:, not {scheme}:", code="bad_scheme")
    if parts.netloc not in ("", "localhost"):
        raise SourceError(f"a file: URL names no host, this one names {parts.netloc}", code="bad_scheme")
    named = unquote(parts.path) if scheme == "file" else url
    if "\0" in named or not named:
        raise SourceError("the source has no usable path", code="bad_scheme")
    path = Path(named).resolve()
    if roots is not None and not any(path.is_relative_to(Path(root).resolve()) for root in roots):
        raise Forbidden(f"{named} does not lie below a folder that was opened for sources (--sources)", code="outside_sources")
    return Place("file", named, path=path)


class _Reader(threading.Thread):
    """The thread of one source: opens it, demuxes it, opens it again."""

    def __init__(self, place: Place, settings: Ingest, private_urls: bool, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(name="source", daemon=True)
        self.tracks: tuple[MediaTrack, ...] = ()
        self.duration: float | None = None
        self.bursts = False  # it comes in bursts (HLS segments): to be paced although it is live
        self.reconnects = 0
        self.broken = 0
        self.opened: asyncio.Future[None] = loop.create_future()
        self.opened.add_done_callback(lambda future: future.cancelled() or future.exception())  # never "was never retrieved"
        self._place = place
        self._settings = settings
        self._private_urls = private_urls
        self._loop = loop
        self._stopped = threading.Event()
        self._slots = threading.Semaphore(AHEAD)
        self._packets: deque[Packet | BaseException | None] = deque()
        self._filled = asyncio.Event()
        self._clocks: dict[Kind, TrackClock] = {}

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
                self._tell(tell, SourceError(f"{self._place.name} cannot be read: {type(error).__name__}", code="corrupt"))

    def _tell(self, function: Callable[[Any], None], item: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
            self._loop.call_soon_threadsafe(function, item)

    def _open(self, stack: contextlib.ExitStack) -> Any:
        """Open the container, choose its tracks, fill `tracks` and `duration`."""
        place = self._place
        if place.path is not None:
            _check_file(place.path, place.name)
            container = _open_file(place, stack)
        else:
            container = self._open_url(stack)
        streams, tracks = _tracks(container, place.name)
        if place.path is not None:
            _check_decodable(place, {stream.index for stream in streams})
        duration = container.duration / av.time_base if container.duration and container.duration > 0 else None
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
        known = [float(stream.start_time * stream.time_base) for stream in streams if stream.start_time is not None]
        self._start = min(known) if known else None
        return container

    def _open_url(self, stack: contextlib.ExitStack) -> Any:
        place, limit = self._place, self._settings.open_seconds
        _check_host(place, self._private_urls)
        options = {"protocol_whitelist": PROTOCOLS[place.scheme]}
        if place.scheme.startswith("rtsp"):
            options["rtsp_transport"] = "tcp"
        if place.scheme.startswith("http") and not self._private_urls:
            options["max_redirects"] = "0"  # a redirect would go round the check of the host
        try:
            return stack.enter_context(av.open(place.url, options=options, timeout=(limit, limit)))
        except av.error.HTTPNotFoundError:
            raise SourceError(f"{place.name} does not exist there (404)", code="not_found") from None
        except av.error.HTTPError as error:
            raise SourceError(f"{place.name} was refused: {error.strerror}", code="refused") from None
        except (av.error.InvalidDataError, av.error.DemuxerNotFoundError):
            raise SourceError(f"{place.name} answers, but with nothing that is audio or video", code="corrupt") from None
        except (av.error.FFmpegError, OSError) as error:
            reason = "no answer in time" if isinstance(error, av.error.ExitError) else error.strerror
            raise SourceError(f"{place.name} does not answer ({reason})", code="no_answer", retryable=True) from None

    def _read_on(self, container: Any, stack: contextlib.ExitStack) -> None:
        """Demux to the end; a live URL that breaks off is opened again, and the time goes on."""
        tries, lost_at = 0, None
        while not self._stopped.is_set():
            error: SourceError | None = None
            try:
                before = self._clock_end()
                self._demux(container, lost_at)
                if self._clock_end() != before:
                    tries = 0
            except (av.error.FFmpegError, OSError) as broke:
                error = self._said(broke)
                if self._clock_end() != before:
                    tries = 0
            if self.duration is not None or self._ends or self._stopped.is_set():
                if error is not None:
                    raise error
                return
            lost_at = clock.now() if lost_at is None or tries == 0 else lost_at
            while not self._stopped.is_set():
                if tries >= self._settings.reconnects:
                    if error is None:
                        return  # it ended, and did not come back
                    raise error
                self._stopped.wait(min(LONGEST_WAIT, FIRST_WAIT * 2**tries))
                tries += 1
                stack.close()
                try:
                    container = self._open(stack)
                except SourceError as again:
                    error = again
                    continue
                if self._ends:  # the live stream is over; what is there now is its recording
                    return
                self.reconnects += 1
                break

    def _said(self, broke: Exception) -> SourceError:
        if self._place.path is not None:
            return SourceError(f"{self._place.name} is damaged and cannot be read further", code="corrupt")
        return SourceError(f"{self._place.name} stopped answering", code="no_answer", retryable=True)

    def _clock_end(self) -> float:
        return max((clock_.end or 0.0 for clock_ in self._clocks.values()), default=0.0)

    def _demux(self, container: Any, lost_at: float | None) -> None:
        """Hand over every packet of one connection. `lost_at`: monotonic seconds at which the one before broke off."""
        resumed: dict[Kind, float] | None = None
        if lost_at is not None:
            resumed = {}
        fresh = {stream.type for stream in self._streams}  # tracks whose first packet of this connection has not come
        base: float | None = None
        for packet in _packets(container, self._streams, self):
            if self._stopped.is_set():
                return
            stream, kind = packet.stream, packet.stream.type
            unit = packet.time_base
            stamp = packet.pts if packet.pts is not None else packet.dts
            seconds = None if stamp is None else float(stamp * unit)
            duration = float(packet.duration * unit) if packet.duration else 0.0
            if self._start is None:
                self._start = seconds or 0.0
            payload, gap = bytes(packet), 0.0
            if kind in fresh and resumed is not None and lost_at is not None:
                if base is None:
                    base = self._clock_end() + max(0.0, clock.now() - lost_at)
                    first = seconds if seconds is not None else self._start
                    self._start = first
                track_clock = self._clocks.setdefault(kind, TrackClock(self._start))
                gap = max(0.0, base - (track_clock.end or 0.0))
                track_clock.go_on_at(base, self._start)
                payload = _with_headers(payload, stream)
            fresh.discard(kind)
            track_clock = self._clocks.setdefault(kind, TrackClock(self._start))
            at = track_clock.place(seconds, duration)
            track_clock.due = max(track_clock.due, at + duration if kind == "audio" else at)
            self._slots.acquire()
            if self._stopped.is_set():
                return
            self._tell(self._put, Packet(kind, payload, bool(packet.is_keyframe), at, track_clock.due, clock.now(), gap))


def _packets(container: Any, streams: list[Any], reader: _Reader) -> Any:
    """The container's packets with a payload; damaged ones are skipped and counted, unless nothing else comes."""
    failures = 0
    demuxed = container.demux(streams)
    while failures < 20:
        try:
            packet = next(demuxed, None)
        except av.error.InvalidDataError:
            failures += 1
            reader.broken += 1
            demuxed = container.demux(streams)
            continue
        if packet is None:
            return
        if packet.is_corrupt:
            reader.broken += 1
        if packet.size:
            failures = 0
            yield packet
    raise SourceError(f"{reader._place.name} is damaged and cannot be read further", code="corrupt")


def _with_headers(payload: bytes, stream: Any) -> bytes:
    """The first payload of a new connection, with the parameter sets that a new SDP may have brought, where they fit in band."""
    extra = stream.codec_context.extradata
    if stream.type == "video" and extra and extra.startswith((b"\0\0\1", b"\0\0\0\1")) and not payload.startswith(extra):
        return bytes(extra) + payload
    return payload


def _check_file(path: Path, name: str) -> None:
    try:
        status = path.stat()
    except PermissionError:
        raise SourceError(f"{name} may not be read", code="not_found") from None
    except OSError:
        raise SourceError(f"{name} does not exist", code="not_found") from None
    if not stat.S_ISREG(status.st_mode):
        raise SourceError(f"{name} is not a file", code="not_found")
    if status.st_size == 0:
        raise SourceError(f"{name} is empty (0 bytes)", code="empty")


def _open_file(place: Place, stack: contextlib.ExitStack) -> Any:
    """Open a file through Python, so that libav needs no protocol at all and a playlist inside can name nothing else."""
    assert place.path is not None
    try:
        handle = stack.enter_context(place.path.open("rb"))
        return stack.enter_context(av.open(handle, options={"protocol_whitelist": "none"}))
    except PermissionError:
        raise SourceError(f"{place.name} may not be read", code="not_found") from None
    except (av.error.FFmpegError, ValueError):
        raise SourceError(f"{place.name} is damaged, or no audio or video file", code="corrupt") from None


def _tracks(container: Any, name: str) -> tuple[list[Any], tuple[MediaTrack, ...]]:
    """The first audio and the first video stream that can be decoded; cover pictures are no video."""
    streams: list[Any] = []
    unknown: list[str] = []
    kinds: tuple[Literal["audio", "video"], ...] = ("audio", "video")
    for kind in kinds:
        for stream in container.streams:
            if stream.type != kind or stream.disposition & (Disposition.attached_pic | Disposition.still_image):
                continue
            if stream.codec_context is None:
                unknown.append(kind)
                continue
            streams.append(stream)
            break
    if not streams and unknown:
        raise SourceError(f"{name} uses a codec that is not known here ({' and '.join(unknown)})", code="no_decoder")
    if not streams:
        raise SourceError(f"{name} holds neither audio nor video", code="no_media")
    return streams, tuple(MediaTrack(stream.type, stream.codec_context.codec.name, stream.codec_context) for stream in streams)


def _check_decodable(place: Place, indexes: set[int]) -> None:
    """Decode until one frame comes out: a file of the right shape may still hold rubbish."""
    with contextlib.ExitStack() as stack:
        container = _open_file(place, stack)
        for tried, packet in enumerate(container.demux([stream for stream in container.streams if stream.index in indexes])):
            with contextlib.suppress(av.error.FFmpegError):
                if packet.decode():
                    return
            if tried > PROBE:
                break
    raise SourceError(f"{place.name} holds nothing that can be decoded", code="corrupt")


def _check_host(place: Place, private_urls: bool) -> None:
    """Refuse hosts of private networks, by every address that the name has."""
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except OSError:
        raise SourceError(f"the host {place.host} is not known", code="no_answer", retryable=True) from None
    for *_, address in found:
        if not private_urls and not ipaddress.ip_address(str(address[0]).split("%")[0]).is_global:
            raise Forbidden(f"{place.host} lies in a private network (server.private_urls allows it)", code="private_url")
