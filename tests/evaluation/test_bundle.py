"""A bundle is read record by record; frames and tracks come out as they were."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from streamsvc.core.clock import Threadless
from streamsvc.core.types import EncodedFrame, MediaTrack
from streamsvc.evaluation.bundle import frame_of, records, tracks_of
from streamsvc.evaluation.session_run import open_recording
from streamsvc.ingest.decode import AudioDecoder, VideoDecoder
from streamsvc.service import recording
from streamsvc.service.bundle_writer import MAGIC
from streamsvc.workers.framing import PREFIX, pack
from tests.builders.clips import clip
from tests.builders.recorded import recorded


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with asyncio.Runner(loop_factory=Threadless) as runner:
        return runner.run(recorded(tmp_path_factory.mktemp("bundle"), seconds=1.0))


def test_every_record_has_its_place_kind_and_time(bundle: Path) -> None:
    found = list(records(bundle))
    assert [record.place for record in found] == list(range(len(found)))
    assert (found[0].kind, found[-1].kind) == ("session", "over")
    times = [record.t for record in found]
    assert times == sorted(times)
    assert times[-1] > 0.9


@pytest.mark.parametrize("torn", [3, 11, 40])
def test_a_torn_record_is_left_out(torn: int, tmp_path: Path) -> None:
    whole = pack({"kind": "point", "t": 1.0, "name": "x"}, {"data": np.arange(9)})
    (tmp_path / "b").write_bytes(MAGIC + whole + whole[:-torn])
    assert [record.kind for record in records(tmp_path / "b")] == ["point"]


@pytest.mark.parametrize(
    "head", [b"no JSON", b"[]", b'{"arrays": [{"name": "a"}]}', b'{"arrays": [["a", 1, 1, 1]]}']
)
def test_a_record_with_a_broken_head_ends_the_bundle(head: bytes, tmp_path: Path) -> None:
    whole = pack({"kind": "point", "t": 1.0, "name": "x"}, {})
    (tmp_path / "b").write_bytes(MAGIC + whole + PREFIX.pack(len(head), 0) + head + whole)
    assert [record.kind for record in records(tmp_path / "b")] == ["point"]


def test_frames_are_as_they_were_tapped(bundle: Path) -> None:
    first = next(record for record in records(bundle) if record.kind == "frame")
    frame = frame_of(first, "s", 100.0)
    assert (frame.session, frame.kind, frame.codec, frame.keyframe) == ("s", "audio", "opus", True)
    assert frame.arrived == 100.0 + first.fields["arrived"]
    assert len(frame.payload) > 10


@pytest.mark.parametrize(
    ("name", "video", "audio"),
    [("mp4", "mpeg4", "aac"), ("mkv", "libx264", "flac"), ("webm", "libvpx", "libopus")],
)
def test_tracks_of_files_decode_to_the_same_media(name: str, video: str, audio: str, tmp_path: Path) -> None:
    path = clip(tmp_path / f"a.{name}", seconds=1.0, video=video, audio=audio)

    def decoded(tracks: tuple[MediaTrack, ...], frames: list[EncodedFrame]) -> list[bytes]:
        out: list[bytes] = []
        for track in tracks:
            own = [frame for frame in frames if frame.kind == track.kind]
            if track.kind == "audio":
                decoder = AudioDecoder(track, "s")
                chunks = [*decoder.decode(own), *decoder.flush()]
                out += [chunk.samples.tobytes() for chunk in chunks]
            else:
                looking = VideoDecoder(track, "s")
                shown = [*looking.decode(own), *looking.flush()]
                out += [picture.handle.to_ndarray().tobytes() for picture in shown]
        return out

    with open_recording(path) as (tracks, timed):
        frames = [replace(frame, session="s") for _, frame in timed]
        described = [recording.track_fields(track) for track in tracks]
        extradata = {f"extradata{place}": data for place, (_, data) in enumerate(described)}
        told = pack({"kind": "attach", "t": 0.0, "tracks": [fields for fields, _ in described]}, extradata)
        (tmp_path / "b").write_bytes(MAGIC + told)
        again = tracks_of(next(records(tmp_path / "b")))
        expected = decoded(tracks, frames)
    assert decoded(again, frames) == expected
    assert len(expected) > 20
