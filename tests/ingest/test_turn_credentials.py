"""Credentials of a TURN server: made of its secret, refused once they have expired."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from streamsvc.core import clock, metrics
from streamsvc.core.config import Ingest, Limits, Turn
from streamsvc.ingest.peer import FrameSink, answer, configured
from streamsvc.ingest.turn_credentials import credentials, links
from tests.builders.turn_server import coturn_command

OFFER = (Path(__file__).parents[1] / "fixtures" / "obs.sdp").read_text()
SECRET = "a-secret-of-a-turn-server"
in_coturn = pytest.mark.skipif(shutil.which("turnserver") is None, reason="no turnserver: install coturn")


def at(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(clock, "utc", lambda: datetime.fromtimestamp(seconds, UTC))


def test_the_name_is_the_end_and_the_password_an_hmac_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, 1_000_000.0)
    made = credentials(Turn(secret=SecretStr(SECRET)), "ann")
    assert made is not None
    name, password = made
    assert name == "1086400:ann"
    expected = hmac.new(SECRET.encode(), name.encode(), hashlib.sha1).digest()
    assert base64.b64decode(password) == expected
    assert credentials(Turn(), "ann") is None


def test_links_name_all_servers_with_the_credentials_of_those_that_take_them() -> None:
    turn = Turn(urls=("turn:turn.example:3478", "turns:turn.example"), secret=SecretStr(SECRET))
    plain, first, second = links(Ingest(ice_servers=("stun:stun.example",), turn=turn), "ann")
    assert plain == '<stun:stun.example>; rel="ice-server"'
    assert first.startswith('<turn:turn.example:3478>; rel="ice-server"; username="')
    assert second.startswith('<turns:turn.example>; rel="ice-server"; username="')
    assert first.endswith('credential-type="password"')
    assert SECRET not in first + second


@contextlib.asynccontextmanager
async def coturn(folder: Path) -> AsyncIterator[int]:
    """Debian's TURN server on 127.0.0.1, which takes credentials of SECRET; yields its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [*coturn_command(folder, "127.0.0.1", port, SECRET), "--allow-loopback-peers"]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                await writer.wait_closed()
                break
            await asyncio.sleep(0.1)
        yield port
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()


async def relays(settings: Ingest) -> int:
    """How many relayed candidates an answer has."""
    sink = FrameSink("s", clock.now(), lambda frame: None, lambda *state: None)
    peer = await answer(OFFER, settings, Limits(), sink, configured(settings, Limits()))
    await peer.close()
    return peer.sdp.split("m=")[1].count(" typ relay")


@in_coturn
async def test_our_own_side_gets_a_relay_and_none_with_what_has_expired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = metrics.ice_server_failures.labels("credentials")._value
    async with coturn(tmp_path) as port:
        turn = Turn(urls=(f"turn:127.0.0.1:{port}",), secret=SecretStr(SECRET))
        settings = Ingest(turn=turn, ice_seconds=5.0)
        assert await relays(settings) == 1
        before = refused.get()
        wrong = settings.model_copy(update={"turn": Turn(urls=turn.urls, secret=SecretStr("another-secret"))})
        assert await relays(wrong) == 0
        at(monkeypatch, 1_000_000.0)  # of 1970
        assert await relays(settings) == 0
        assert refused.get() == before + 2
