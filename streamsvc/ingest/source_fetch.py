"""A medium behind an http(s) URL as a file that libav reads: it needs no network of its own.

Nothing here raises while libav reads: an exception inside a callback of libav is printed, or lost. What went
wrong is in `error`, to be looked at where reading ended.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from streamsvc.core.errors import SourceError, StreamsvcError
from streamsvc.ingest.source_policy import Place
from streamsvc.ingest.web_client import MISSING, Body, Response, WebClient

AHEAD = 1 << 18  # bytes: a seek of less is read through, not asked for
TRIES = 3  # to go on where a body broke off, in a row


class WebFile:
    """The body behind a URL, for libav: seekable where its server knows byte ranges.

    Args:
        client: closed here.
        on_damaged: called each time that the body breaks off.

    Attributes:
        name: of the file alone.
        length: bytes; None: endless, or not told.
        error: what ended it early; None: nothing.

    Raises:
        Forbidden: "private_url". SourceError: "not_found", "refused", or "no_answer" (retryable).
    """

    def __init__(self, client: WebClient, on_damaged: Callable[[], None]) -> None:
        self.name = PurePosixPath(urlsplit(client.place.url).path).name or "medium"
        self.error: StreamsvcError | None = None
        self._client = client
        self._on_damaged = on_damaged
        self._at = 0  # where libav reads
        self._body_at = 0  # where the body is
        self._tries = 0
        response = self._ask(0)
        if response.status == 416:  # it is empty, or its server takes exception to ranges
            response.close()
            response, _ = client.get(client.place.url, {})
        if response.status not in (200, 206):
            response.close()
            name = client.place.name
            if response.status in MISSING:
                raise SourceError(f"{name} does not exist ({response.status})", code="not_found")
            raise SourceError(f"{name} was refused: the server answered {response.status}", code="refused")
        self._ranges = response.status == 206 or "bytes" in response.headers.get("accept-ranges", "").lower()
        self.length = _total(response)
        self._body = Body(client, response, 0, None, on_damaged)

    def _ask(self, first: int) -> Response:
        return self._client.get(self._client.place.url, {"Range": f"bytes={first}-"})[0]

    def peek(self, size: int) -> bytes:
        """Its first bytes, before anything else is read."""
        head = b""
        while len(head) < size and (piece := self._body.read(size - len(head))):
            head += piece
        self._body.unread(head)
        return head

    def read(self, size: int) -> bytes:
        """See Readable."""
        while self.error is None:
            if self._at != self._body_at and not self._move():
                return b""
            data = self._body.read(size)
            self._at += len(data)
            self._body_at = self._at
            if data:
                self._tries = 0
                return data
            if self._client.late:
                self._fail("does not answer (no answer in time)")
            elif self.length is None or self._at >= self.length:
                return b""  # an endless one that broke off is opened again
            else:
                self._tries += 1
                if not self.seekable() or self._tries >= TRIES or not self._reopen():
                    self._fail("stopped answering")
        return b""

    def _move(self) -> bool:
        """Bring the body to where libav reads; False: it cannot be, or there is nothing."""
        if self.length is not None and self._at >= self.length:
            return False
        ahead = self._at - self._body_at
        while 0 < ahead <= AHEAD and (skipped := self._body.read(ahead)):
            self._body_at += len(skipped)
            ahead -= len(skipped)
        return ahead == 0 or self._reopen()

    def _reopen(self) -> bool:
        """Ask for the body from where libav reads."""
        self._body.close()
        try:
            response = self._ask(self._at)
        except StreamsvcError as error:
            self.error = error
            return False
        if response.status not in (200, 206):
            response.close()
            self._fail("stopped answering")
            return False
        skipped = self._at if response.status == 200 else 0
        self._body = Body(self._client, response, skipped, None, self._on_damaged)
        self._body_at = self._at
        return True

    def _fail(self, how: str) -> None:
        if self.error is None:
            name = self._client.place.name
            self.error = SourceError(f"{name} {how}", code="no_answer", retryable=True)

    def seekable(self) -> bool:
        """Whether any byte can be read."""
        return self._ranges and self.length is not None

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move; returns the position. What lies there is fetched when it is read."""
        base = (0, self._at, self.length or 0)[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """The position."""
        return self._at

    def opened(self) -> None:
        """End the hurry: from here on the limit is that of each read."""
        self._client.hurry(None)

    def close(self) -> None:
        """See Readable."""
        self._body.close()
        self._client.close()


def _total(response: Response) -> int | None:
    """Bytes of the whole file."""
    if response.status == 206:
        found = re.fullmatch(r"bytes 0-\d+/(\d+)", response.headers.get("content-range", "").strip())
        return int(found[1]) if found and not response.encoded else None
    return response.length


def open_input(place: Place, limit: float, private_urls: bool, on_damaged: Callable[[], None]) -> WebFile:
    """Open what is behind an http(s) URL, to be closed; all of opening is to be done within the limit.

    Args:
        place: of the source.
        limit: seconds without an answer after which it fails.
        private_urls: security limit: whether hosts of private networks are allowed.
        on_damaged: called each time that the body breaks off.

    Raises:
        As WebFile.
    """
    client = WebClient(place, limit, private_urls)
    client.hurry(limit)
    try:
        return WebFile(client, on_damaged)
    except BaseException:
        client.close()
        raise
