"""Requests go to the checked address, follow no redirects, and return network failures.

TLS: tests/events/test_caption_push.py.
"""

from __future__ import annotations

from typing import Any

import pytest

from streamsvc.core import host_policy
from streamsvc.core.errors import Forbidden, Unprocessable
from streamsvc.core.http_client import HostClient
from tests.fakes.http_receiver import Listener, listening


def client_of(listener: Listener, *, private: bool = True, timeout: float = 2.0) -> HostClient:
    return HostClient("http", "127.0.0.1", int(listener.url.rpartition(":")[2]), private, timeout)


async def test_a_request_is_sent_verbatim_and_its_response_is_truncated() -> None:
    async with listening(200, 503) as listener:
        listener.text = "x" * 5000
        client = client_of(listener)
        assert await client.request("POST", "/a?b=%20c&", {"X-Kind": "k"}, b"body") == (200, "x" * 1024)
        assert (await client.request("GET", "/", {}, b""))[0] == 503
        await client.close()
        target, headers, body = listener.got[0]
        assert (target, headers["X-Kind"], headers["User-Agent"], body) == (
            "/a?b=%20c&",
            "k",
            "streamsvc",
            b"body",
        )
        assert headers["Host"] == listener.url.removeprefix("http://")


async def test_redirects_are_not_followed_and_a_lost_response_is_none() -> None:
    async with listening(302, None, 200) as listener:
        client = client_of(listener)
        assert (await client.request("POST", "/", {}, b""))[0] == 302
        assert await client.request("POST", "/", {}, b"") == (None, "")
        assert (await client.request("POST", "/", {}, b""))[0] == 200
        await client.close()
        assert [target for target, _, _ in listener.got] == ["/", "/", "/"]


async def test_private_and_unknown_hosts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening() as listener:
        client = client_of(listener, private=False)
        with pytest.raises(Forbidden):
            await client.resolve()
        assert await client.request("POST", "/", {}, b"") == (None, "")
        await client.close()
        assert listener.got == []

    def fail(*_: Any) -> Any:
        raise OSError("unknown")

    monkeypatch.setattr(host_policy, "addresses", fail)
    client = HostClient("https", "nobody.invalid", None, True, 1.0)
    with pytest.raises(Unprocessable, match="nobody"):
        await client.resolve()
    await client.close()
