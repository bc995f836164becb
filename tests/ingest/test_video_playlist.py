"""Somebody's HLS video: which moment of it is found, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from streamsvc.core.errors import Forbidden, SourceError
from streamsvc.ingest.source_policy import locate
from streamsvc.ingest.video_playlist import Anchor, VideoPlaylist, read
from tests.builders.hls_video import hls_video
from tests.builders.internet import INSIDE, Answer, internet, site, two_sites

LAST = "9999-12-31T23:59:59Z"  # of all dates
VOD = ("#EXT-X-ENDLIST", "#EXT-X-PLAYLIST-TYPE:VOD\n")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hls_video(tmp_path_factory.mktemp("video"), 6.0, first=100.0)


def fetched(folder: Path, text: str, more: dict[str, str] | None = None) -> VideoPlaylist:
    """What is read of a playlist beside the files of a video."""
    with site(INSIDE) as host:
        host.pages = {f"/{file.name}": Answer(file.read_bytes()) for file in folder.iterdir()}
        host.pages |= {f"/{name}": Answer(other.encode()) for name, other in (more or {}).items()}
        host.pages["/asked.m3u8"] = Answer(text.encode())
        found = read(locate(f"http://{INSIDE}:{host.port}/asked.m3u8", ()), 5.0, True)
        assert all("Range" in headers for path, headers in host.asked if path.endswith(".ts"))
    return found


def live(text: str) -> str:
    return text.replace(VOD[0], "").replace(VOD[1], "")


def test_of_a_recording_the_first_moment_is_found_and_of_a_live_video_the_newest(video: Path) -> None:
    text = video.read_text()
    recorded = fetched(video.parent, text)
    assert (recorded.master, recorded.ended) == (False, True)
    assert recorded.anchor == Anchor(100 * 90_000, None, 0.0, 6.0, 0)
    dated = live(text).replace("#EXTINF", "#EXT-X-PROGRAM-DATE-TIME:2026-01-01T01:00:00+01:00\n#EXTINF", 1)
    newest = fetched(video.parent, dated)
    moment = datetime(2026, 1, 1, 0, 0, 4, tzinfo=UTC)
    assert newest.anchor == Anchor(104 * 90_000, moment, 4.0, 2.0, 0)
    assert not newest.ended


def test_of_a_master_the_best_variant_is_read_and_all_of_it_is_handed_on(video: Path) -> None:
    master = '#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,CODECS="avc1,mp4a"\nvideo.m3u8\n'
    found = fetched(video.parent, master)
    assert found.master and found.anchor.mpegts == 100 * 90_000
    assert found.text.splitlines()[2].startswith(f"http://{INSIDE}:")


def test_stretches_are_counted_and_have_dates_of_their_own(video: Path) -> None:
    first, second, third = live(video.read_text()).split("#EXTINF")[1:]
    head = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-DISCONTINUITY-SEQUENCE:4\n"
    date = "#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:00Z\n"
    text = f"{head}{date}#EXTINF{first}#EXTINF{second}#EXT-X-DISCONTINUITY\n#EXTINF{third}"
    anchor = fetched(video.parent, text).anchor
    assert (anchor.discontinuity, anchor.utc) == (5, None)


def test_a_range_of_a_file_is_a_segment(video: Path) -> None:
    joined = video.parent / "all.bin"
    parts = [(video.parent / f"{number}.ts").read_bytes() for number in range(3)]
    joined.write_bytes(b"".join(parts))
    lines = "".join(
        f"#EXTINF:2,\n#EXT-X-BYTERANGE:{len(part)}{'@0' if not number else ''}\nall.bin\n"
        for number, part in enumerate(parts)
    )
    assert fetched(video.parent, f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n{lines}").anchor.mpegts == 104 * 90_000


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("#EXTM3U\n#EXT-X-TARGETDURATION:2\n", "no_answer"),
        ("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n", "corrupt"),
        ("#EXTM3U\n#EXTINF:2,\nmissing.ts\n", "no_answer"),
        ("#EXTM3U\n#EXTINF:2,\nvideo.m3u8\n", "cannot_align"),
        ('#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="k"\n#EXTINF:2,\n0.ts\n', "cannot_align"),
        (f"#EXTM3U\n#EXT-X-PROGRAM-DATE-TIME:{LAST}\n#EXTINF:inf,\n0.ts\n#EXTINF:nan,\nx\n", "no_answer"),
    ],
)
def test_what_tells_no_time_is_refused_by_name(video: Path, text: str, code: str) -> None:
    with pytest.raises(SourceError) as refused:
        fetched(video.parent, text)
    assert refused.value.code == code


def test_what_a_playlist_names_goes_through_the_host_policy(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = internet(monkeypatch, video_example=["127.0.0.5"])
    with two_sites() as (public, inside):
        segment = f"http://{INSIDE}:{public.port}/0.ts"
        public.pages["/video.m3u8"] = Answer(f"#EXTM3U\n#EXTINF:2,\n{segment}\n".encode())
        place = locate(f"http://video.example:{public.port}/video.m3u8", ())
        with pytest.raises(Forbidden):
            read(place, 5.0, False)
        assert (inside.asked, INSIDE in net.connected) == ([], False)
