"""The example players of deploy/ in Chromium: somebody's video with our captions, each in its place."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.async_api import Page, async_playwright

from streamsvc.core import clock
from streamsvc.core.types import Cue, Word
from streamsvc.service import hls_tracks
from streamsvc.service.session import Session
from tests.builders.browser import CHROMIUM, FLAGS
from tests.builders.fake_service import at_the_door
from tests.builders.hls_js import hls_js
from tests.builders.hls_video import hls_video
from tests.builders.internet import Answer, Site, site
from tests.builders.session import Sender

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(
        not CHROMIUM.exists(), reason=f"{CHROMIUM} is not there: install Debian's package chromium"
    ),
]
DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
NEAR = 1.0  # seconds by which a cue may be off its place
EACH = "[...video.textTracks].flatMap((track) => [...track.{} ?? []].map((cue) => {}))"
CUES = EACH.format("cues", "[cue.text, cue.startTime]")
ACTIVE = EACH.format("activeCues", "cue.text")


@dataclass
class Stage:
    """`base`: the address of the session. `origin`: of the web server."""

    session: Session
    base: str
    host: Site
    origin: str
    page: Page

    async def play(self) -> None:
        """Open the page with the video of the web server."""
        master = f"{self.base}/hls/master.m3u8?video={quote(f'{self.origin}/video.m3u8', safe='')}"
        await self.page.goto(f"{self.origin}/player_hls.html#{quote(master, safe='')}")


@pytest.fixture
def script() -> bytes:
    found = hls_js()
    if isinstance(found, str):
        pytest.skip(found)
    return found


@contextlib.asynccontextmanager
async def playing(folder: Path, script: bytes, *, position: float) -> AsyncIterator[Stage]:
    """A live session, a web server with the pages, and a browser."""
    with site("127.0.0.1") as host:
        host.pages = {f"/{page.name}": Answer(page.read_bytes()) for page in DEPLOY.glob("player_*.html")}
        host.pages["/hls.min.js"] = Answer(script)
        for path in host.pages:
            kind = "text/javascript" if path.endswith(".js") else "text/html; charset=utf-8"
            host.pages[path].headers["Content-Type"] = kind  # type: ignore[union-attr]
        origin = f"http://127.0.0.1:{host.port}"
        server = {"private_urls": True, "origins": [origin]}
        async with (
            at_the_door(folder, server=server) as (service, place, _),
            async_playwright() as playwright,
        ):
            browser = await playwright.chromium.launch(
                executable_path=str(CHROMIUM), args=[*FLAGS, "--autoplay-policy=no-user-gesture-required"]
            )
            page = await browser.new_page()
            page.set_default_timeout(60_000)
            session = await service.sessions.create(name="talk")  # now: starting a browser takes its time
            session.media.attach(Sender())
            session.clock.zero = clock.now() - position
            session.clock.advance(position)
            yield Stage(session, f"http://{place}/v1/sessions/talk", host, origin, page)
            await browser.close()


def says(session: Session, start: float) -> None:
    words = (Word("Second", start, start + 0.5), Word(f"{start:g}.", start + 0.5, start + 1.5))
    text = f"Second {start:g}."
    session.dispatch(Cue(session.id, "main", start, 0.0, text, words, 2, True, "en"))


async def until(page: Page, condition: str) -> Any:
    await page.wait_for_function(condition)
    return await page.evaluate(condition)


async def test_hls_js_shows_captions_beside_a_recording_that_began_later(
    tmp_path: Path, script: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hls_tracks, "LINGER", -1.0)
    video = hls_video(tmp_path / "video", 16.0, first=100.0)
    async with playing(tmp_path, script, position=40.0) as stage:
        session, host, page = stage.session, stage.host, stage.page
        for start in range(1, 40, 3):
            says(session, float(start))
        begun = 20.0  # session second at which the video begins
        moment = clock.stamp(session.clock.zero_utc + timedelta(seconds=begun))
        text = video.read_text().replace("#EXTINF", f"#EXT-X-PROGRAM-DATE-TIME:{moment}\n#EXTINF", 1)
        host.pages |= {f"/{file.name}": Answer(file.read_bytes()) for file in video.parent.iterdir()}
        host.pages["/video.m3u8"] = Answer(text.encode())
        session.end("ended")
        await session.over.wait()
        await stage.play()
        expected = {f"Second {start}.": start - begun for start in range(22, 35, 3)}
        shown = f"({CUES}).map((cue) => cue[0])"
        await page.wait_for_function(f"{json.dumps(list(expected))}.every((text) => {shown}.includes(text))")
        places = dict(await page.evaluate(CUES))
        assert {text: places[text] for text in expected} == pytest.approx(expected, abs=0.1)
        await page.evaluate("video.currentTime = 5.4, video.play()")
        assert await until(page, f"({ACTIVE})[0]") == "Second 25."


async def test_hls_js_shows_captions_of_a_live_session_beside_a_live_video(
    tmp_path: Path, script: bytes
) -> None:
    video = hls_video(tmp_path / "video", 60.0, first=1000.0)
    segments = video.read_text().split("#EXTINF")[1:]
    async with playing(tmp_path, script, position=60.0) as stage:
        session, host, page = stage.session, stage.host, stage.page
        host.pages |= {f"/{file.name}": Answer(file.read_bytes()) for file in video.parent.iterdir()}
        begun = datetime.now(UTC) - timedelta(seconds=40.0)  # of the video: 20 s after the session
        for start in range(1, 60, 3):
            says(session, float(start))

        def publish() -> None:
            """The last 12 segments that are over, as a packager lists them."""
            over = min(len(segments) - 1, int((datetime.now(UTC) - begun).total_seconds() // 2))
            first = max(0, over - 12)
            moment = clock.stamp(begun + timedelta(seconds=2 * first))
            head = f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:{first}\n"
            body = "".join(f"#EXTINF{segment}" for segment in segments[first:over])
            text = f"{head}#EXT-X-PROGRAM-DATE-TIME:{moment}\n{body}"
            host.pages["/video.m3u8"] = Answer(text.encode())

        async def going_on() -> None:
            for start in itertools.count(61, 3):  # the talk goes on too
                while session.clock.position() < start + 2.0:
                    publish()
                    await asyncio.sleep(0.5)
                says(session, float(start))

        publish()
        packager = asyncio.create_task(going_on())
        try:
            await stage.play()
            await page.evaluate("video.play()")
            await page.wait_for_function("video.currentTime > 0 && hls.playingDate")
            await page.wait_for_function(f"({CUES}).length >= 4")
            await until(page, f"({ACTIVE})[0]")
            # When hls.js shows each cue, by the dates of the video's own playlist.
            dates = f"{CUES}.map(([text, at]) => [text, +hls.playingDate + 1000 * (at - video.currentTime)])"
            for text, shown_at in await page.evaluate(dates):
                said_at = session.clock.zero_utc + timedelta(seconds=float(text.split()[1].rstrip(".")))
                assert abs(shown_at / 1000 - said_at.timestamp()) < NEAR, text
        finally:
            packager.cancel()
            await asyncio.gather(packager, return_exceptions=True)


async def test_a_plain_track_shows_the_captions_file(tmp_path: Path) -> None:
    async with playing(tmp_path, b"", position=30.0) as stage:
        says(stage.session, 1.0)
        says(stage.session, 4.0)
        captions = quote(f"{stage.base}/captions.vtt", safe="")
        await stage.page.goto(f"{stage.origin}/player_track.html?video=none.mp4#{captions}")
        await stage.page.evaluate("video.textTracks[0].mode = 'showing'")
        await stage.page.wait_for_function(f"({CUES}).length === 2")
        assert await stage.page.evaluate(CUES) == [["Second 1.", 1], ["Second 4.", 4]]
