"""Captions in other people's master playlists, and where a session lies in their time."""

from __future__ import annotations

import pytest

from streamsvc.events.hls_captions import WRAP
from streamsvc.events.hls_master import GROUP, Rendition, added, aligned, of_one

SPOKEN = Rendition("Captions", "de", "captions.m3u8?mpegts=1", default=True)
ENGLISH = Rendition("Captions (en)", "en", "captions.m3u8?mpegts=1&lang=en")
MASTER = """#EXTM3U
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="x",URI="https://v.example/a.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO="a"
https://v.example/low.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=2,AUDIO="a",SUBTITLES="theirs"
https://v.example/high.m3u8
#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1,URI="https://v.example/i.m3u8"
"""


def test_every_variant_gets_the_captions_in_its_own_group_of_subtitles() -> None:
    lines = added(MASTER, [SPOKEN, ENGLISH]).splitlines()
    ours = [line for line in lines if "TYPE=SUBTITLES" in line]
    assert [line.split('GROUP-ID="')[1].split('"')[0] for line in ours] == [GROUP, GROUP, "theirs", "theirs"]
    first = '#EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO="a",SUBTITLES="captions"'
    assert max(map(lines.index, ours)) < lines.index(first)
    assert '#EXT-X-STREAM-INF:BANDWIDTH=2,AUDIO="a",SUBTITLES="theirs"' in lines
    kept = [line for line in lines if line not in ours and "BANDWIDTH=1,AUDIO" not in line]
    assert kept == [line for line in MASTER.splitlines() if "BANDWIDTH=1,AUDIO" not in line]
    assert ours[0] == (
        '#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="captions",NAME="Captions",LANGUAGE="de",DEFAULT=YES,'
        'AUTOSELECT=YES,FORCED=NO,URI="captions.m3u8?mpegts=1"'
    )


def test_a_media_playlist_becomes_the_one_variant_of_a_master() -> None:
    text = of_one("https://v.example/video.m3u8", [Rendition("Captions", "", "c.m3u8")])
    assert text.splitlines()[-1] == "https://v.example/video.m3u8"
    assert f'SUBTITLES="{GROUP}"' in text.splitlines()[-2]
    assert "LANGUAGE" not in text


@pytest.mark.parametrize(
    ("at", "start", "offset", "zero", "first"),
    [
        (30.0, 0.0, 0.0, -30.0, 30.0),  # the timestamp was at session second 30
        (30.0, 10.0, 0.0, -30.0, 20.0),  # ten seconds behind the start of the playlist
        (30.0, 0.0, 2.0, -28.0, 28.0),  # captions come two seconds later
    ],
)
def test_a_session_lies_in_a_video_by_one_moment_of_it(
    at: float, start: float, offset: float, zero: float, first: float
) -> None:
    found = aligned(100 * 90_000, at, start, offset)
    assert found.mpegts == pytest.approx((100 + zero) * 90_000, abs=1)
    assert found.first == first
    assert 0 <= aligned(0, at, start, offset).mpegts < WRAP, "before the video's zero it wraps"
    assert found.mpegts % 2 == 1, "hls.js takes a timestamp that equals the video's first one for none"
