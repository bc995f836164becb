"""Opening a container with libav, within limits: what it may open, how long it may wait, which tracks it must have."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

import av
import av.error
from av.stream import Disposition

from streamsvc.core import clock
from streamsvc.core.errors import SourceError
from streamsvc.core.types import MediaTrack
from streamsvc.ingest.source_policy import PROTOCOLS, Place, check_host

RECENT = 8192  # packets remembered: some segments of a playlist
PROBE = 300  # packets tried until one of a file's tracks gives a decoded frame


def open_file(place: Place, stack: contextlib.ExitStack) -> Any:
    """Open a file through Python, so that libav needs no protocol at all and a playlist inside can name nothing else."""
    assert place.path is not None
    try:
        handle = stack.enter_context(place.path.open("rb"))
        return stack.enter_context(av.open(handle, options={"protocol_whitelist": "none"}))
    except PermissionError:
        raise SourceError(f"{place.name} may not be read", code="not_found") from None
    except (av.error.FFmpegError, ValueError):
        raise SourceError(f"{place.name} is damaged, or no audio or video file", code="corrupt") from None


def choose(container: Any, name: str) -> tuple[list[Any], tuple[MediaTrack, ...]]:
    """The first audio and the first video stream that can be decoded; cover pictures are no video."""
    streams: list[Any] = []
    unknown: list[str] = []
    kinds: tuple[Literal["audio", "video"], ...] = ("audio", "video")
    for kind in kinds:
        for stream in container.streams:
            if stream.type != kind or stream.disposition & (
                Disposition.attached_pic | Disposition.still_image
            ):
                continue
            if stream.codec_context is None:
                unknown.append(kind)
                continue
            streams.append(stream)
            break
    if not streams and unknown:
        raise SourceError(
            f"{name} uses a codec that is not known here ({' and '.join(unknown)})", code="no_decoder"
        )
    if not streams:
        raise SourceError(f"{name} holds neither audio nor video", code="no_media")
    return streams, tuple(
        MediaTrack(stream.type, stream.codec_context.codec.name, stream.codec_context) for stream in streams
    )


def check_decodable(place: Place, indexes: set[int]) -> None:
    """Decode until one frame comes out: a file of the right shape may still hold rubbish."""
    with contextlib.ExitStack() as stack:
        container = open_file(place, stack)
        for tried, packet in enumerate(
            container.demux([stream for stream in container.streams if stream.index in indexes])
        ):
            with contextlib.suppress(av.error.FFmpegError):
                if packet.decode():
                    return
            if tried > PROBE:
                break
    raise SourceError(f"{place.name} holds nothing that can be decoded", code="corrupt")


def open_url(place: Place, limit: float, private_urls: bool, stack: contextlib.ExitStack) -> Any:
    """Open a URL; libav gives up after `limit` seconds without an answer, then and at each read.

    `private_urls` (security limit) holds for the host that is named. It does not hold for what libav opens from there: the hosts
    that a playlist names, and an RTSP redirect, which libav follows and cannot be told not to. Nor does it hold for a name whose
    server gives another address a moment later, when libav asks for it again.
    """
    check_host(place, private_urls)
    # The frame rate is not needed, and libav would hold a second and a half of pictures back to guess it.
    options = {"protocol_whitelist": PROTOCOLS[place.scheme], "fpsprobesize": "0"}
    if place.scheme.startswith("rtsp"):
        # TCP loses nothing and opens no port; UDP, from the server's address only, where a camera offers nothing else.
        options["rtsp_flags"] = "prefer_tcp+filter_src"
    if place.scheme.startswith("http") and not private_urls:
        options["max_redirects"] = "0"  # a redirect would go round the check of the host
    began = clock.now()
    try:
        return stack.enter_context(av.open(place.url, options=options, timeout=(limit, limit)))
    except av.error.HTTPNotFoundError:
        raise SourceError(f"{place.name} does not exist there (404)", code="not_found") from None
    except (av.error.HTTPError, av.error.HTTPClientError) as error:  # 5XX and 4XX: PyAV has no class for both
        raise SourceError(f"{place.name} was refused: {error.strerror}", code="refused") from None
    except (av.error.InvalidDataError, av.error.DemuxerNotFoundError):
        if clock.now() - began >= limit:  # so RTSP calls a server that is silent
            raise SourceError(
                f"{place.name} does not answer (no answer in time)", code="no_answer", retryable=True
            ) from None
        raise SourceError(
            f"{place.name} answers, but with nothing that is audio or video", code="corrupt"
        ) from None
    except (av.error.FFmpegError, OSError) as error:
        reason = "no answer in time" if isinstance(error, av.error.ExitError) else error.strerror
        raise SourceError(
            f"{place.name} does not answer ({reason})", code="no_answer", retryable=True
        ) from None


def packets(container: Any, streams: list[Any], name: str, damaged: Callable[[], None]) -> Any:
    """The container's packets with a payload; damaged ones are skipped and counted, unless nothing else comes."""
    failures = 0
    demuxed = container.demux(streams)
    while failures < 20:
        try:
            packet = next(demuxed, None)
        except av.error.InvalidDataError:
            failures += 1
            damaged()
            demuxed = container.demux(streams)
            continue
        if packet is None:
            return
        if packet.is_corrupt:
            damaged()
        if packet.size:
            failures = 0
            yield packet
    raise SourceError(f"{name} is damaged and cannot be read further", code="corrupt")


class Recent:
    """The newest packets of a source, to know them again when they come a second time."""

    def __init__(self) -> None:
        self._known: set[int] = set()
        self._order: deque[int] = deque()

    def add(self, kind: str, stamp: int, payload: bytes) -> bool:
        """Remember a packet; False if it is known already."""
        mark = hash((kind, stamp, payload))
        if mark in self._known:
            return False
        self._known.add(mark)
        self._order.append(mark)
        if len(self._order) > RECENT:
            self._known.discard(self._order.popleft())
        return True


def with_headers(payload: bytes, stream: Any) -> bytes:
    """The first payload of a new connection, with the parameter sets that a new SDP may have brought, where they fit in band."""
    extra = stream.codec_context.extradata
    if (
        stream.type == "video"
        and extra
        and extra.startswith((b"\0\0\1", b"\0\0\0\1"))
        and not payload.startswith(extra)
    ):
        return bytes(extra) + payload
    return payload
