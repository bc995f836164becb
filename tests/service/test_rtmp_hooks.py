"""The RTMP door: real publishers (ffmpeg) through nginx; what is refused; nothing secret is told."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from streamsvc.core import clock
from streamsvc.service.broadcast_ids import NAME_LENGTH
from streamsvc.service.media_input import State
from streamsvc.service.rtmp_hooks import RtmpDoor
from streamsvc.service.service import Service
from streamsvc.service.session import Session
from tests.builders.clips import clip
from tests.builders.fake_service import at_the_door, serving
from tests.builders.free_ports import free_tcp_port
from tests.builders.session import captioned
from tests.fakes.rtmp_publisher import missing, publishing

KEY = "a-key-of-this-test"
TWO = "two".ljust(NAME_LENGTH, "-")  # with a token that is a JWT nginx would cut its stream key
PATIENCE = 120.0  # seconds for anything, on a machine that does much else
needs_rtmp = pytest.mark.skipif(bool(missing()), reason=missing())


async def comes(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():
            await clock.sleep(0.05)


def live(running: Service, name: str) -> Session | None:
    """The session of a name that has had audio and video."""
    session = running.sessions.by_id.get(running.sessions.resolve(name))
    counts = session.media.ingest() if session is not None else {}
    return session if {"audio", "video"} <= counts.keys() and counts["audio"]["frames"] > 0 else None


async def test_only_nginx_that_knows_the_secret_is_answered_and_only_our_players_are_let_in(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, server={"api_key": KEY}) as running:
        door = RtmpDoor(running, "s3cret", 1935, 1936)
        transport = httpx.ASGITransport(door.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://nginx") as nginx:

            async def asked(path: str, **form: str) -> int:
                return (await nginx.post(path, data=form)).status_code

            ours = {"call": "publish", "name": "studio", "addr": "10.0.0.1", "clientid": "1"}
            assert await asked("/wrong", **ours, token=KEY) == 403
            assert await asked("/s3cret", **ours) == 401
            assert await asked("/s3cret", **ours, token=KEY + "x" * 250) == 400, "nginx may have cut it"
            assert await asked("/s3cret", call="play", name="studio") == 404
            assert await asked("/s3cret", call="update_play", name="studio") == 404
            assert await asked("/s3cret", call="update_publish", clientid="1") == 404
            assert await asked("/s3cret", call="publish_done", clientid="1") == 204
            assert await asked("/s3cret", call="x" * 20_000) == 413
        assert running.sessions.by_id == {}


@needs_rtmp
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_publishers_of_rtmp_are_captioned_side_by_side_take_over_from_themselves_and_are_cut(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    port = free_tcp_port()
    door = f"rtmp://127.0.0.1:{port}/live"

    async def main() -> None:
        seconds = {
            "open_seconds": 60.0,
            "stall_seconds": 60.0,
            "close_seconds": 60.0,
            "resume_seconds": 120.0,
            "takeover_seconds": 3.0,
        }
        tone = clip(tmp_path / "tone.mkv", video=None, audio="pcm_s16le")
        ingest = {"rtmp_listen": f"127.0.0.1:{port}", **seconds}
        async with at_the_door(tmp_path, server={"api_key": KEY}, ingest=ingest) as (
            running,
            _,
            client,
        ):
            client.headers["Authorization"] = f"Bearer {KEY}"
            made = await client.post("/v1/tokens", json={"session": TWO, "may": ["publish"], "short": True})
            token = made.json()["token"]
            async with (
                publishing(f"{door}/one?token={KEY}", tone) as one,
                publishing(f"{door}/{TWO}?token={token}", tone),
            ):
                for wrong in ("one", f"{TWO}?token=wrong", f"three?token={token}", f"one?token={KEY}"):
                    async with publishing(f"{door}/{wrong}") as refused:
                        if wrong == f"one?token={KEY}":
                            await comes(lambda: live(running, "one") is not None)
                        assert await refused.wait() != 0, wrong
                await comes(lambda: live(running, TWO) is not None)
                first = live(running, "one")
                assert first is not None
                assert running.sessions.places.taken == 2
                await asyncio.wait_for(captioned(first), PATIENCE)
                # Its network is gone, and no end of its connection has come: it takes over from itself.
                one.send_signal(signal.SIGSTOP)
                await comes(lambda: first.media.silent_seconds > 3.0)
                old = first.media.publisher
                assert old is not None
                async with publishing(f"{door}/one?token={KEY}", tone) as again:
                    await comes(lambda: first.media.publisher not in (None, old))
                    assert first.state is State.LIVE
                    await comes(lambda: first.media.ingest()["audio"]["frames"] > 0)
                    assert running.sessions.resolve("one") == first.id
                    assert running.sessions.places.taken == 2
                    one.send_signal(signal.SIGCONT)
                    await asyncio.wait_for(one.wait(), PATIENCE)  # nginx was told that it may not go on
                    assert again.returncode is None
                    await client.delete(f"/v1/sessions/{first.id}")
                    await asyncio.wait_for(again.wait(), PATIENCE)

    asyncio.run(main())
    told = capfd.readouterr()
    for secret in (KEY, "token="):
        assert secret not in told.out + told.err
