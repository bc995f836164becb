"""HLS: fetches playlists and segments over HTTP for libav, and knows which segment came when.

libav reads the segments, but does not tell which ones are missing or where a discontinuity is, and it would
fetch every variant. So it opens everything through `Hls.open_nested`, which blocks, in the thread of the source.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import ssl
from collections.abc import Callable, Iterator
from typing import Any, Protocol
from urllib.parse import unquote, unquote_to_bytes, urljoin, urlsplit

import av
import av.error
import httpx
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from streamsvc.core import clock
from streamsvc.core.errors import SourceError
from streamsvc.ingest.playlist import (
    SegmentTimes,
    absolute,
    is_master,
    reduced,
    rendition,
    variants,
)
from streamsvc.ingest.source_policy import PROTOCOLS, Place, check_host

REDIRECTS = 5  # security limit
PLAYLIST_BYTES = 4 << 20  # security limit
FAILURES = 3  # versions of a live playlist in a row that may fail
_TRIES = 2  # of a segment whose server breaks off; one that does not exist is not asked for again
_TIMEOUTS = ("connect", "read", "write", "pool")  # httpx's


class Readable(Protocol):
    """What libav reads from."""

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end. Never raises."""
        ...

    def close(self) -> None:
        """Release it."""
        ...


class Hls:
    """One HLS source over HTTP.

    Args:
        place: of the playlist.
        limit: seconds without an answer after which a request fails.
        private_urls: security limit: whether redirects are followed (they would bypass the check of the host).
        on_damaged: called for each segment that breaks off.
    """

    def __init__(
        self, place: Place, limit: float, private_urls: bool, on_damaged: Callable[[], None]
    ) -> None:
        self._place = place
        self._limit = limit
        self._private_urls = private_urls
        self._on_damaged = on_damaged
        self._transport = httpx.HTTPTransport(verify=ssl.create_default_context())
        self._cookies = httpx.Cookies()
        self._texts: dict[str, str] = {}  # playlists by the URL that libav knows: the newest version
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
        return self._first if self._live else 0.0

    @property
    def end(self) -> float | None:
        """Seconds at which the playlist ends; None: that is not known."""
        return next((times.end for times in self._times.values()), None)

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

    def open(self, stack: contextlib.ExitStack) -> Any:
        """Open it: one variant, with one audio rendition at most.

        Raises:
            Forbidden, SourceError.
        """
        check_host(self._place, self._private_urls)
        stack.callback(self._transport.close)
        url = self._place.url
        text, base = self._playlist(url)
        if is_master(text):
            text = self._choose_variant(text)
        else:
            self._note(url, text)
        self._texts[url] = text
        self._unread.add(url)
        self._live = self.end is None
        options = {
            "protocol_whitelist": PROTOCOLS[self._place.scheme],
            "fpsprobesize": "0",  # the frame rate is not needed; guessing it would delay the pictures by 1.5 s
            "http_persistent": "0",  # libav's own connections, which it does not have here
            "http_multiple": "0",
        }
        began = clock.now()
        name = self._place.name
        try:
            return stack.enter_context(
                av.open(
                    url,
                    format="hls",
                    options=options,
                    timeout=(self._limit, self._limit),
                    io_open=self.open_nested,
                )
            )
        except (av.error.InvalidDataError, av.error.EOFError):
            raise SourceError(f"{name} answers, but not with audio or video", code="corrupt") from None
        except (av.error.FFmpegError, OSError) as error:
            late = isinstance(error, av.error.ExitError) or clock.now() - began >= self._limit
            reason = "no answer in time" if late else error.strerror
            raise SourceError(f"{name} does not answer ({reason})", code="no_answer", retryable=True) from None

    def _choose_variant(self, master: str) -> str:
        """Fetch the playlist of the best variant that there is; return a master playlist of it alone."""
        error: SourceError | None = None
        for variant in variants(master):
            try:
                text, _ = self._playlist(variant.url)
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
        self._times.setdefault(url, SegmentTimes()).update(text)

    # --- what libav asks for ---

    def open_nested(self, url: str, flags: int, options: dict[str, str]) -> Readable:
        """Open a playlist, a segment or a key for libav; PyAV's `io_open`.

        What is missing is empty, so that libav goes on with the next segment.

        Raises:
            SourceError: "refused": another protocol than http. OSError: a live playlist stays away.
        """
        if url in self._texts:
            return io.BytesIO(self._version(url).encode())
        encrypted = url.startswith(("crypto:", "crypto+"))
        url = url[7:] if encrypted else url
        if url.startswith("data:"):
            return io.BytesIO(_embedded(url))
        if urlsplit(url).scheme.lower() not in ("http", "https"):
            raise SourceError(f"{self._place.name} names something that is not http", code="refused")
        first, end = int(options.get("offset", "0")), int(options.get("end_offset", "0"))
        found = ((times, times.asked(url, first)) for times in self._times.values())
        times, segment = next(((times, one) for times, one in found if one is not None), (None, None))
        reader = self._fetched(url, first, end)
        if times is not None and segment is not None:
            times.note(segment, fetched=reader is not None)
        if reader is None:
            return io.BytesIO()
        return _Decrypted(reader, options["key"], options["iv"]) if encrypted else reader

    def _version(self, url: str) -> str:
        """The next version of a playlist; where it cannot be fetched, the one before."""
        if url in self._unread:
            self._unread.discard(url)
            return self._texts[url]
        try:
            self._note(url, self._playlist(url)[0])
            self._failures = 0
        except SourceError:
            self._failures += 1
            if self._failures >= FAILURES or not self._texts[url]:
                raise OSError(f"{self._place.name} stopped answering") from None
        return self._texts[url]

    def _fetched(self, url: str, first: int, end: int) -> _Body | None:
        """The body of a segment; None: it is missing. `first`, `end`: bytes; 0 and 0: all."""
        headers = {"Range": f"bytes={first}-{end - 1 if end else ''}"} if first or end else {}
        for _ in range(_TRIES):
            try:
                response, _ = self._get(url, headers)
            except (SourceError, httpx.HTTPError):
                continue
            if response.status_code in (200, 206):
                skipped = first if response.status_code == 200 else 0
                return _Body(response, skipped, end - first if end else None, self._on_damaged)
            response.close()
            if response.status_code < 500:
                return None
        return None

    # --- HTTP ---

    def _playlist(self, url: str) -> tuple[str, str]:
        """Fetch a playlist; returns it with absolute URLs, and the URL that it came from at last.

        Raises:
            SourceError: "not_found", "refused", "corrupt", or "no_answer" (retryable).
        """
        name = self._place.name
        try:
            response, final = self._get(url, {})
            try:
                status = response.status_code
                body = _limited(response.iter_raw(), PLAYLIST_BYTES) if status == 200 else b""
            finally:
                response.close()
        except httpx.TimeoutException:
            raise SourceError(
                f"{name} does not answer (no answer in time)", code="no_answer", retryable=True
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SourceError(
                f"{name} does not answer ({type(error).__name__})", code="no_answer", retryable=True
            ) from None
        if status in (404, 410):
            raise SourceError(f"{name} does not exist ({status})", code="not_found")
        if status != 200:
            raise SourceError(f"{name} was refused: the server answered {status}", code="refused")
        text = body.decode("utf-8-sig", "replace")
        if not text.startswith("#EXTM3U"):
            raise SourceError(f"{name} answers, but not with audio or video", code="corrupt")
        return absolute(text, final), final

    def _get(self, url: str, headers: dict[str, str]) -> tuple[httpx.Response, str]:
        """Send a request, and follow its redirects. The caller closes the response."""
        for _ in range(REDIRECTS + 1):
            request = self._request(url, headers)
            response = self._transport.handle_request(request)
            response.request = request
            self._cookies.extract_cookies(response)
            target = response.headers.get("location")
            if not response.is_redirect or target is None:
                return response, url
            response.close()
            url = urljoin(url, target)
            if not self._private_urls or urlsplit(url).scheme.lower() not in ("http", "https"):
                raise SourceError(f"{self._place.name} was refused: it redirects", code="refused")
        raise SourceError(f"{self._place.name} was refused: it redirects in a circle", code="refused")

    def _request(self, url: str, headers: dict[str, str]) -> httpx.Request:
        parts = urlsplit(url)
        given = {"User-Agent": "streamsvc", "Accept": "*/*", "Accept-Encoding": "identity", **headers}
        if parts.username is None:  # segments are asked for as the playlist was
            parts = parts._replace(netloc=parts.netloc)
            own = urlsplit(self._place.url)
            same = (parts.hostname, parts.port) == (own.hostname, own.port)
            user, password = (own.username, own.password) if same else (None, None)
        else:
            user, password = parts.username, parts.password
        if user is not None:
            pair = f"{unquote(user)}:{unquote(password or '')}".encode()
            given["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        place = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="")
        request = httpx.Request(
            "GET",
            place.geturl(),
            headers=given,
            extensions={"timeout": dict.fromkeys(_TIMEOUTS, self._limit)},
        )
        self._cookies.set_cookie_header(request)
        return request


class _Body:
    """The body of a response, for libav.

    Args:
        response: open; closed here.
        skipped: bytes at its start that were not asked for.
        length: bytes to read; None: all.
        on_damaged: called where it breaks off.
    """

    def __init__(
        self, response: httpx.Response, skipped: int, length: int | None, on_damaged: Callable[[], None]
    ) -> None:
        self._response = response
        self._pieces: Iterator[bytes] = response.iter_raw()
        self._rest = b""
        self._skipped = skipped
        self._left = length
        self._on_damaged = on_damaged

    def read(self, size: int) -> bytes:
        """See Readable."""
        if self._left is not None:
            size = min(size, self._left)
        while not self._rest and size > 0:
            try:
                piece = next(self._pieces, None)
            except (httpx.HTTPError, httpx.StreamError, OSError):
                self._on_damaged()
                return b""
            if piece is None:
                return b""
            self._rest = piece[self._skipped :]
            self._skipped = max(0, self._skipped - len(piece))
        data, self._rest = self._rest[:size], self._rest[size:]
        if self._left is not None:
            self._left -= len(data)
        return data

    def close(self) -> None:
        """See Readable."""
        self._response.close()


class _Decrypted:
    """A body encrypted with AES-128 in CBC mode and PKCS #7 padding (RFC 8216, 4.3.2.4). Keys are hexadecimal."""

    def __init__(self, body: _Body, key: str, vector: str) -> None:
        self._body = body
        self._cipher = Cipher(algorithms.AES(bytes.fromhex(key)), modes.CBC(bytes.fromhex(vector))).decryptor()
        self._kept = b""  # decrypted; may end in padding
        self._ended = False

    def read(self, size: int) -> bytes:
        """See Readable."""
        while len(self._kept) <= 16 and not self._ended:
            piece = self._body.read(max(size, 32))
            self._kept += self._cipher.update(piece)
            if not piece:
                self._ended = True
                if self._kept and 1 <= self._kept[-1] <= 16:
                    self._kept = self._kept[: -self._kept[-1]]
        ready = self._kept if self._ended else self._kept[:-16]
        data = ready[:size]
        self._kept = self._kept[len(data) :]
        return data

    def close(self) -> None:
        """See Readable."""
        self._body.close()


def is_playlist(place: Place) -> bool:
    """Whether a URL is known to be a playlist by its name."""
    path = urlsplit(place.url).path.lower()
    return place.scheme in ("http", "https") and path.endswith((".m3u8", ".m3u"))


def _limited(pieces: Iterator[bytes], most: int) -> bytes:
    body = bytearray()
    for piece in pieces:
        body += piece
        if len(body) > most:
            break
    return bytes(body[:most])


def _embedded(url: str) -> bytes:
    """The bytes of a data: URL; none where it is invalid."""
    head, _, data = url.partition(",")
    if not head.endswith(";base64"):
        return unquote_to_bytes(data)
    with contextlib.suppress(binascii.Error, ValueError):
        return base64.b64decode(data)
    return b""
