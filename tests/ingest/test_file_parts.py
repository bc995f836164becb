"""The links of a chained Ogg file are found, and each is read as a file of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamsvc.ingest import file_parts
from streamsvc.ingest.file_parts import links
from tests.builders.stamped import Part, hear, joined


def test_links_begin_with_the_first_pages_of_their_streams(tmp_path: Path) -> None:
    parts = [Part(seconds=1.0, audio="libopus"), Part(seconds=1.0, audio="libopus", layout="stereo")]
    path = joined(tmp_path / "a.opus", *parts)
    (first, middle), (start, last) = links(path)
    assert (first, start, last) == (0, middle, path.stat().st_size)
    assert middle == (tmp_path / "0-a.opus").stat().st_size
    assert len(links(tmp_path / "0-a.opus")) == 1
    both = Part(seconds=1.0, audio="libopus", video="libvpx", form="ogg").write(tmp_path / "both.ogg")
    assert len(links(both)) == 1, "two streams that begin together"


def test_what_is_no_ogg_file_has_no_links(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(bytes(1000))
    assert links(tmp_path / "a.mp3") == []
    (tmp_path / "cut.ogg").write_bytes(b"OggS\0\2")
    assert links(tmp_path / "cut.ogg") == []


def test_the_number_of_links_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_parts, "LINKS", 2)
    part = Part(seconds=0.2, audio="libopus")
    path = joined(tmp_path / "a.opus", part, part, part)
    assert links(path)[-1][1] == path.stat().st_size
    assert len(links(path)) == 2


def test_a_part_of_a_file_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(20)))
    with (tmp_path / "a").open("rb") as file:
        part = file_parts.Part(file, (5, 15), "a")
        assert part.read(3) == bytes((5, 6, 7)) and part.tell() == 3
        assert part.seek(-2, 2) == 8 and part.read(100) == bytes((13, 14))
        assert part.read(1) == b"" and part.seek(0) == 0 and part.seek(1, 1) == 1


@pytest.mark.parametrize("first", [0.0, 12.0])
@pytest.mark.parametrize("video", ["mpeg4", "libx264"])
@pytest.mark.parametrize("pictures_first", [False, True])
async def test_a_transport_stream_whose_sound_comes_with_later_tables_is_heard(
    tmp_path: Path, video: str, first: float, pictures_first: bool
) -> None:
    """The first part has pictures alone; in the second, their id may stand for the sound."""
    parts = [
        Part(seconds=12.0, audio=None, video=video),
        Part(first=first, video=video, pictures_first=pictures_first),
    ]
    heard = await hear(joined(tmp_path / "a.ts", *parts))
    (sound,) = heard.sound
    assert sound == pytest.approx((12.0, 14.6), abs=0.3)
    assert len(heard.pictures) >= 148


def test_tables_of_a_transport_stream_are_found_before_a_packet(tmp_path: Path) -> None:
    part = Part(seconds=0.5, video="mpeg4")
    path = joined(tmp_path / "a.ts", part, part)
    second = (tmp_path / "0-a.ts").stat().st_size
    tables = file_parts.tables_before(path, second + 5 * 188, 0)
    assert tables is not None and second <= tables <= second + 5 * 188
    assert file_parts.tables_before(path, second + 5 * 188, second + 5 * 188) is None
    (tmp_path / "b.ts").write_bytes(bytes(188 * 600))
    assert file_parts.tables_before(tmp_path / "b.ts", 188 * 600, 0) is None


@pytest.mark.parametrize(
    "parts",
    [
        [Part(audio="libopus"), Part(audio="libopus"), Part(audio="libopus")],
        [Part(audio="libopus"), Part(audio="libopus", layout="stereo"), Part(audio="libopus")],
        [Part(audio="flac", form="ogg"), Part(audio="flac", form="ogg", rate=16_000, layout="stereo")],
        [Part(audio="libopus", form="ogg"), Part(audio="flac", form="ogg", rate=16_000)],
    ],
    ids=["same", "channels", "rate", "codec"],
)
async def test_every_link_is_heard_where_the_one_before_ended(tmp_path: Path, parts: list[Part]) -> None:
    heard = await hear(joined(tmp_path / "a.ogg", *parts))
    assert [start for start, _ in heard.sound] == pytest.approx(
        [3.0 * number for number in range(len(parts))], abs=0.1
    )
    assert all(end - start == pytest.approx(2.5, abs=0.15) for start, end in heard.sound)
    assert heard.gaps == []
    assert heard.stats["time_lines"] == len(parts) - 1
