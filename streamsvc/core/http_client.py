"""Requests to one host that a user names: to an address that was checked, over one connection, without redirects, logged nowhere.

httpx's client is not used, for it logs URLs, and these hold secrets; its transport alone is.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping

import httpx

from streamsvc.core import host_policy
from streamsvc.core.errors import StreamsvcError, Unprocessable

_ANSWER = 1024  # bytes read of an answer; security limit
_SECONDS = ("connect", "read", "write", "pool")  # the time-outs that httpx knows


def read(url: str) -> httpx.URL | None:
    """The URL that somebody names for posts, if it is one: http(s), with a host, and neither a user nor a fragment in it."""
    try:
        found = httpx.URL(url.strip())
    except httpx.InvalidURL:
        return None
    plain = found.scheme in ("https", "http") and not found.userinfo and not found.fragment
    return found if found.host and plain and 0 < (found.port or 443) < 65536 else None


class Outgoing:
    """A way to one host.

    Args:
        scheme, host, port: of its URL; port None: the scheme's own.
        private_urls: security limit: whether hosts of private networks are allowed, and plain http with them.
        timeout: seconds for one request.
        verify: certificates to trust; True: the usual ones.
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
        self._scheme, self._host, self._port = scheme, host, port
        self._private, self._timeout = private_urls, timeout
        self._addresses: tuple[str, ...] = ()
        self._transport = httpx.AsyncHTTPTransport(
            verify=verify, trust_env=False, limits=httpx.Limits(max_connections=1, keepalive_expiry=30.0)
        )

    async def resolve(self) -> None:
        """Find the host's addresses, and check them; requests go to these, so that the name cannot change its mind later.

        Raises:
            Forbidden: "private_url". Unprocessable: "unknown_host".
        """
        try:
            async with asyncio.timeout(self._timeout):
                self._addresses = await asyncio.to_thread(
                    host_policy.addresses, self._host, self._port or 443, self._private
                )
        except OSError:  # a TimeoutError is one
            raise Unprocessable(f"the host {self._host} is not known", code="unknown_host") from None

    async def ask(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int | None, str]:
        """One try; never raises for what the host or the way to it does.

        Args:
            method: POST, GET.
            target: path and query, as they go on the wire.
            headers: beside Host and User-Agent.
            body: of the request.

        Returns:
            The status (None: there was no answer) and the beginning of the answer's text.
        """
        try:
            async with asyncio.timeout(self._timeout):
                if not self._addresses:
                    await self.resolve()
                response = await self._transport.handle_async_request(
                    self._request(method, target, headers, body)
                )
                try:
                    return response.status_code, await _head(response)
                finally:
                    await response.aclose()
        except (TimeoutError, httpx.TransportError, StreamsvcError):
            self._addresses = self._addresses[
                1:
            ]  # the next one, and after the last one the name is asked again
            return None, ""

    async def close(self) -> None:
        """Close the connection."""
        await self._transport.aclose()

    def _request(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> httpx.Request:
        address = self._addresses[0]
        # YouTube shows its URL with http:. A secret goes out in the open to a private network only.
        safe = self._scheme == "https" or any(map(host_policy.is_public, self._addresses))
        port = f":{self._port}" if self._port else ""
        return httpx.Request(
            method,
            f"{'https' if safe else 'http'}://{_bracketed(address)}{port}{target}",
            headers={"Host": _bracketed(self._host) + port, "User-Agent": "streamsvc", **headers},
            content=body,
            extensions={"timeout": dict.fromkeys(_SECONDS, self._timeout), "sni_hostname": self._host},
        )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


async def _head(response: httpx.Response) -> str:
    """The beginning of an answer's body."""
    read = bytearray()
    async for part in response.aiter_raw(_ANSWER):
        read += part
        if len(read) >= _ANSWER:
            break
    return read[:_ANSWER].decode("utf-8", "replace")
