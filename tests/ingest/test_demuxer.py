"""Packets of a container as plain data, and nothing that a container names is opened by itself."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from streamsvc.core.errors import SourceError
from streamsvc.ingest.demuxer import FileInputs, LibavDemuxer, OneInput, Opening
from streamsvc.ingest.source_policy import locate
from tests.builders.clips import clip


def test_a_container_tells_its_tracks_and_packets(tmp_path: Path) -> None:
    place = locate(str(clip(tmp_path / "a.mp4")), None)
    demuxer = LibavDemuxer()
    opened = demuxer.open(Opening(place.name), FileInputs(place))
    assert "mp4" in opened.form
    assert opened.duration == pytest.approx(1.0, abs=0.1)
    assert not opened.others
    assert [track.kind for track in opened.tracks] == ["audio", "video"]
    packets = list(demuxer.packets(lambda: None))
    assert {packet.kind for packet in packets} == {"audio", "video"}
    assert all(packet.payload and not packet.strange and packet.changed is None for packet in packets)
    demuxer.close()


def test_what_is_no_medium_is_corrupt_and_its_file_is_closed(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"noise" * 1000)
    place = locate(str(tmp_path / "a.mp4"), None)
    demuxer = LibavDemuxer()
    with pytest.raises(SourceError) as caught:
        demuxer.open(Opening(place.name), FileInputs(place))
    assert caught.value.code == "corrupt"
    demuxer.close()


def test_a_file_names_nothing_that_is_opened_and_one_input_is_opened_once(tmp_path: Path) -> None:
    place = locate(str(clip(tmp_path / "a.mp4")), None)
    with pytest.raises(OSError, match="not allowed"):
        FileInputs(place).open_nested(place.name, 0, {})
    with contextlib.closing(FileInputs(place).open()) as file:
        once = OneInput(file)
        assert once.open() is file
        with pytest.raises(OSError, match="not allowed"):
            once.open()
        with pytest.raises(OSError, match="not allowed"):
            once.open_nested(place.name, 0, {})
