"""HLS: fetches playlists and segments over HTTP for libav, and knows which segment came when.

libav reads the segments, but does not tell which ones are missing or where a discontinuity is, and it would
fetch every variant. So it opens everything through `Hls.open_nested`, which blocks, in the source's thread.
It knows names for the URLs alone (`url_names`): passwords and tokens stay here.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import chain
from urllib.parse import urlsplit

from streamsvc.core.errors import Forbidden, SourceError, StreamsvcError
from streamsvc.ingest.hls_fetch import Decrypted, Fetcher, embedded
from streamsvc.ingest.playlist import SegmentTimes, is_master, named, reduced, rendition, variants
from streamsvc.ingest.source_policy import Place
from streamsvc.ingest.url_names import UrlNames
from streamsvc.ingest.web_client import Readable

FAILURES = 3  # versions of a live playlist in a row that may fail


class Hls:
    """One HLS source over HTTP.

    Args:
        place: of the playlist.
        limit: seconds without an answer after which a request fails.
        private_urls: security limit: whether hosts of private networks are allowed, in playlists too.
        on_damaged: called for each segment that breaks off.

    Attributes:
        error: a host that was refused, in a playlist or a redirect; None: none was. Nothing more is fetched.
        media_start: media second at which the first segment that was fetched begins; None: not known yet.
    """

    def __init__(
        self, place: Place, limit: float, private_urls: bool, on_damaged: Callable[[], None]
    ) -> None:
        self.media_start: float | None = None
        self.error: StreamsvcError | None = None
        self._place = place
        self._limit = limit
        self._fetcher = Fetcher(place, limit, private_urls, on_damaged)
        # without the password: the fetcher adds it for this host alone
        self._url = (
            urlsplit(place.url)._replace(netloc=urlsplit(place.url).netloc.rpartition("@")[2]).geturl()
        )
        self._names = UrlNames()
        self._texts: dict[str, str] = {}  # playlists by URL: the newest version
        self._named: dict[str, tuple[set[str], set[str]]] = {}  # in the newest version, in the one before
        self._unread: set[str] = set()  # of them, fetched already and not given to libav yet
        self._failures = 0
        self._live = True
        self._times: dict[str, SegmentTimes] = {}  # by URL of the playlist; the variant is the first

    # --- times ---

    @property
    def missing_start(self) -> float:
        """Seconds of a whole recording that are missing at its start."""
        return 0.0 if self._live else self._first

    @property
    def _first(self) -> float:
        return min((times.start for times in self._times.values()), default=0.0)

    @property
    def _zero(self) -> float:
        """Seconds of the playlist at media second 0: a live one is not read from its start."""
        return self._first - (self.media_start or 0.0)

    @property
    def missing_end(self) -> float:
        """The same at its end."""
        return min((times.missing_end for times in self._times.values()), default=0.0)

    @property
    def ended(self) -> bool:
        """Whether no segment will be added."""
        return any(times.ended for times in self._times.values())

    @property
    def missing(self) -> int:
        """Segments that could not be fetched."""
        return sum(times.missing for times in self._times.values())

    def explains(self, at: float) -> bool:
        """Whether segments that are missing explain a step of the stamps to a media second."""
        return any(times.explains(at + self._zero) for times in self._times.values())

    def joint(self, end: float) -> float | None:
        """Media second of the discontinuity at the end of a time line; None: there is none."""
        found = (times.next_region(end + self._zero) for times in self._times.values())
        return next((start - self._zero for start in found if start is not None), None)

    # --- opening ---

    def start(self) -> str:
        """Fetch the playlist, and choose one variant with one audio rendition at most; its name for libav.

        Raises:
            Forbidden, SourceError.
        """
        url = self._url
        text = self._fetcher.playlist(url)
        if is_master(text):
            text = self._choose_variant(text)
        else:
            self._note(url, text)
        self._texts[url] = text
        self._unread.add(url)
        self._live = not self.ended
        return self._names.name(url)

    def close(self) -> None:
        """Close all connections."""
        self._fetcher.close()

    def _choose_variant(self, master: str) -> str:
        """Fetch the playlist of the best variant that there is; return a master playlist of it alone."""
        error: SourceError | None = None
        for variant in variants(master):
            try:
                text = self._fetcher.playlist(variant.url)
            except SourceError as failed:
                error = error or failed
                continue
            self._note(variant.url, text)
            self._unread.add(variant.url)
            sound = rendition(master, variant.group) if variant.group else None
            if sound is not None and sound.url and sound.url != variant.url:
                self._texts[sound.url] = ""
            else:
                sound = None
            return reduced(variant, sound)
        raise error or SourceError(f"{self._place.name} lists no stream", code="no_media")

    def _note(self, url: str, text: str) -> None:
        self._texts[url] = text
        self._named[url] = named(text), self._named.get(url, (set(), set()))[0]
        self._names.keep({*self._texts, *chain.from_iterable(chain.from_iterable(self._named.values()))})
        self._times.setdefault(url, SegmentTimes()).update(text)

    # --- what libav asks for: demuxer.Inputs ---

    def open(self) -> Readable:
        """The playlist itself."""
        return self.open_nested(self._names.name(self._url), 0, {})

    def open_nested(self, url: str, flags: int, options: dict[str, str]) -> Readable:
        """Open a playlist, a segment or a key for libav, by its name; PyAV's `io_open`.

        What is missing is empty, so that libav goes on with the next segment.

        Raises:
            SourceError: "refused": another protocol than http, or in no playlist: libav was taken over.
            OSError: a live playlist stays away.
        """
        encrypted = url.startswith(("crypto:", "crypto+"))
        name = url[7:] if encrypted else url
        if name.startswith("data:"):
            return io.BytesIO(embedded(name))
        known = self._names.url(name)
        if known is None:
            raise SourceError(f"{self._place.name} names nothing like that", code="refused")
        if known in self._texts:
            return io.BytesIO(self._names.text(self._version(known)).encode())
        return self._segment(known, options, encrypted=encrypted)

    def _segment(self, url: str, options: dict[str, str], *, encrypted: bool) -> Readable:
        """Open a segment or a key. Raises SourceError: its URL has another protocol than http."""
        if urlsplit(url).scheme.lower() not in ("http", "https"):
            raise SourceError(f"{self._place.name} names something that is not http", code="refused")
        first, end = int(options.get("offset", "0")), int(options.get("end_offset", "0"))
        found = ((times, times.asked(url, first)) for times in self._times.values())
        times, segment = next(((times, one) for times, one in found if one is not None), (None, None))
        reader = self._body(url, first, end)
        if times is not None and segment is not None:
            times.note(segment, fetched=reader is not None)
        if reader is None:
            return io.BytesIO()
        return Decrypted(reader, options["key"], options["iv"]) if encrypted else reader

    def _body(self, url: str, first: int, end: int) -> Readable | None:
        if self.error is None:
            try:
                return self._fetcher.body(url, first, end)
            except Forbidden as refusal:
                self.error = refusal
        return None

    def _version(self, url: str) -> str:
        """The next version of a playlist; where it cannot be fetched, the one before."""
        if url in self._unread:
            self._unread.discard(url)
            return self._texts[url]
        try:
            if self.error is None:
                self._note(url, self._fetcher.playlist(url))
            self._failures = 0
        except Forbidden as refusal:
            self.error = refusal
        except SourceError:
            self._failures += 1
            if self._failures >= FAILURES or not self._texts[url]:
                raise OSError(f"{self._place.name} stopped answering") from None
        return self._texts[url] if self.error is None else f"{self._texts[url]}\n#EXT-X-ENDLIST\n"


def is_playlist(place: Place) -> bool:
    """Whether a URL is known to be a playlist by its name."""
    path = urlsplit(place.url).path.lower()
    return place.scheme in ("http", "https") and path.endswith((".m3u8", ".m3u"))


def looks_like_playlist(head: bytes) -> bool:
    """Whether a medium is a playlist by its first bytes."""
    return head.removeprefix(b"\xef\xbb\xbf").startswith(b"#EXTM3U")
