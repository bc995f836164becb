"""Captions added to an HLS video: EXT-X-MEDIA of type SUBTITLES (RFC 8216, 4.3.4.1). Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from streamsvc.events.hls_captions import CLOCK, WRAP

GROUP = "captions"
_BANDWIDTH = 2_000_000  # bit/s: told of a single variant, which no player chooses by
_SUBTITLES = re.compile(r'SUBTITLES="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Rendition:
    """Captions in one language. language: of two or three letters; "": not known. uri: of their playlist."""

    name: str
    language: str
    uri: str
    default: bool = False

    def line(self, group: str) -> str:
        """The EXT-X-MEDIA tag."""
        language = f'LANGUAGE="{self.language}",' if self.language else ""
        default = "YES" if self.default else "NO"
        return (
            f'#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="{group}",NAME="{self.name}",{language}'
            f'DEFAULT={default},AUTOSELECT=YES,FORCED=NO,URI="{self.uri}"'
        )


def of_one(video: str, renditions: Sequence[Rendition]) -> str:
    """A master playlist of a media playlist. `video`: its URL."""
    head = f'#EXT-X-STREAM-INF:BANDWIDTH={_BANDWIDTH},SUBTITLES="{GROUP}"'
    return "\n".join(["#EXTM3U", *(one.line(GROUP) for one in renditions), head, video, ""])


def added(master: str, renditions: Sequence[Rendition]) -> str:
    """A master playlist with captions beside its own subtitles. `master`: with absolute URLs."""
    lines: list[str] = []
    groups: dict[str, None] = {}  # in order
    first = 0  # the place of the first variant
    for line in master.splitlines():
        if line.startswith("#EXT-X-STREAM-INF:"):
            first = first if groups else len(lines)
            found = _SUBTITLES.search(line)
            groups[found[1] if found is not None else GROUP] = None
            line += "" if found is not None else f',SUBTITLES="{GROUP}"'
        lines.append(line)
    lines[first:first] = [one.line(group) for group in groups for one in renditions]
    return "\n".join([*lines, ""])


# --- alignment ---


@dataclass(frozen=True, slots=True)
class Alignment:
    """Where a session lies in the time of a video.

    mpegts: the timestamp at session second 0. first: the session second at which the video's playlist begins.
    """

    mpegts: int
    first: float


def aligned(mpegts: int, at: float, start: float, offset: float) -> Alignment:
    """Where a session lies in a video.

    Args:
        mpegts: a timestamp of the video.
        at: the session second at which that was.
        start: seconds from the playlist's start to that timestamp.
        offset: seconds by which captions are shown later.
    """
    zero = round(mpegts - (at - offset) * CLOCK) % WRAP
    # hls.js takes a timestamp that equals the video's first one for none; those are seldom odd.
    return Alignment(zero | 1, at - offset - start)
