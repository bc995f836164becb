"""Captions in players: playlists and segments over HTTP, their signed addresses, and beside a video."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from streamsvc.core import clock
from streamsvc.core.types import Cue, Speech, Translation, Word
from streamsvc.events.hls_captions import LEAD, SECONDS, start_of
from streamsvc.service import hls_tracks
from streamsvc.service.session import Session
from tests.builders.fake_service import at_the_door
from tests.builders.hls import Player, cues_of, parse, ticks_of
from tests.builders.hls_video import hls_video
from tests.builders.internet import Answer, Site, site
from tests.builders.service import error_of
from tests.builders.session import Sender
from tests.builders.spoken import KEY

OWN = {"Authorization": f"Bearer {KEY}"}


def broadcasts(session: Session, position: float) -> None:
    """The session is live, and so many seconds old."""
    session.media.attach(Sender())
    moved(session, position)


def moved(session: Session, position: float) -> None:
    """The session is so many seconds old; when it began stays."""
    zero_utc = session.clock.zero_utc
    session.clock.zero = clock.now() - position
    session.clock.started_utc += zero_utc - session.clock.zero_utc
    session.clock.advance(position)


def says(session: Session, text: str, start: float, language: str = "de", english: str = "") -> None:
    """Two seconds of speech, with a translation if `english` is given."""
    session.dispatch(Speech(session.id, "main", start, 0.0, True))
    event = session.dispatch(
        Cue(session.id, "main", start, 0.0, text, (Word(text, start, start + 2.0),), 1, True, language)
    )
    session.dispatch(Speech(session.id, "main", start + 2.0, 0.0, False))
    if english:
        assert event is not None
        session.dispatch(
            Translation(session.id, "main", start, 0.0, event.id, english, "en", start, start + 2.0)
        )


def loader(place: str, headers: dict[str, str] | None = None) -> Callable[[str], str | None]:
    """Loads as a player does, on a thread."""

    def load(url: str) -> str | None:
        address = url if url.startswith("http") else f"http://{place}{url}"
        try:
            with urllib.request.urlopen(urllib.request.Request(address, headers=headers or {})) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            error.close()
            return None

    return load


@contextlib.asynccontextmanager
async def live(folder: Path, position: float = 40.0) -> AsyncIterator[tuple[Session, str, httpx.AsyncClient]]:
    async with at_the_door(folder, server={"private_urls": True}) as (service, place, client):
        session = await service.sessions.create(name="talk")
        broadcasts(session, position)
        yield session, place, client


async def test_a_player_follows_a_session_to_its_end_and_gets_all_of_it_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with live(tmp_path, 4.0) as (session, place, client):
        base = f"/v1/sessions/{session.id}/hls"
        player = Player(loader(place), f"http://{place}{base}/captions.m3u8")
        await asyncio.to_thread(player.poll)
        for number in range(60):
            says(session, f"Satz <{number}>.", 5.0 * number)
            if number % 10 == 9:
                moved(session, 5.0 * number + 7.0)
                await asyncio.to_thread(player.poll)
        answer = await client.get(f"{base}/captions.m3u8")
        assert (answer.headers["content-type"], answer.headers["cache-control"]) == (
            "application/vnd.apple.mpegurl",
            "max-age=2",
        )
        segment = await client.get(f"{base}/{answer.text.split()[-1]}")
        assert segment.headers["content-type"] == "text/vtt; charset=utf-8"
        assert segment.headers["cache-control"] == "max-age=86400, immutable"
        session.end("ended")
        await session.over.wait()
        await asyncio.to_thread(player.poll)
        assert player.newest.ended
        assert [cue.text for cue in player.shown()] == [f"Satz &lt;{number}&gt;." for number in range(60)]
        player.check_places(start_of)
        await asyncio.to_thread(player.reload)

        monkeypatch.setattr(hls_tracks, "LINGER", -1.0)
        again = Player(loader(place), player.url)
        found = await asyncio.to_thread(again.poll)
        assert (found.kind, found.ended, found.number) == ("VOD", True, 0)
        again.check_places(lambda number: float(SECONDS * number))
        assert [(cue.start, cue.text) for cue in again.shown()] == [
            (cue.start, cue.text) for cue in player.shown()
        ]
        assert (await client.get(player.url)).headers["cache-control"] == "max-age=60"
        assert found.segments[0].utc == pytest.approx(session.clock.zero_utc.timestamp(), abs=0.01)
        for wrong in (f"{base}/00000000/recorded/0.vtt", f"{base}/{session.log.epoch}/recorded/999.vtt"):
            assert error_of(await client.get(wrong)) == (404, "no_segment")
        assert error_of(await client.get(f"{base}/{session.log.epoch}/live/999.vtt")) == (404, "no_segment")


async def test_each_language_has_its_own_segments(tmp_path: Path) -> None:
    async with live(tmp_path) as (session, place, client):
        says(session, "Guten Tag.", 1.0, english="Good day.")
        says(session, "Well.", 4.5, "en")
        says(session, "Ja.", 13.0)
        url = f"http://{place}/v1/sessions/talk/hls/captions.m3u8"
        for lang, texts in (("", ["Guten Tag.", "Well.", "Ja."]), ("en-US", ["Good day.", "Well."])):
            player = Player(loader(place), url + (f"?lang={lang}" if lang else ""))
            await asyncio.to_thread(player.poll)
            assert [cue.text for cue in player.shown()] == texts
        assert error_of(await client.get(f"{url}?lang=xx")) == (400, "unknown_language")


async def test_before_the_first_media_nothing_is_settled_for_the_clock_may_begin_anew(tmp_path: Path) -> None:
    async with at_the_door(tmp_path) as (service, _, client):
        session = await service.sessions.create(name="talk")
        moved(session, 500.0)
        listed = parse((await client.get("/v1/sessions/talk/hls/captions.m3u8")).text)
        assert [one.number for one in listed.segments] == list(range(LEAD))


async def test_one_signature_opens_the_playlist_and_its_segments_and_nothing_else(tmp_path: Path) -> None:
    async with at_the_door(tmp_path, server={"api_key": KEY}) as (service, place, client):
        session = await service.sessions.create(name="talk")
        broadcasts(session, 40.0)
        path = f"/v1/sessions/{session.id}/hls"
        assert (await client.get(f"{path}/captions.m3u8")).status_code == 401
        token = (await client.post("/v1/tokens", json={"session": "talk"}, headers=OWN)).json()
        viewer = {"Authorization": f"Bearer {token['token']}"}
        made = await client.post(path, json={}, headers=viewer)
        assert (made.status_code, made.json()["master_url"]) == (201, None)
        url = made.json()["captions_url"]
        player = Player(loader(place), f"http://{place}{url}")
        assert (await asyncio.to_thread(player.poll)).segments[-1].number > LEAD
        query = urlsplit(url).query
        assert (await client.get(f"/v1/sessions/{session.id}/captions.vtt?{query}")).status_code == 401
        assert (await client.get(f"{path}/master.m3u8?video=http://x/y.m3u8&{query}")).status_code == 401
        with_header = await client.get(f"{path}/captions.m3u8", headers=viewer)
        assert "sig=" not in with_header.text
        await client.delete(f"/v1/tokens/{token['jti']}", headers=OWN)
        assert (await client.get(url)).status_code == 401, "what a token has made ends with it"


@contextlib.contextmanager
def hosting(folder: Path, text: str | None = None) -> Iterator[tuple[Site, str]]:
    """A web server with a video's files; `text`: its playlist. Yields it and the playlist's URL."""
    with site("127.0.0.1") as host:
        for file in folder.iterdir():
            host.pages[f"/{file.name}"] = Answer(file.read_bytes())
        if text is not None:
            host.pages["/video.m3u8"] = Answer(text.encode())
        yield host, f"http://127.0.0.1:{host.port}/video.m3u8"


async def test_a_video_must_be_named_by_who_may_publish_and_its_signature_is_for_it_alone(
    tmp_path: Path,
) -> None:
    video = hls_video(tmp_path / "video", 4.0)
    with hosting(video.parent) as (host, url):
        server = {"api_key": KEY, "private_urls": True}
        async with at_the_door(tmp_path, server=server) as (service, _, client):
            session = await service.sessions.create(name="talk")
            broadcasts(session, 40.0)
            path = f"/v1/sessions/{session.id}/hls"
            made = await client.post("/v1/tokens", json={"session": "talk"}, headers=OWN)
            viewer = {"Authorization": f"Bearer {made.json()['token']}"}
            assert (await client.post(path, json={"video": url}, headers=viewer)).status_code == 403
            refused = await client.get(f"{path}/master.m3u8", params={"video": url}, headers=viewer)
            assert (refused.status_code, host.asked) == (403, [])
            made = await client.post(path, json={"video": url, "offset": 1.5}, headers=OWN)
            master = made.json()["master_url"]
            other = f"http://127.0.0.1:{host.port}/other.m3u8"
            for changed in (
                master.replace("video.m3u8", "other.m3u8"),
                f"{master}&video={other}",
                master.replace("offset=1.500", "offset=2.000"),
                master.replace("?", f"?video={other}&"),
                master.replace("&exp=", f"&video={other}&exp="),
            ):
                assert (await client.get(changed)).status_code == 401
            assert host.asked == []
            answer = await client.get(master)
            assert answer.status_code == 200
            uri = captions_of(answer.text)
            assert (await client.get(uri)).status_code == 200, "it is signed as well"
            assert answer.text.rstrip().endswith(url)


async def test_the_address_of_a_video_goes_through_the_policy_of_sources(tmp_path: Path) -> None:
    async with at_the_door(tmp_path) as (service, _, client):
        await service.sessions.create(name="talk")
        path = "/v1/sessions/talk/hls/master.m3u8"
        for video, expected in (
            ("http://127.0.0.1:1/video.m3u8", (403, "private_url")),
            ("http://169.254.169.254/latest", (403, "private_url")),
            ("http://user:word@127.0.0.1/video.m3u8", (422, "bad_scheme")),
            ("file:/etc/passwd", (400, "bad_request")),
            ('http://x/"\n#EXT', (400, "bad_request")),
            ("http://x/" + "a" * 5000, (400, "bad_request")),
        ):
            assert error_of(await client.get(path, params={"video": video})) == expected
            if expected[0] == 400:
                made = await client.post("/v1/sessions/talk/hls", json={"video": video})
                assert error_of(made) == expected


def dated(path: Path, moment: str) -> str:
    """A playlist with a date."""
    return path.read_text().replace("#EXTINF", f"#EXT-X-PROGRAM-DATE-TIME:{moment}\n#EXTINF", 1)


def captions_of(master: str) -> str:
    """The address of the captions in a master playlist."""
    return master.split('URI="')[1].split('"')[0]


@pytest.mark.parametrize(("mp4", "first"), [(False, 100.0), (True, 0.0)])
async def test_captions_beside_a_dated_live_video_have_its_timestamps_and_its_time(
    tmp_path: Path, mp4: bool, first: float
) -> None:
    video = hls_video(tmp_path / "video", 6.0, first=first, mp4=mp4)
    async with live(tmp_path) as (session, _, client):
        moment = clock.stamp(session.clock.zero_utc + timedelta(seconds=30))
        text = dated(video, moment).replace("#EXT-X-ENDLIST", "").replace("#EXT-X-PLAYLIST-TYPE:VOD\n", "")
        with hosting(video.parent, text) as (_, url):
            path = f"/v1/sessions/{session.id}/hls/master.m3u8"
            master = (await client.get(path, params={"video": url, "offset": 0.5})).text
        says(session, "Hallo.", 31.0)
        captions = await client.get(captions_of(master))
        listed = parse(captions.text, f"/v1/sessions/{session.id}/hls/captions.m3u8")
        shown = next(one for one in listed.segments if one.number == int(31.0 // SECONDS) + LEAD)
        assert shown.utc == pytest.approx(session.clock.zero_utc.timestamp() + 30.5, abs=0.01)
        body = (await client.get(shown.url)).text
        (cue,) = cues_of(body)
        # Second 31 of the session is shown half a second later: 1.5 s after the video's first picture.
        shown_at = (ticks_of(body) / 90_000 + cue.start) % (2**33 / 90_000)
        assert shown_at == pytest.approx(first + 1.5, abs=0.01)


async def test_captions_beside_a_recording_begin_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hls_tracks, "LINGER", -1.0)
    video = hls_video(tmp_path / "video", 12.0, first=10.0)
    async with live(tmp_path, 20.0) as (session, _, client):
        says(session, "Hallo.", 9.0)
        session.end("ended")
        await session.over.wait()
        for offset, begin in ((0.0, 0.0), (3.0, -3.0)):
            with hosting(video.parent) as (_, url):
                path = f"/v1/sessions/{session.id}/hls/master.m3u8"
                master = (await client.get(path, params={"video": url, "offset": offset})).text
            listed = parse((await client.get(captions_of(master))).text, f"/v1/sessions/{session.id}/hls/x")
            assert sum(one.seconds for one in listed.segments) == pytest.approx(20.0 - begin, abs=0.1)
            shown = [
                (number, ticks_of(body) / 90_000 + cue.start)
                for number, one in enumerate(listed.segments)
                for body in [(await client.get(one.url)).text]
                for cue in cues_of(body)
            ]
            assert {number for number, _ in shown} == {int((9.0 + offset) // SECONDS)}
            assert shown[0][1] == pytest.approx(10.0 + 9.0 + offset, abs=0.01)


async def test_a_live_video_without_dates_needs_an_offset_and_one_of_another_time_is_told(
    tmp_path: Path,
) -> None:
    video = hls_video(tmp_path / "video", 4.0)
    live_text = video.read_text().replace("#EXT-X-ENDLIST", "")
    async with live(tmp_path) as (session, _, client):
        path = f"/v1/sessions/{session.id}/hls/master.m3u8"
        with hosting(video.parent, live_text) as (_, url):
            assert error_of(await client.get(path, params={"video": url})) == (422, "no_date")
            answer = await client.get(path, params={"video": url, "offset": 0})
            assert answer.status_code == 200
        with hosting(video.parent, dated(video, "1999-01-01T00:00:00Z")) as (_, url):
            assert error_of(await client.get(path, params={"video": url})) == (422, "no_overlap")
        with hosting(video.parent, "<html>") as (_, url):
            assert error_of(await client.get(path, params={"video": url})) == (422, "corrupt")


async def test_renditions_are_named_by_what_is_spoken_and_translated(tmp_path: Path) -> None:
    video = hls_video(tmp_path / "video", 4.0)
    async with live(tmp_path) as (session, _, client):
        says(session, "Guten Tag.", 1.0, english="Good day.")
        with hosting(video.parent) as (_, url):
            master = (
                await client.get(f"/v1/sessions/{session.id}/hls/master.m3u8", params={"video": url})
            ).text
        media = [line for line in master.split("\n") if line.startswith("#EXT-X-MEDIA")]
        assert [line.split('LANGUAGE="')[1][:2] for line in media] == ["de", "en"]
        assert ["DEFAULT=YES" in line for line in media] == [True, False]
        assert "lang=en" in media[1] and "lang=" not in media[0]


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not there: install Debian's ffmpeg")
async def test_ffprobe_reads_every_cue_with_its_time(tmp_path: Path) -> None:
    async with live(tmp_path, 40.0) as (session, place, _):
        for number in range(5):
            says(session, f"Satz {number}.", 4.0 + 5.0 * number)
        session.end("ended")
        await session.over.wait()
        command = ["ffprobe", "-v", "error", "-of", "json", "-show_packets", "-show_streams"]
        url = f"http://{place}/v1/sessions/{session.id}/hls/captions.m3u8"
        done = await asyncio.to_thread(subprocess.run, [*command, url], capture_output=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, b"")
        found = json.loads(done.stdout)
        assert [stream["codec_name"] for stream in found["streams"]] == ["webvtt"]
        times = sorted({float(packet["pts_time"]) for packet in found["packets"]})
        assert times == [4.0, 9.0, 14.0, 19.0, 24.0]
        # The text alone: a head of the next segment would be taken for words.
        assert {int(packet["size"]) for packet in found["packets"]} == {len("Satz 0.")}
