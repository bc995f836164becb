"""Fetches the playlists and segments of HLS."""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Callable, Iterator
from urllib.parse import unquote_to_bytes

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from streamsvc.core.errors import SourceError
from streamsvc.ingest.playlist import absolute
from streamsvc.ingest.source_policy import Place
from streamsvc.ingest.web_client import FAULTS, MISSING, Body, Readable, WebClient

PLAYLIST_BYTES = 4 << 20  # security limit
_TRIES = 2  # of a segment whose server breaks off; one that does not exist is not asked for again


class Fetcher:
    """What a source's playlists name, whichever host it is on.

    Args:
        place: of the source.
        limit: seconds without an answer after which a request fails.
        private_urls: security limit: whether hosts of private networks are allowed.
        on_damaged: called for each body that breaks off.
    """

    def __init__(
        self, place: Place, limit: float, private_urls: bool, on_damaged: Callable[[], None]
    ) -> None:
        self._place = place
        self._client = WebClient(place, limit, private_urls)
        self._on_damaged = on_damaged

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def playlist(self, url: str) -> str:
        """Fetch a playlist; returns it with absolute URLs.

        Raises:
            Forbidden: "private_url".
            SourceError: "not_found", "refused", "corrupt", or "no_answer" (retryable).
        """
        name = self._place.name
        response, final = self._client.get(url, {})
        status = response.status
        try:
            body = _first_bytes(response.pieces(), PLAYLIST_BYTES) if status == 200 else b""
        except (*FAULTS, OSError):
            raise SourceError(
                f"{name} does not answer (a playlist breaks off)", code="no_answer", retryable=True
            ) from None
        finally:
            response.close()
        if status in MISSING:
            raise SourceError(f"{name} does not exist ({status})", code="not_found")
        if status != 200:
            raise SourceError(f"{name} was refused: the server answered {status}", code="refused")
        text = body.decode("utf-8-sig", "replace")
        if not text.startswith("#EXTM3U"):
            raise SourceError(f"{name} answers, but not with audio or video", code="corrupt")
        return absolute(text, final)

    def body(self, url: str, first: int, end: int) -> Body | None:
        """Fetch a segment or a key; None: it is missing. `first`, `end`: bytes; 0 and 0: all.

        Raises:
            Forbidden: "private_url".
        """
        headers = {"Range": f"bytes={first}-{end - 1 if end else ''}"} if first or end else {}
        for _ in range(_TRIES):
            try:
                response, _ = self._client.get(url, headers)
            except SourceError:
                continue
            if response.status in (200, 206):
                skipped = first if response.status == 200 else 0
                return Body(self._client, response, skipped, end - first if end else None, self._on_damaged)
            response.close()
            if response.status < 500:
                return None
        return None


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
