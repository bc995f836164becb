"""HTTP GET for sources: every host is checked and connected by its address, redirects are followed.

Blocking. Built on httpcore, whose network is replaced here: whatever a URL, a playlist or a redirect names,
`CheckedNetwork` resolves it once, refuses private addresses, and connects to one of those it has checked.
"""

from __future__ import annotations

import base64
import ssl
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol
from urllib.parse import unquote, urljoin, urlsplit

import httpcore
import httpx

from streamsvc.core import clock, host_policy
from streamsvc.core.errors import Forbidden, SourceError
from streamsvc.ingest.source_policy import Place

REDIRECTS = 5  # security limit
COOKIES, COOKIE_CHARACTERS = 50, 16 << 10  # after which none is added (security limit)
MISSING = (404, 410)  # statuses
FAULTS = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError)


class Readable(Protocol):
    """What libav reads from."""

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end, or where it breaks off.

        Raises:
            StreamsvcError: it is refused, or, in the process of a source, our side has closed it.
        """
        ...

    def close(self) -> None:
        """Release it."""
        ...


class UnknownHost(httpcore.ConnectError):
    """The resolver knows no address of a host."""


class CheckedNetwork(httpcore.NetworkBackend):
    """Connects to hosts by addresses that were checked, within a time limit.

    Args:
        private_urls: security limit: whether hosts of private networks are allowed.

    Attributes:
        until: monotonic second at which everything on its connections fails.
    """

    def __init__(self, private_urls: bool) -> None:
        self.until = float("inf")
        self._private_urls = private_urls
        self._system = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect. Raises Forbidden; httpcore.ConnectError, ConnectTimeout."""
        try:
            found = host_policy.addresses(host, port, self._private_urls)
        except OSError:
            raise UnknownHost(f"the host {host} is not known") from None
        error: Exception = UnknownHost(f"the host {host} is not known")
        for number, address in enumerate(found):
            share = self.left(timeout) / (len(found) - number)
            try:
                stream = self._system.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as failed:
                error = failed
                continue
            return _LimitedStream(stream, self)
        raise error

    def left(self, limit: float | None) -> float:
        """Seconds left of a limit. Raises httpcore.ReadTimeout."""
        left = min(self.until - clock.now(), float("inf") if limit is None else limit)
        if left <= 0:
            raise httpcore.ReadTimeout("no answer in time")
        return left


class _LimitedStream(httpcore.NetworkStream):
    """A connection whose reads and writes end with its network's time, however slowly bytes drip."""

    def __init__(self, stream: httpcore.NetworkStream, network: CheckedNetwork) -> None:
        self._stream = stream
        self._network = network
        self._begun = False

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = self._stream.read(max_bytes, self._network.left(timeout))
        if not self._begun and data.startswith(b"ICY "):  # SHOUTcast's name for HTTP
            data = b"HTTP/1.0 " + data[4:]
        self._begun = True
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._network.left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        inner = self._stream.start_tls(ssl_context, server_hostname, self._network.left(timeout))
        return _LimitedStream(inner, self._network)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


class WebClient:
    """HTTP for one source, with its credentials and cookies.

    Args:
        place: of the source.
        limit: seconds without an answer after which a request fails.
        private_urls: security limit: whether hosts of private networks are allowed.
    """

    def __init__(self, place: Place, limit: float, private_urls: bool) -> None:
        self.place = place
        self.limit = limit
        self._network = CheckedNetwork(private_urls)
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl.create_default_context(), network_backend=self._network
        )
        self._cookies = httpx.Cookies()
        self._end = float("inf")

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def hurry(self, seconds: float | None) -> None:
        """End all requests and bodies in some seconds; None: never mind."""
        self._end = float("inf") if seconds is None else clock.now() + seconds

    @property
    def late(self) -> bool:
        """Whether the hurry has ended."""
        return clock.now() >= self._end

    def allow(self) -> None:
        """Give the limit to what comes next."""
        self._network.until = min(self._end, clock.now() + self.limit)

    def get(self, url: str, headers: dict[str, str]) -> tuple[Response, str]:
        """Send a request, and follow its redirects; returns the response, to be closed, and its URL.

        Raises:
            Forbidden: "private_url": a host that is refused. SourceError: "refused": what it redirects to;
                "no_answer" (retryable).
        """
        self.allow()
        name = self.place.name
        for _ in range(REDIRECTS + 1):
            try:
                response = self._send(url, headers)
            except httpcore.TimeoutException:
                raise self._no_answer("no answer in time") from None
            except UnknownHost as error:
                raise SourceError(str(error), code="no_answer", retryable=True) from None
            except FAULTS as error:
                raise self._no_answer(type(error).__name__) from None
            except (httpx.InvalidURL, ValueError):
                raise SourceError(f"{name} leads to an address that is none", code="refused") from None
            target = response.headers.get("location")
            if response.status not in (301, 302, 303, 307, 308) or target is None:
                return response, url
            response.close()
            url = self._redirected(url, target)
        raise SourceError(f"{name} was refused: it redirects in a circle", code="refused")

    def _redirected(self, url: str, target: str) -> str:
        try:
            url = urljoin(url, target)
            scheme = urlsplit(url).scheme.lower()
        except ValueError:
            scheme = ""
        if scheme not in ("http", "https"):
            raise SourceError(
                f"{self.place.name} was refused: it redirects to something that is not http", code="refused"
            )
        return url

    def _no_answer(self, reason: str) -> SourceError:
        return SourceError(f"{self.place.name} does not answer ({reason})", code="no_answer", retryable=True)

    def _send(self, url: str, headers: dict[str, str]) -> Response:
        request = self.request(url, headers)
        parts = request.url
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            answer = self._pool.handle_request(
                httpcore.Request(
                    "GET",
                    httpcore.URL(
                        scheme=parts.raw_scheme, host=parts.raw_host, port=port, target=parts.raw_path
                    ),
                    headers=request.headers.raw,
                    extensions={"timeout": dict.fromkeys(("connect", "read", "write", "pool"), self.limit)},
                )
            )
        except Forbidden as refusal:
            if parts.host == self.place.host:
                raise
            raise Forbidden(
                f"{self.place.name} was refused: it leads to {parts.host}, which lies in a private network"
                " (server.private_urls allows it)",
                code=refusal.code,
            ) from None
        seen = httpx.Response(answer.status, headers=answer.headers, request=request)
        known = [f"{cookie.name}={cookie.value}" for cookie in self._cookies.jar]
        if len(known) < COOKIES and sum(map(len, known)) < COOKIE_CHARACTERS:
            self._cookies.extract_cookies(seen)
        return Response(answer, seen.headers)

    def request(self, url: str, headers: dict[str, str]) -> httpx.Request:
        """A request with the credentials and cookies of its host; the source's are for its origin alone."""
        parts = urlsplit(url)
        given = {"User-Agent": "streamsvc", "Accept": "*/*", "Accept-Encoding": "identity", **headers}
        if parts.username is None:  # segments are asked for as the playlist was
            own = urlsplit(self.place.url)
            same = _origin(url) == _origin(self.place.url)
            user, password = (own.username, own.password) if same else (None, None)
        else:
            user, password = parts.username, parts.password
        if user is not None:
            pair = f"{unquote(user)}:{unquote(password or '')}".encode()
            given["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        place = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="")
        request = httpx.Request("GET", place.geturl(), headers=given)
        self._cookies.set_cookie_header(request)
        return request


def _origin(url: str) -> tuple[str, str | None, int]:
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return scheme, parts.hostname, parts.port or (443 if scheme == "https" else 80)


class Response:
    """A response that is read to its end or closed.

    Attributes:
        encoded: its body is compressed, although that was not asked for.
    """

    def __init__(self, answer: httpcore.Response, headers: httpx.Headers) -> None:
        self.status = answer.status
        self.headers = headers
        self.encoded = headers.get("content-encoding", "identity").lower() != "identity"
        self._answer = answer

    @property
    def length(self) -> int | None:
        """Bytes of its body; None: not told."""
        told = self.headers.get("content-length", "")
        return int(told) if told.isascii() and told.isdigit() and not self.encoded else None

    def pieces(self, size: int = 1 << 16) -> Iterator[bytes]:
        """The body. `size`: of a decompressed piece, at most. Raises FAULTS."""
        assert isinstance(self._answer.stream, Iterable)
        unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32) if self.encoded else None
        for packed in self._answer.stream:
            if unpacker is None:
                yield packed
            else:
                try:
                    while packed and not unpacker.eof:
                        yield unpacker.decompress(packed, size)
                        packed = unpacker.unconsumed_tail
                except zlib.error:
                    raise httpcore.RemoteProtocolError("a compression that is not known") from None

    def close(self) -> None:
        """Close it."""
        self._answer.close()


class Body:
    """The body of a response, for libav.

    Args:
        client: that fetched it.
        response: open; closed here.
        skipped: bytes at its start that were not asked for.
        length: bytes to read; None: all.
        on_damaged: called where it breaks off.
    """

    def __init__(
        self,
        client: WebClient,
        response: Response,
        skipped: int,
        length: int | None,
        on_damaged: Callable[[], None],
    ) -> None:
        self._client = client
        self._response = response
        self._pieces = response.pieces()
        self._rest = b""
        self._skipped = skipped
        self._left = length
        self._on_damaged = on_damaged

    def read(self, size: int) -> bytes:
        """See Readable."""
        if self._left is not None:
            size = min(size, self._left)
        self._client.allow()
        while not self._rest and size > 0:
            try:
                piece = next(self._pieces, None)
            except (*FAULTS, OSError):
                self._on_damaged()
                return b""
            if piece is None:
                return b""
            self._rest = piece[self._skipped :]
            if self._skipped:
                self._skipped = max(0, self._skipped - len(piece))
                self._client.allow()
        data, self._rest = self._rest[:size], self._rest[size:]
        if self._left is not None:
            self._left -= len(data)
        return data

    def unread(self, data: bytes) -> None:
        """Put back what was read last, of a body that is read whole."""
        self._rest = data + self._rest

    def close(self) -> None:
        """See Readable."""
        self._response.close()
