"""Fetches playlists and segments over HTTP, blocking, with a time limit for each answer."""

from __future__ import annotations

import base64
import binascii
import contextlib
import ssl
from collections.abc import Callable, Iterator
from typing import Protocol
from urllib.parse import unquote, unquote_to_bytes, urljoin, urlsplit

import httpx
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from streamsvc.core.errors import SourceError
from streamsvc.ingest.playlist import absolute
from streamsvc.ingest.source_policy import Place

REDIRECTS = 5  # security limit
PLAYLIST_BYTES = 4 << 20  # security limit
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


class Fetcher:
    """HTTP for one source, with its credentials and cookies.

    Built on httpx's transport, not its client: the client logs URLs, and these may hold secrets.

    Args:
        place: of the source.
        limit: seconds without an answer after which a request fails.
        private_urls: security limit: whether redirects are followed; they would bypass the check of the host.
        on_damaged: called for each body that breaks off.
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

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def playlist(self, url: str) -> str:
        """Fetch a playlist; returns it with absolute URLs.

        Raises:
            SourceError: "not_found", "refused", "corrupt", or "no_answer" (retryable).
        """
        name = self._place.name
        try:
            response, final = self._get(url, {})
            try:
                status = response.status_code
                body = _first_bytes(response.iter_raw(), PLAYLIST_BYTES) if status == 200 else b""
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
        return absolute(text, final)

    def body(self, url: str, first: int, end: int) -> Body | None:
        """Fetch a segment or a key; None: it is missing. `first`, `end`: bytes; 0 and 0: all."""
        headers = {"Range": f"bytes={first}-{end - 1 if end else ''}"} if first or end else {}
        for _ in range(_TRIES):
            try:
                response, _ = self._get(url, headers)
            except (SourceError, httpx.HTTPError, httpx.InvalidURL):
                continue
            if response.status_code in (200, 206):
                skipped = first if response.status_code == 200 else 0
                return Body(response, skipped, end - first if end else None, self._on_damaged)
            response.close()
            if response.status_code < 500:
                return None
        return None

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


class Body:
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


class Decrypted:
    """A body encrypted by AES-128 in CBC mode with PKCS #7 padding (RFC 8216, 4.3.2.4); keys in hex."""

    def __init__(self, body: Readable, key: str, vector: str) -> None:
        self._body = body
        self._cipher = Cipher(
            algorithms.AES(bytes.fromhex(key)), modes.CBC(bytes.fromhex(vector))
        ).decryptor()
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


def _first_bytes(pieces: Iterator[bytes], most: int) -> bytes:
    body = bytearray()
    for piece in pieces:
        body += piece
        if len(body) > most:
            break
    return bytes(body[:most])


def embedded(url: str) -> bytes:
    """The bytes of a data: URL; none where it is invalid."""
    head, _, data = url.partition(",")
    if not head.endswith(";base64"):
        return unquote_to_bytes(data)
    with contextlib.suppress(binascii.Error, ValueError):
        return base64.b64decode(data)
    return b""
