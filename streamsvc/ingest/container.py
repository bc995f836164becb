"""Opens media containers with libav, within limits on protocols, waiting times and tracks."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Literal

import av
import av.error
from av.stream import Discard, Disposition

from streamsvc.core import clock
from streamsvc.core.errors import SourceError
from streamsvc.core.types import MediaTrack
from streamsvc.ingest.source_policy import Place

RECENT = 8192  # packets remembered: several segments of a playlist
NO_PICTURE = Disposition.attached_pic | Disposition.still_image
SECONDARY = (
    Disposition.comment
    | Disposition.hearing_impaired
    | Disposition.visual_impaired
    | Disposition.descriptions
    | Disposition.dub
)
# The frame rate is not needed; to guess it, libav would delay the pictures by 1.5 s.
FAST = {"fpsprobesize": "0"}
RTSP_OPTIONS = {"protocol_whitelist": "tcp", "rtsp_transport": "tcp", **FAST}  # security limit
HLS_OPTIONS = {
    "protocol_whitelist": "http,https,crypto,data",  # names only: `io_open` opens them
    "http_persistent": "0",  # libav's own connections, which it does not have here
    "http_multiple": "0",
    "extension_picky": "0",  # segments may have any name: what they name is checked outside
    **FAST,
}
RTMP_OPTIONS = {"protocol_whitelist": "rtmp,tcp", "rtmp_live": "live", **FAST}  # security limit
PROBE = 300  # packets of a file decoded until one frame must have come out


def open_file(place: Place, stack: contextlib.ExitStack) -> Any:
    """Open a file through a Python handle: see `open_bytes`."""
    assert place.path is not None
    try:
        return open_bytes(stack.enter_context(place.path.open("rb")), place.name, stack)
    except PermissionError:
        raise SourceError(f"{place.name} is not readable", code="not_found") from None


def open_bytes(file: Any, name: str, stack: contextlib.ExitStack) -> Any:
    """Open a Python object with `read` and `seek`, with all libav protocols disabled.

    So a playlist inside the file cannot open anything else.
    """
    try:
        return stack.enter_context(av.open(file, options={"protocol_whitelist": "none"}))
    except (av.error.FFmpegError, ValueError):
        raise SourceError(f"{name} is damaged, or not an audio or video file", code="corrupt") from None


def choose(container: Any, name: str) -> tuple[list[Any], tuple[MediaTrack, ...]]:
    """Choose one decodable audio and one video stream; beside audio alone, a cover picture is the video.

    The default one (its disposition), else the first that is no commentary and not made for people who cannot
    see or hear the rest. libav drops the others, and does not fetch what only they need.
    """
    streams: list[Any] = []
    unknown: list[str] = []
    kinds: tuple[Literal["audio", "video"], ...] = ("audio", "video")
    for kind in kinds:
        candidates: list[Any] = []
        for stream in container.streams:
            if stream.type != kind or stream.disposition & NO_PICTURE:
                continue
            if stream.codec_context is None:
                unknown.append(kind)
            else:
                candidates.append(stream)
        if candidates:
            streams.append(min(candidates, key=_rank))
    if [stream.type for stream in streams] == ["audio"]:
        streams += _stills(container)[:1]
    if not streams and unknown:
        raise SourceError(f"{name} uses an unsupported codec ({' and '.join(unknown)})", code="no_decoder")
    if not streams:
        raise SourceError(f"{name} contains neither audio nor video", code="no_media")
    for stream in container.streams:
        if all(stream is not one for one in streams):
            stream.discard = Discard.all
    return streams, tuple(
        MediaTrack(stream.type, stream.codec_context.codec.name, stream.codec_context, _pixel_aspect(stream))
        for stream in streams
    )


def _stills(container: Any) -> list[Any]:
    """The cover pictures that can be decoded, best first: the front, then in the order of the file."""
    stills = [
        stream
        for stream in container.streams
        if stream.type == "video" and stream.codec_context is not None and stream.disposition & NO_PICTURE
    ]
    return sorted(stills, key=lambda stream: "front" not in stream.metadata.get("comment", "").lower())


def _pixel_aspect(stream: Any) -> float | None:
    """The shape of pixels, where a container says another than its bitstream: it is the one to be kept."""
    if stream.type != "video" or stream.sample_aspect_ratio in (None, 0):
        return None
    aspect = stream.sample_aspect_ratio
    return None if aspect == stream.codec_context.sample_aspect_ratio else float(aspect)


def _rank(stream: Any) -> tuple[bool, bool]:
    """Sort key of a stream among those of its kind, the best first."""
    return not stream.disposition & Disposition.default, bool(stream.disposition & SECONDARY)


def differs(track: MediaTrack, other: MediaTrack) -> bool:
    """Whether a track needs another decoder; parameters that come in band need none."""
    if track.codec != other.codec:
        return True
    fresh = bytes(track.context.extradata or b"")
    return fresh != bytes(other.context.extradata or b"") and not fresh.startswith((b"\0\0\1", b"\0\0\0\1"))


def changed_track(packet: Any, track: MediaTrack) -> MediaTrack | None:
    """The track from a packet on, where its parameters are new: of the next one of joined files.

    `track`: so far.
    """
    if not packet.has_sidedata("new_extradata"):
        return None
    fresh = bytes(packet.get_sidedata("new_extradata"))
    if not fresh or fresh == bytes(track.context.extradata or b""):
        return None
    codec = packet.stream.codec_context.codec.name
    context: Any = av.CodecContext.create(codec, "r")
    context.extradata = fresh
    return MediaTrack(packet.stream.type, codec, context)


def check_decodable(container: Any, indexes: set[int], name: str) -> None:
    """Decode until one frame comes out: a well-formed container may still hold garbage."""
    chosen = [stream for stream in container.streams if stream.index in indexes]
    moving = [stream for stream in chosen if not stream.disposition & NO_PICTURE]  # a cover proves none
    for tried, packet in enumerate(container.demux(moving)):
        with contextlib.suppress(av.error.FFmpegError):
            if packet.decode():
                return
        if tried > PROBE:
            break
    raise SourceError(f"{name} contains nothing that can be decoded", code="corrupt")


def open_web(file: Any, name: str, limit: float, stack: contextlib.ExitStack) -> Any:
    """Open a medium behind an http(s) URL, as `open_bytes`."""
    options = {"protocol_whitelist": "none", **FAST}
    return _opened(stack, name, limit, lambda: av.open(file, options=options))


def open_playlist(
    url: str, io_open: Callable[..., Any], name: str, limit: float, stack: contextlib.ExitStack
) -> Any:
    """Open an HLS playlist whose parts come from `io_open`. Time limit as for `open_rtsp`."""
    return _opened(
        stack,
        name,
        limit,
        lambda: av.open(url, format="hls", options=HLS_OPTIONS, timeout=(limit, limit), io_open=io_open),
    )


def open_rtsp(url: str, name: str, limit: float, stack: contextlib.ExitStack) -> Any:
    """Open the URL of a relay (RtspRelay); libav gives up after `limit` seconds without an answer.

    Here and at each read.
    """
    return _opened(stack, name, limit, lambda: av.open(url, options=RTSP_OPTIONS, timeout=(limit, limit)))


def open_rtmp(url: str, name: str, limit: float, stack: contextlib.ExitStack) -> Any:
    """Open the URL of a relay (RtmpRelay). Time limit as for `open_rtsp`."""
    return _opened(
        stack,
        name,
        limit,
        lambda: av.open(url, format="flv", options=RTMP_OPTIONS, timeout=(limit, limit)),
    )


def _opened(stack: contextlib.ExitStack, name: str, limit: float, work: Callable[[], Any]) -> Any:
    """Open a container, and tell what a failure means."""
    began = clock.now()
    try:
        return stack.enter_context(work())
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise _failure(name, error, late=clock.now() - began >= limit) from None


def _failure(name: str, error: Exception, *, late: bool) -> SourceError:
    """The error of a URL that libav could not open."""
    if isinstance(error, av.error.HTTPNotFoundError):
        return SourceError(f"{name} does not exist (404)", code="not_found")
    if isinstance(error, (av.error.HTTPError, av.error.HTTPClientError)):  # 5XX and 4XX: of RTSP too
        return SourceError(f"{name} was refused: {error.strerror}", code="refused")
    content = isinstance(error, (av.error.InvalidDataError, av.error.DemuxerNotFoundError, av.error.EOFError))
    if (content or isinstance(error, ValueError)) and not late:
        return SourceError(f"{name} answers, but not with audio or video", code="corrupt")
    # A silent RTSP server is told as invalid data.
    timed_out = late or isinstance(error, av.error.ExitError)
    reason = "no answer in time" if timed_out or not isinstance(error, OSError) else error.strerror
    return SourceError(f"{name} does not answer ({reason})", code="no_answer", retryable=True)


def packets(container: Any, streams: list[Any], name: str, on_damaged: Callable[[], None]) -> Iterator[Any]:
    """Yield the packets with a payload. Damaged ones are reported, unreadable ones skipped.

    Raises:
        SourceError: "corrupt": 20 unreadable packets in a row.
    """
    failures = 0
    demuxed = container.demux(streams)
    while failures < 20:
        try:
            packet = next(demuxed, None)
        except av.error.InvalidDataError:
            failures += 1
            on_damaged()
            demuxed = container.demux(streams)
            continue
        if packet is None:
            return
        if packet.is_corrupt:
            on_damaged()
        if packet.size:
            failures = 0
            yield packet
    raise SourceError(f"{name} is damaged and cannot be read further", code="corrupt")


class RecentPackets:
    """The newest packets of a source, to recognise repeated ones."""

    def __init__(self) -> None:
        self._known: set[int] = set()
        self._order: deque[int] = deque()

    def add(self, kind: str, stamp: int, payload: bytes) -> bool:
        """Remember a packet; return False if it was known already."""
        digest = hash((kind, stamp, payload))
        if digest in self._known:
            return False
        self._known.add(digest)
        self._order.append(digest)
        if len(self._order) > RECENT:
            self._known.discard(self._order.popleft())
        return True


def with_headers(payload: bytes, track: MediaTrack) -> bytes:
    """Prepend a new connection's parameter sets to its first payload, where they fit in band."""
    extra = bytes(track.context.extradata or b"")
    if track.kind == "video" and extra.startswith((b"\0\0\1", b"\0\0\0\1")) and not payload.startswith(extra):
        return extra + payload
    return payload
