"""Somebody's HLS video as captions need it: its playlist, and which timestamp its pictures have when.

Read by the checked client of sources (hls_fetch.py): whatever a playlist names goes through the host policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from streamsvc.core.errors import SourceError
from streamsvc.ingest.first_timestamp import first_timestamp
from streamsvc.ingest.hls_fetch import Fetcher
from streamsvc.ingest.playlist import attributes, is_master, variants
from streamsvc.ingest.source_policy import Place

_HEAD = 256 << 10  # bytes of a segment that are read, at most: timestamps come first


@dataclass(frozen=True, slots=True)
class Anchor:
    """A moment of the video.

    mpegts: its timestamp, in ticks of 90 kHz. utc: its EXT-X-PROGRAM-DATE-TIME; None: not told. start, left:
    seconds after the playlist's start, and before its end. discontinuity: the number of its stretch.
    """

    mpegts: int
    utc: datetime | None
    start: float
    left: float
    discontinuity: int


@dataclass(frozen=True, slots=True)
class VideoPlaylist:
    """What is at an address. text: a playlist with absolute URLs. ended: nothing will be added."""

    text: str
    master: bool
    ended: bool
    anchor: Anchor


@dataclass(slots=True)
class _Segment:
    url: str
    first: int = 0  # bytes
    length: int = 0  # bytes; 0: to the end
    start: float = 0.0
    duration: float = 0.0
    utc: datetime | None = None
    discontinuity: int = 0
    initial: str = ""  # URL of its EXT-X-MAP
    initial_range: tuple[int, int] = (0, 0)
    encrypted: bool = False


def read(place: Place, limit: float, private_urls: bool) -> VideoPlaylist:
    """Fetch a playlist, and find a moment of its video. Blocking.

    Args:
        place: an http(s) URL.
        limit: seconds without an answer after which a request fails.
        private_urls: security limit: whether hosts of private networks are allowed.

    Raises:
        Forbidden: "private_url". SourceError: as `Fetcher.playlist`; "cannot_align": its segments tell no
            time.
    """
    fetcher = Fetcher(place, limit, private_urls, lambda: None)
    try:
        text = media = fetcher.playlist(place.url)
        if is_master(text):
            found = variants(text)
            if not found:
                raise SourceError(f"{place.name} names no video", code="corrupt")
            media = fetcher.playlist(found[0].url)
        segments, ended = _segments(media)
        if not segments:
            raise SourceError(f"{place.name} has no segments yet", code="no_answer", retryable=True)
        chosen = segments[0] if ended else segments[-1]
        if chosen.encrypted:
            raise SourceError(
                f"{place.name} is encrypted, so captions cannot be aligned", code="cannot_align"
            )
        initial = _head(fetcher, chosen.initial, *chosen.initial_range) if chosen.initial else b""
        mpegts = first_timestamp(_head(fetcher, chosen.url, chosen.first, chosen.length), initial)
        if mpegts is None:
            raise SourceError(f"{place.name} has no timestamps that are known here", code="cannot_align")
        end = segments[-1].start + segments[-1].duration
        anchor = Anchor(mpegts, chosen.utc, chosen.start, end - chosen.start, chosen.discontinuity)
        return VideoPlaylist(text, media is not text, ended, anchor)
    finally:
        fetcher.close()


def _head(fetcher: Fetcher, url: str, first: int, length: int) -> bytes:
    """The first bytes of a segment. Raises SourceError: it is missing."""
    end = first + min(length or _HEAD, _HEAD)
    body = fetcher.body(url, first, end)
    if body is None:
        raise SourceError("a segment of the video cannot be read", code="no_answer", retryable=True)
    try:
        data = b""
        while len(data) < end - first and (piece := body.read(end - first - len(data))):
            data += piece
        return data
    finally:
        body.close()


def _segments(text: str) -> tuple[list[_Segment], bool]:
    """The segments of a media playlist, and whether it has ended."""
    found: list[_Segment] = []
    now = _Segment("")
    after = 0  # bytes: where a range without an offset begins
    for line in map(str.strip, text.splitlines()):
        name, _, value = line.partition(":")
        if name == "#EXTINF":
            now.duration = _seconds(value.partition(",")[0])
        elif name == "#EXT-X-DISCONTINUITY-SEQUENCE":
            now.discontinuity = int(value) if value.isdecimal() else 0
        elif name == "#EXT-X-DISCONTINUITY":
            now.discontinuity += 1
            now.utc = None
        elif name == "#EXT-X-PROGRAM-DATE-TIME":
            now.utc = _moment(value)
        elif name == "#EXT-X-BYTERANGE":
            now.first, now.length = _range(value, after)
            after = now.first + now.length
        elif name == "#EXT-X-MAP":
            given = attributes(line)
            now.initial = given.get("URI", "")
            now.initial_range = _range(given.get("BYTERANGE", ""), 0)
        elif name == "#EXT-X-KEY":
            now.encrypted = attributes(line).get("METHOD", "NONE") != "NONE"
        elif line and not line.startswith("#"):
            now.url = line
            found.append(now)
            now = _Segment(
                "",
                start=now.start + now.duration,
                utc=_later(now.utc, now.duration),
                discontinuity=now.discontinuity,
                initial=now.initial,
                initial_range=now.initial_range,
                encrypted=now.encrypted,
            )
    return found, "#EXT-X-ENDLIST" in text


def _range(value: str, after: int) -> tuple[int, int]:
    """First byte and length of a BYTERANGE."""
    length, _, first = value.partition("@")
    return int(first) if first.isdecimal() else after, int(length) if length.isdecimal() else 0


def _seconds(text: str) -> float:
    try:
        return min(max(0.0, float(text)), 86400.0)
    except ValueError:
        return 0.0


def _moment(text: str) -> datetime | None:
    """A date of a playlist (ISO 8601); one without a zone is taken for UTC. None: it cannot be read."""
    try:
        moment = datetime.fromisoformat(text.strip())
        return moment.astimezone(UTC) if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _later(moment: datetime | None, seconds: float) -> datetime | None:
    try:
        return moment + timedelta(seconds=seconds) if moment is not None else None
    except OverflowError:  # no such year
        return None
