"""HTTP client for one host that a user named: checked address, no redirects, no logging.

Built on httpx's transport, not its client: the client logs URLs, and these hold secrets.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping

import httpx

from streamsvc.core import host_policy
from streamsvc.core.errors import StreamsvcError, Unprocessable

_RESPONSE_BYTES = 1024  # read of a response body; security limit
_TIMEOUTS = ("connect", "read", "write", "pool")  # httpx's


def parse_url(url: str) -> httpx.URL | None:
    """A URL to post to, or None: it must be http(s) with a host, without user and fragment."""
    try:
        parsed = httpx.URL(url.strip())
    except httpx.InvalidURL:
        return None
    plain = parsed.scheme in ("https", "http") and not parsed.userinfo and not parsed.fragment
    return parsed if parsed.host and plain and 0 < (parsed.port or 443) < 65536 else None


class HostClient:
    """An HTTP client for one host.

    Args:
        scheme: http or https.
        host: name or address.
        port: TCP; None: the scheme's default.
        private_urls: security limit: whether hosts of private networks are allowed, and plain http with them.
        timeout: seconds for one request.
        verify: certificates to trust; True: the default ones.
    """

    def __init__(
        self,
        scheme: str,
        host: str,
        port: int | None,
        private_urls: bool,
        timeout: float,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self._scheme = scheme
        self._host = host
        self._port = port
        self._private_urls = private_urls
        self._timeout = timeout
        self._addresses: tuple[str, ...] = ()
        self._transport = httpx.AsyncHTTPTransport(
            verify=verify, trust_env=False, limits=httpx.Limits(max_connections=1, keepalive_expiry=30.0)
        )

    async def resolve(self) -> None:
        """Resolve and check the host; all later requests go to these addresses.

        Raises:
            Forbidden: "private_url". Unprocessable: "unknown_host".
        """
        try:
            async with asyncio.timeout(self._timeout):
                self._addresses = await asyncio.to_thread(
                    host_policy.addresses, self._host, self._port or 443, self._private_urls
                )
        except OSError:  # a TimeoutError is one
            raise Unprocessable(f"the host {self._host} is not known", code="unknown_host") from None

    async def request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int | None, str]:
        """Send one request, without retry. Network failures are returned, not raised.

        Args:
            method: POST, GET.
            target: path and query, as they go on the wire.
            headers: beside Host and User-Agent.
            body: of the request.

        Returns:
            The status (None: no response) and the first bytes of the response body as text.
        """
        try:
            async with asyncio.timeout(self._timeout):
                if not self._addresses:
                    await self.resolve()
                response = await self._transport.handle_async_request(
                    self._build(method, target, headers, body)
                )
                try:
                    return response.status_code, await _read_head(response)
                finally:
                    await response.aclose()
        except (TimeoutError, httpx.TransportError, StreamsvcError):
            self._addresses = self._addresses[1:]  # try the next one; after the last one, resolve again
            return None, ""

    async def close(self) -> None:
        """Close the connection."""
        await self._transport.aclose()

    def _build(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> httpx.Request:
        address = self._addresses[0]
        # YouTube shows its ingestion URL with http:. To a public host secrets are sent over https only.
        secure = self._scheme == "https" or any(map(host_policy.is_public, self._addresses))
        port = f":{self._port}" if self._port else ""
        return httpx.Request(
            method,
            f"{'https' if secure else 'http'}://{_bracketed(address)}{port}{target}",
            headers={"Host": _bracketed(self._host) + port, "User-Agent": "streamsvc", **headers},
            content=body,
            extensions={"timeout": dict.fromkeys(_TIMEOUTS, self._timeout), "sni_hostname": self._host},
        )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


async def _read_head(response: httpx.Response) -> str:
    """The first bytes of a response body, as text."""
    head = bytearray()
    async for chunk in response.aiter_raw(_RESPONSE_BYTES):
        head += chunk
        if len(head) >= _RESPONSE_BYTES:
            break
    return head[:_RESPONSE_BYTES].decode("utf-8", "replace")
