"""A strict HLS player of captions: playlists and WebVTT segments by the rules of RFC 8216, or it says no."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urljoin

_TIME = r"(\d\d+):(\d\d):(\d\d\.\d{3})"
_CUE = re.compile(rf"{_TIME} --> {_TIME}\n((?:[^\n]+\n)+)")
_MAP = re.compile(r"WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:00\.000,MPEGTS:(\d+)\n\n")


@dataclass(frozen=True)
class Cue:
    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Segment:
    number: int
    url: str
    seconds: float
    utc: float  # seconds since 1970
    stretch: int  # discontinuities before it


@dataclass
class Playlist:
    target: int = 0
    number: int = 0
    ended: bool = False
    kind: str = ""
    segments: list[Segment] = field(default_factory=list)


def seconds(hours: str, minutes: str, rest: str) -> float:
    return round(3600 * int(hours) + 60 * int(minutes) + float(rest), 3)


def cues_of(text: str) -> list[Cue]:
    """The cues of a segment, which has a map and nothing that is no cue."""
    head = _MAP.match(text)
    assert head, text
    blocks = text[head.end() :]
    found = _CUE.findall(blocks)
    assert "".join(_CUE.sub("", blocks).split()) == "", text
    assert not blocks or blocks.endswith("\n\n"), (
        "a reader of many segments would take the next head for text"
    )
    cues = [Cue(seconds(*cue[:3]), seconds(*cue[3:6]), cue[6].strip()) for cue in found]
    assert all(cue.end > cue.start for cue in cues)
    assert all(one.start <= two.start and one.end <= two.end for one, two in itertools.pairwise(cues))
    return cues


def ticks_of(text: str) -> int:
    """The MPEG-2 timestamp of a segment's map."""
    head = _MAP.match(text)
    assert head, text
    return int(head[1])


def parse(text: str, url: str = "") -> Playlist:
    """A media playlist by the rules: tags in their places, every duration at most the target."""
    lines = text.split("\n")
    assert lines[0] == "#EXTM3U" and lines[-1] == "", text
    found = Playlist()
    duration, utc, stretch = -1.0, -1.0, 0
    for line in lines[1:-1]:
        name, _, value = line.partition(":")
        assert not found.ended, "nothing stands behind the end"
        match name:
            case "#EXT-X-VERSION":
                assert value == "3"
            case "#EXT-X-TARGETDURATION":
                found.target = int(value)
            case "#EXT-X-MEDIA-SEQUENCE":
                found.number = int(value)
            case "#EXT-X-DISCONTINUITY-SEQUENCE":
                assert not found.segments
                stretch = int(value)
            case "#EXT-X-PLAYLIST-TYPE":
                found.kind = value
            case "#EXT-X-DISCONTINUITY":
                stretch += 1
            case "#EXT-X-PROGRAM-DATE-TIME":
                utc = datetime.fromisoformat(value).timestamp()
            case "#EXTINF":
                duration = float(value.removesuffix(","))
                assert 0 < round(duration) <= found.target
            case "#EXT-X-ENDLIST":
                found.ended = True
            case _:
                assert line and not line.startswith("#"), line
                assert duration > 0 and utc > 0
                place = found.number + len(found.segments)
                found.segments.append(Segment(place, urljoin(url, line), duration, utc, stretch))
                utc += duration
                duration = -1.0
    assert found.target and found.segments
    return found


@dataclass
class Player:
    """Polls a playlist, and loads each segment whenever it is listed; fails where a server breaks a rule.

    `load`: a URL's text; None: it is not there.
    """

    load: Callable[[str], str | None]
    url: str
    bodies: dict[int, str] = field(default_factory=dict)  # of every segment ever listed, by number
    newest: Playlist = field(default_factory=Playlist)
    _seen: dict[int, Segment] = field(default_factory=dict)

    def poll(self) -> Playlist:
        text = self.load(self.url)
        assert text is not None
        found = parse(text, self.url)
        before, self.newest = self.newest, found
        if before.segments:
            assert found.target == before.target
            assert found.number >= before.number, "the sequence never goes back"
            assert found.segments[-1].number >= before.segments[-1].number, "nothing is taken back"
            assert found.ended or not before.ended
        for segment in found.segments:
            known = self._seen.setdefault(segment.number, segment)
            assert (known.url, known.seconds, known.stretch) == (
                segment.url,
                segment.seconds,
                segment.stretch,
            )
            assert abs(known.utc - segment.utc) < 0.01
            body = self.load(segment.url)
            assert body is not None, f"{segment.url} is listed and not there"
            assert self.bodies.setdefault(segment.number, body) == body, "a segment was edited"
        return found

    def reload(self) -> None:
        """Load everything that is still there once more: it is what it was."""
        for number, segment in self._seen.items():
            assert self.load(segment.url) in (self.bodies[number], None)

    def shown(self) -> list[Cue]:
        """What a viewer has read: each cue once, in order; it is in every segment that it reaches into."""
        cues: dict[Cue, None] = {}
        for number in sorted(self.bodies):
            cues.update(dict.fromkeys(cues_of(self.bodies[number])))
        ordered = list(cues)
        assert ordered == sorted(ordered, key=lambda cue: cue.start), "cue times are monotone"
        pairs = itertools.pairwise(ordered)
        assert all(one.end <= two.start for one, two in pairs), "no two cues at once"
        return ordered

    def check_places(self, start_of: Callable[[int], float]) -> None:
        """Each cue is in exactly the segments that it reaches into. `start_of`: of one, by its number."""
        for cue in self.shown():
            for number, body in self.bodies.items():
                begin = start_of(number)
                reaches = cue.start < begin + self.newest.target and cue.end > begin
                assert (cue in cues_of(body)) == reaches, (number, cue)
