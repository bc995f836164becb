"""Requests go to the address that was checked, follow nothing, and never raise for what the other side does. TLS: test_push.py."""

from __future__ import annotations

from typing import Any

import pytest

from streamsvc.core import host_policy
from streamsvc.core.errors import Forbidden, Unprocessable
from streamsvc.core.http_client import Outgoing
from tests.fakes.http_receiver import Listener, listening


def to(listener: Listener, *, private: bool = True, timeout: float = 2.0) -> Outgoing:
    return Outgoing("http", "127.0.0.1", int(listener.url.rpartition(":")[2]), private, timeout)


async def test_a_request_goes_out_as_it_is_and_its_answer_is_cut() -> None:
    async with listening(200, 503) as listener:
        listener.text = "x" * 5000
        out = to(listener)
        assert await out.ask("POST", "/a?b=%20c&", {"X-Kind": "k"}, b"body") == (200, "x" * 1024)
        assert (await out.ask("GET", "/", {}, b""))[0] == 503
        await out.close()
        target, headers, body = listener.got[0]
        assert (target, headers["X-Kind"], headers["User-Agent"], body) == (
            "/a?b=%20c&",
            "k",
            "streamsvc",
            b"body",
        )
        assert headers["Host"] == listener.url.removeprefix("http://")


async def test_redirects_are_not_followed_and_a_lost_answer_is_none() -> None:
    async with listening(302, None, 200) as listener:
        out = to(listener)
        assert (await out.ask("POST", "/", {}, b""))[0] == 302
        assert await out.ask("POST", "/", {}, b"") == (None, "")
        assert (await out.ask("POST", "/", {}, b""))[0] == 200
        await out.close()
        assert [target for target, _, _ in listener.got] == ["/", "/", "/"]


async def test_private_and_unknown_hosts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening() as listener:
        out = to(listener, private=False)
        with pytest.raises(Forbidden):
            await out.resolve()
        assert await out.ask("POST", "/", {}, b"") == (None, "")
        await out.close()
        assert listener.got == []

    def nowhere(*_: Any) -> Any:
        raise OSError("unknown")

    monkeypatch.setattr(host_policy, "addresses", nowhere)
    out = Outgoing("https", "nobody.invalid", None, True, 1.0)
    with pytest.raises(Unprocessable, match="nobody"):
        await out.resolve()
    await out.close()
