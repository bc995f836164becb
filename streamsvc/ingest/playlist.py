"""HLS playlists (RFC 8216): which variant to read, and where each segment lies in time. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urljoin, urlsplit

from streamsvc.core.errors import SourceError

HEIGHT = 720  # pixels: a variant of more is fetched for nothing, keyframes are not larger
ROUNDED = 1.0  # seconds by which a time line may end off its discontinuity, and the next one begins there
NEAR = 3.0  # seconds by which a stamp may differ from the playlist's sum of durations
MOST = 4096  # segments remembered of a live playlist
LINES = 100_000  # of one version of a playlist (security limit)
CHARACTERS = 16 << 20  # of its URLs, once they are absolute (security limit)
_ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"]*"|[^,]*)')
_URI = re.compile(r'URI="([^"]*)"')
_SOUND = ("mp4a", "ac-3", "ec-3", "opus", "flac", "mp3", "alac")


@dataclass(frozen=True, slots=True)
class Variant:
    """One variant of a master playlist."""

    url: str
    line: str  # its EXT-X-STREAM-INF
    bandwidth: int  # bit/s
    height: int  # pixels; 0: not told, or no picture
    sound: bool  # it may have sound
    group: str  # of its audio renditions; "": none

    def rank(self) -> tuple[bool, bool, int, int]:
        """Sort key, the best first: with sound, the largest of at most HEIGHT, then the cheapest."""
        large = self.height > HEIGHT
        return not self.sound, large, self.height if large else -self.height, self.bandwidth


@dataclass(frozen=True, slots=True)
class Rendition:
    """An EXT-X-MEDIA of audio. `url`: "": its sound is in the variant's own segments."""

    group: str
    url: str
    default: bool
    line: str


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment. `start`: seconds since the start of the first playlist that was read."""

    number: int  # media sequence number
    url: str
    offset: int  # bytes; -1: the whole file
    start: float
    duration: float
    region: int  # discontinuities before it


def attributes(line: str) -> dict[str, str]:
    """The attribute list of a tag."""
    return {name: value.strip('"') for name, value in _ATTRIBUTE.findall(line.partition(":")[2])}


def is_master(text: str) -> bool:
    """Whether a playlist lists variants instead of segments."""
    return "#EXT-X-STREAM-INF" in text


def variants(text: str) -> list[Variant]:
    """The variants of a master playlist with absolute URLs, the best first."""
    found: list[Variant] = []
    head = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("#EXT-X-STREAM-INF"):
            head = line
        elif line and not line.startswith("#") and head:
            given = attributes(head)
            codecs = given.get("CODECS", "").lower()
            sound = not codecs or "AUDIO" in given or any(name in codecs for name in _SOUND)
            height = given.get("RESOLUTION", "").lower().partition("x")[2]
            bandwidth = _whole(given.get("BANDWIDTH", ""))
            found.append(Variant(line, head, bandwidth, _whole(height), sound, given.get("AUDIO", "")))
            head = ""
    return sorted(found, key=Variant.rank)


def rendition(text: str, group: str) -> Rendition | None:
    """The audio rendition of a group to be read: the default one, else the first. None: there is none."""
    found: list[Rendition] = []
    for line in map(str.strip, text.splitlines()):
        if not line.startswith("#EXT-X-MEDIA:"):
            continue
        given = attributes(line)
        if given.get("TYPE") == "AUDIO" and given.get("GROUP-ID") == group:
            found.append(Rendition(group, given.get("URI", ""), given.get("DEFAULT") == "YES", line))
    return next((one for one in found if one.default), found[0] if found else None)


def reduced(variant: Variant, sound: Rendition | None) -> str:
    """A master playlist of one variant and at most one audio rendition, with absolute URLs."""
    lines = ["#EXTM3U"]
    head = re.sub(r',?(SUBTITLES|CLOSED-CAPTIONS|VIDEO)=("[^"]*"|[^,]*)', "", variant.line)
    if sound is not None and sound.url:
        lines.append(sound.line)
    else:
        head = re.sub(r',?AUDIO="[^"]*"', "", head)
    return "\n".join([*lines, head, variant.url, ""])


def absolute(text: str, base: str) -> str:
    """A playlist with absolute URLs. `base`: where it came from. Raises SourceError: it is too long."""
    left = CHARACTERS if len(text.splitlines()) <= LINES else -1

    def joined(url: str) -> str:
        nonlocal left
        found = urljoin(base, url)
        if "/." in found:  # libav would ask for it without dots
            found = urljoin(found, urlsplit(found)._replace(scheme="", netloc="").geturl())
        left -= len(found)
        if left < 0:
            raise SourceError("a playlist is too long", code="corrupt")
        return found

    return mapped(text, joined)


def mapped(text: str, change: Callable[[str], str]) -> str:
    """A playlist with other URLs, in its lines and in the attributes of its tags."""
    return "\n".join(
        _URI.sub(lambda found: f'URI="{change(found[1])}"', line)
        if line.startswith("#")
        else change(line.strip())
        if line.strip()
        else ""
        for line in text.splitlines()
    )


def named(text: str) -> set[str]:
    """All URLs of a playlist."""
    lines = [line.strip() for line in text.splitlines()]
    return {line for line in lines if not line.startswith("#")} | set(_URI.findall(text))


def _whole(text: str) -> int:
    return int(text) if text.isdecimal() else 0


@dataclass(slots=True)
class SegmentTimes:
    """Where the segments of one media playlist lie, over all its versions.

    Attributes:
        ended: no segment will be added.
        missing: segments that could not be fetched.
    """

    ended: bool = False
    missing: int = 0
    _first: float | None = None
    _segments: dict[int, Segment] = field(default_factory=dict)  # by number
    _read: list[Segment] = field(default_factory=list)  # those that were fetched, in order
    _asked: int = -1  # number of the last segment that was asked for

    def update(self, text: str) -> None:
        """Take over a version of the playlist, with absolute URLs."""
        number, region, duration, offset = 0, 0, 0.0, -1
        after = 0  # bytes: where a byte range without an offset begins
        for line in map(str.strip, text.splitlines()):
            name, _, value = line.partition(":")
            if name == "#EXT-X-MEDIA-SEQUENCE":
                number = _whole(value)
            elif name == "#EXT-X-DISCONTINUITY-SEQUENCE":
                region = _whole(value)
            elif line == "#EXT-X-DISCONTINUITY":
                region += 1
            elif name == "#EXTINF":
                duration = _seconds(value.partition(",")[0])
            elif name == "#EXT-X-BYTERANGE":
                length, _, start = value.partition("@")
                offset = _whole(start) if start else after
                after = offset + _whole(length)
            elif name == "#EXT-X-ENDLIST":
                self.ended = True
            elif line and not line.startswith("#"):
                if number not in self._segments:
                    start_at = self._start_of(number)
                    self._segments[number] = Segment(number, line, offset, start_at, duration, region)
                number += 1
                offset = -1
        while len(self._segments) > MOST and not self.ended:
            del self._segments[next(iter(self._segments))]

    def _start_of(self, number: int) -> float:
        before = self._segments.get(number - 1)
        if before is None and self._segments:
            before = max(self._segments.values(), key=lambda one: one.number)
            if before.number > number:  # the numbers began again
                self._segments.clear()
                self._asked = -1
        return before.start + before.duration if before is not None else 0.0

    def asked(self, url: str, offset: int) -> Segment | None:
        """The segment that is being asked for; None: something else, such as a key."""
        later = (one for one in self._segments.values() if one.number > self._asked)
        found = next((one for one in later if one.url == url and one.offset in (-1, offset)), None)
        if found is not None:
            self._asked = found.number
        return found

    def note(self, segment: Segment, *, fetched: bool) -> None:
        """Note what came of a segment that was asked for."""
        if not fetched:
            self.missing += 1
            return
        self._first = segment.start if self._first is None else self._first
        self._read.append(segment)
        del self._read[:-MOST]

    @property
    def start(self) -> float:
        """Seconds at which the first segment that was fetched begins; 0: none was."""
        return self._first or 0.0

    @property
    def missing_end(self) -> float:
        """Seconds of the segments behind the last one that was fetched, of a playlist that has ended."""
        if not self.ended or not self._read:
            return 0.0
        return sum(one.duration for one in self._segments.values() if one.number > self._read[-1].number)

    def explains(self, at: float) -> bool:
        """Whether segments that are missing explain a step of the stamps to a time."""
        pairs = zip(self._read, self._read[1:], strict=False)
        return any(
            after.number > before.number + 1 and abs(after.start - at) <= NEAR for before, after in pairs
        )

    def next_region(self, end: float) -> float | None:
        """Where media goes on at the discontinuity at the end of a time line; None: there is none."""
        pairs = [
            (before, after)
            for before, after in zip(self._read, self._read[1:], strict=False)
            if after.region != before.region and after.start > end - NEAR
        ]
        if not pairs:
            return None
        before, after = min(pairs, key=lambda pair: abs(pair[1].start - end))
        if any(end < one.start + one.duration / 2 < after.start for one in self._read):
            return None  # that one comes later: other segments were read before it
        if after.number > before.number + 1 or abs(after.start - end) <= ROUNDED:
            return after.start
        return end  # nothing is missing: the durations in the playlist are rounded


def _seconds(text: str) -> float:
    try:
        return max(0.0, float(text))
    except ValueError:
        return 0.0
