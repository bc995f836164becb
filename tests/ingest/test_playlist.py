"""HLS playlists: the variant to read, and the place of every segment in time."""

from __future__ import annotations

import pytest

from streamsvc.core.errors import SourceError
from streamsvc.ingest import playlist
from streamsvc.ingest.playlist import SegmentTimes, absolute, is_master, reduced, rendition, variants

BASE = "http://host/a/index.m3u8"
MASTER = """#EXTM3U
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="en",NAME="comment",URI="comment.m3u8"
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="en",NAME="main",DEFAULT=YES,URI="main.m3u8"
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="in",NAME="inside",DEFAULT=YES
#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="subs",NAME="s",URI="s.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=800000,RESOLUTION=640x360,AUDIO="en",SUBTITLES="subs"
360.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=900000,RESOLUTION=1280x720,CODECS="avc1.4d401f"
mute.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=3000000,RESOLUTION=1280x720,CODECS="avc1.4d401f,mp4a.40.2",AUDIO="in"
../b/720.m3u8?key=1
#EXT-X-STREAM-INF:BANDWIDTH=9000000,RESOLUTION=1920x1080
1080.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=64000,CODECS="mp4a.40.2"
sound.m3u8
"""


def media(*entries: str, first: int = 0, seconds: float = 6.0, ended: bool = True) -> str:
    lines = ["#EXTM3U", f"#EXT-X-MEDIA-SEQUENCE:{first}"]
    for entry in entries:
        lines += [entry] if entry.startswith("#") else [f"#EXTINF:{seconds},", entry]
    return "\n".join([*lines, "#EXT-X-ENDLIST" if ended else ""])


def read(times: SegmentTimes, *urls: str, missing: tuple[str, ...] = ()) -> list[float]:
    """Ask for segments in order; their starts."""
    starts = []
    for url in urls:
        segment = times.asked(url, 0)
        assert segment is not None, url
        times.note(segment, fetched=url not in missing)
        starts.append(segment.start)
    return starts


def test_the_best_variant_has_sound_and_a_picture_that_is_not_larger_than_a_keyframe() -> None:
    assert is_master(MASTER) and not is_master(media("a.ts"))
    order = [one.url.rpartition("/")[2] for one in variants(absolute(MASTER, BASE))]
    assert order == ["720.m3u8?key=1", "360.m3u8", "sound.m3u8", "1080.m3u8", "mute.m3u8"]


def test_a_reduced_master_playlist_names_one_variant_and_the_default_rendition_alone() -> None:
    master = absolute(MASTER, BASE)
    with_rendition, inside = variants(master)[1], variants(master)[0]
    sound = rendition(master, with_rendition.group)
    assert sound is not None and sound.url == "http://host/a/main.m3u8"
    text = reduced(with_rendition, sound)
    assert text.count("URI=") == 1 and text.count("#EXT-X-STREAM-INF") == 1
    assert "main.m3u8" in text and 'AUDIO="en"' in text and "SUBTITLES" not in text
    text = reduced(inside, rendition(master, inside.group))
    assert "EXT-X-MEDIA" not in text and "AUDIO" not in text
    assert text.endswith("http://host/b/720.m3u8?key=1\n")
    assert rendition(master, "other") is None


def test_urls_are_made_absolute_in_lines_and_in_attributes() -> None:
    text = absolute(
        '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="k?a=1"\n\n//cdn/s.ts\nhttps://x/a/../y.ts?b=/../c', BASE
    )
    assert text.splitlines()[1:] == [
        '#EXT-X-KEY:METHOD=AES-128,URI="http://host/a/k?a=1"',
        "",
        "http://cdn/s.ts",
        "https://x/y.ts?b=/../c",
    ]


@pytest.mark.parametrize(
    "text",
    ["\n".join("a" * 300), '#EXT-X-KEY:URI=""' * 300, "\n" * playlist.LINES + "a.ts\na.ts"],
    ids=["lines", "one-line", "empty"],
)
def test_a_playlist_that_grows_beyond_measure_is_refused(text: str) -> None:
    with pytest.raises(SourceError, match="too long"):
        absolute(text, f"http://host/{'x' * 64_000}/index.m3u8")


def test_all_urls_of_a_playlist_are_known() -> None:
    text = absolute('#EXTM3U\n#EXT-X-MAP:URI="i.mp4",BYTERANGE="9"\n#EXTINF:1,\na.ts\n', BASE)
    assert playlist.named(text) - {""} == {"http://host/a/i.mp4", "http://host/a/a.ts"}


def test_segments_lie_where_the_durations_before_them_add_up_to() -> None:
    times = SegmentTimes()
    times.update(media("0.ts", "1.ts", "2.ts"))
    assert read(times, "0.ts", "1.ts", "2.ts") == [0.0, 6.0, 12.0]
    assert (times.start, times.missing_end, times.missing) == (0.0, 0.0, 0)
    assert times.asked("key.bin", 0) is None
    assert times.asked("1.ts", 0) is None, "it was asked for already"


def test_a_live_playlist_moves_on_and_keeps_its_times() -> None:
    times = SegmentTimes()
    times.update(media("5.ts", "6.ts", "7.ts", first=5, ended=False))
    assert read(times, "6.ts", "7.ts") == [6.0, 12.0]
    times.update(media("7.ts", "8.ts", "9.ts", first=7, ended=False))
    assert read(times, "8.ts", "9.ts") == [18.0, 24.0]
    assert (times.start, times.missing_end) == (6.0, 0.0)
    times.update(media("20.ts", first=20, ended=False))
    assert read(times, "20.ts") == [30.0]
    times.update(media("0.ts", "1.ts", ended=False))
    assert read(times, "0.ts", "1.ts") == [36.0, 42.0], "the numbers began again"


def test_a_step_is_a_hole_where_segments_are_missing() -> None:
    times = SegmentTimes()
    times.update(media("0.ts", "1.ts", "2.ts", "3.ts"))
    read(times, "0.ts", "1.ts", "2.ts", "3.ts", missing=("1.ts", "2.ts"))
    assert times.missing == 2
    assert times.explains(18.5) and not times.explains(12.0)
    first = SegmentTimes()
    first.update(media("0.ts", "1.ts"))
    read(first, "0.ts", "1.ts", missing=("0.ts",))
    assert first.start == 6.0
    last = SegmentTimes()
    last.update(media("0.ts", "1.ts", "2.ts"))
    read(last, "0.ts", "1.ts", "2.ts", missing=("1.ts", "2.ts"))
    assert last.missing_end == 12.0


@pytest.mark.parametrize(
    ("missing", "ends", "begins"),
    [
        ((), 12.1, 12.0),
        ((), 11.2, 12.0),
        ((), 9.5, 9.5),  # durations of the playlist that are rounded up lose no media
        (("2.ts",), 12.0, 18.0),
        ((), 6.0, None),
        ((), 17.9, None),
    ],
)
def test_a_time_line_begins_at_the_discontinuity_that_was_read(
    missing: tuple[str, ...], ends: float, begins: float | None
) -> None:
    times = SegmentTimes()
    times.update(media("0.ts", "1.ts", "#EXT-X-DISCONTINUITY", "2.ts", "3.ts"))
    read(times, "0.ts", "1.ts", "2.ts", "3.ts", missing=missing)
    assert times.next_region(ends) == begins


def test_of_several_discontinuities_the_nearest_counts() -> None:
    times = SegmentTimes()
    tag = "#EXT-X-DISCONTINUITY"
    times.update(media("0.ts", tag, "1.ts", tag, "2.ts", tag, "3.ts", seconds=1.0))
    read(times, "0.ts", "1.ts", "2.ts", "3.ts")
    assert [times.next_region(end) for end in (1.02, 2.04, 3.06)] == [1.0, 2.0, 3.0]


def test_byte_ranges_of_one_file_are_segments_of_their_own() -> None:
    times = SegmentTimes()
    times.update(
        media(
            "#EXT-X-BYTERANGE:100@0", "a.ts", "#EXT-X-BYTERANGE:50", "a.ts", "#EXT-X-BYTERANGE:9@150", "a.ts"
        )
    )
    segments = [times.asked("a.ts", offset) for offset in (0, 100, 150)]
    assert [one.start for one in segments if one is not None] == [0.0, 6.0, 12.0]


def test_memory_of_a_live_playlist_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playlist, "MOST", 5)
    times = SegmentTimes()
    for first in range(40):
        times.update(media(f"{first}.ts", f"{first + 1}.ts", first=first, ended=False))
        read(times, f"{first}.ts")
    assert len(times._segments) <= 6 and len(times._read) <= 5
    assert times.start == 0.0


def test_nonsense_in_a_playlist_does_not_raise() -> None:
    times = SegmentTimes()
    times.update("#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:x\n#EXTINF:abc,\na.ts\n#EXT-X-BYTERANGE:@\nb.ts\n")
    assert read(times, "a.ts", "b.ts") == [0.0, 0.0]
    assert times.next_region(0.0) is None
    assert variants("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=-1,RESOLUTION=big\na.m3u8\n")[0].height == 0
