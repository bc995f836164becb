"""Somebody's HLS videos that captions are added to: read once for many players, aligned with a session."""

from __future__ import annotations

import asyncio
from datetime import datetime

from cachetools import TTLCache

from streamsvc.core import clock
from streamsvc.core.config import Settings
from streamsvc.core.errors import SourceError, StreamsvcError, Unprocessable
from streamsvc.events.hls_master import Alignment, aligned
from streamsvc.ingest import source_policy, video_playlist
from streamsvc.ingest.video_playlist import VideoPlaylist

FRESH = 5.0  # seconds that a playlist is used for all who ask for it
_VIDEOS = 64  # in memory at once
_READING = 4  # at once (security limit: each has a thread)
_LIMIT = 5.0  # seconds without an answer, after which a request fails
_DAY = 86_400.0


class Videos:
    """Reads playlists of videos by the client and under the policy of sources.

    Args:
        settings: of the service.
    """

    def __init__(self, settings: Settings) -> None:
        self._private_urls = settings.server.private_urls
        self._read: TTLCache[str, asyncio.Future[VideoPlaylist | StreamsvcError]]
        self._read = TTLCache(_VIDEOS, FRESH, clock.now)
        self._places = asyncio.Semaphore(_READING)

    async def read(self, url: str) -> VideoPlaylist:
        """What is at an address now, or was FRESH seconds ago.

        Raises:
            Forbidden: "private_url". SourceError: as `video_playlist.read`, "bad_scheme".
        """
        reading = self._read.get(url)
        if reading is None:
            reading = self._read[url] = asyncio.ensure_future(self._fetch(url))
        found = await asyncio.shield(reading)
        if isinstance(found, StreamsvcError):
            raise found
        return found

    async def _fetch(self, url: str) -> VideoPlaylist | StreamsvcError:
        """The playlist, or why there is none: whoever asked may be gone."""
        try:
            place = source_policy.locate(url, ())
            if "@" in url.split("/")[2]:
                raise SourceError("a video's address must not hold a password", code="bad_scheme")
            async with self._places:
                return await asyncio.to_thread(video_playlist.read, place, _LIMIT, self._private_urls)
        except StreamsvcError as error:
            return error


def align(video: VideoPlaylist, zero_utc: datetime, position: float, offset: float | None) -> Alignment:
    """Where a session lies in a video.

    By its dates; without them a recording begins with the session, and a live one ends now.

    Args:
        video: as it was read.
        zero_utc: of session second 0.
        position: session seconds of the present, or of the end.
        offset: seconds by which captions are shown later; None: not given.

    Raises:
        Unprocessable: "no_date": a live video without dates, and no offset; "no_overlap".
    """
    anchor, shift = video.anchor, offset or 0.0
    if anchor.utc is not None:
        at = (anchor.utc - zero_utc).total_seconds()
    elif video.ended:
        at = anchor.start
    elif offset is not None:
        at = position - anchor.left
    else:
        raise Unprocessable(
            "this live video has no EXT-X-PROGRAM-DATE-TIME, so nothing tells when it was: give `offset`, "
            "the seconds by which captions are shown later than now",
            code="no_date",
        )
    found = aligned(anchor.mpegts, at, anchor.start, shift)
    length = anchor.start + anchor.left
    # A live video may lag behind a session that has just begun.
    earliest, latest = (-length, position) if video.ended else (-_DAY, position + _DAY)
    if not max(earliest, -_DAY) < found.first < latest:
        raise Unprocessable(
            f"this video begins {found.first:.0f} s after the session, which is {position:.0f} s long: they "
            "do not overlap; with `offset` captions are shown so many seconds later",
            code="no_overlap",
        )
    return found
