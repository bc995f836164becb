"""Videos of other people: one request for many players, and where a session lies in them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from streamsvc.core.config import Server, Settings
from streamsvc.core.errors import SourceError, Unprocessable
from streamsvc.ingest.video_playlist import Anchor, VideoPlaylist
from streamsvc.service.hls_video import Videos, align
from tests.builders.hls_video import hls_video
from tests.builders.internet import INSIDE, Answer, site

ZERO = datetime(2026, 1, 1, tzinfo=UTC)


def video(*, utc: float | None = None, ended: bool = False, left: float = 30.0) -> VideoPlaylist:
    """A video whose timestamp 10 s was `utc` seconds after the session began."""
    moment = ZERO + timedelta(seconds=utc) if utc is not None else None
    return VideoPlaylist("", False, ended, Anchor(10 * 90_000, moment, 0.0, left, 0))


async def test_many_players_ask_for_a_video_once_and_are_told_the_same(tmp_path: Path) -> None:
    files = hls_video(tmp_path, 2.0).parent
    with site(INSIDE) as host:
        host.pages = {f"/{file.name}": Answer(file.read_bytes()) for file in files.iterdir()}
        videos = Videos(Settings(server=Server(private_urls=True)))
        url = f"http://{INSIDE}:{host.port}/video.m3u8"
        found = await asyncio.gather(*(videos.read(url) for _ in range(50)))
        assert len({id(one) for one in found}) == 1
        assert [path for path, _ in host.asked] == ["/video.m3u8", "/0.ts"]
        gone = f"http://{INSIDE}:{host.port}/gone.m3u8"
        for _ in range(3):
            with pytest.raises(SourceError) as refused:
                await videos.read(gone)
            assert refused.value.code == "not_found"
        assert len(host.asked) == 3, "a video that is not there is not asked for again and again"


async def test_a_client_that_leaves_takes_nothing_from_the_others(tmp_path: Path) -> None:
    files = hls_video(tmp_path, 2.0).parent
    with site(INSIDE) as host:
        host.pages = {f"/{file.name}": Answer(file.read_bytes()) for file in files.iterdir()}
        videos = Videos(Settings(server=Server(private_urls=True)))
        url = f"http://{INSIDE}:{host.port}/video.m3u8"
        first, second = (asyncio.create_task(videos.read(url)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).ended


def test_a_dated_video_lies_where_its_dates_say() -> None:
    found = align(video(utc=25.0), ZERO, 60.0, None)
    assert found.mpegts == pytest.approx((10 - 25) * 90_000 % (1 << 33), abs=1)
    assert align(video(utc=25.0, ended=True), ZERO, 60.0, 2.0).first == 23.0


def test_without_dates_a_recording_begins_with_the_session_and_a_live_video_ends_now() -> None:
    assert align(video(ended=True), ZERO, 60.0, None).first == 0.0
    assert align(video(), ZERO, 60.0, 0.0).mpegts == pytest.approx((10 - 30) * 90_000 % (1 << 33), abs=1)
    with pytest.raises(Unprocessable) as refused:
        align(video(), ZERO, 60.0, None)
    assert refused.value.code == "no_date"


@pytest.mark.parametrize("utc", [-31.0, 61.0, -(10.0**8), 10.0**9])
def test_a_recording_of_another_time_is_refused(utc: float) -> None:
    with pytest.raises(Unprocessable) as refused:
        align(video(utc=utc, ended=True), ZERO, 60.0, None)
    assert refused.value.code == "no_overlap"
    assert align(video(utc=-29.0, ended=True), ZERO, 60.0, None).first == -29.0
