"""What a process claims to have decoded is checked: it may have been taken over by what it decodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pytest

from streamsvc.core.errors import SourceError
from streamsvc.core.types import EncodedFrame, Kind
from streamsvc.ingest import source_decoders
from streamsvc.ingest.source_channel import Broken, Fields
from streamsvc.ingest.source_decoders import RemoteAudioDecoder, RemoteCodec, RemotePicture

T = TypeVar("T")
CHUNK = {"at": 1.0, "arrived": 5.0, "samples": 2, "gap": False, "loss": "missing"}
PICTURE = {"picture": 1, "at": 1.0, "arrived": 5.0, "width": 4, "height": 2}
SOUND = {"chunks": [CHUNK], "errors": 1, "repeated": 2}
SHOWN = {"pictures": [PICTURE], "errors": 1, "skipped": 2, "waiting": False}


class Liar:
    """A process that answers as it is told. `failed`: it has ended."""

    def __init__(self, answer: dict[str, Any] | None = None, body: bytes = b"") -> None:
        self.answer = answer or {}
        self.body = body
        self.failed = False
        self.asked: list[tuple[Mapping[str, Any], Sequence[bytes]]] = []

    def ask(
        self,
        kind: Kind,
        header: Mapping[str, Any],
        parts: Sequence[bytes],
        check: Callable[[Fields, memoryview], T],
    ) -> T:
        if self.failed:
            raise SourceError("ended", code="source_crashed")
        self.asked.append((header, parts))
        return check(Fields(self.answer), memoryview(self.body))

    threads = None

    def hold(self) -> None:
        return

    def release(self) -> None:
        return


def frame(kind: Kind = "audio", at: float = 1.0, payload: bytes = b"abc") -> EncodedFrame:
    return EncodedFrame("s", "main", at, 5.0, kind, payload, "aac", True, loss="missing")


def heard(answer: dict[str, Any], body: bytes) -> Any:
    return RemoteCodec(Liar(answer, body), 1, b"", {}).audio_decoder("s").decode([frame()])


def seen(answer: dict[str, Any]) -> Any:
    return RemoteCodec(Liar(answer), 1, b"", {}).video_decoder("s").decode([frame("video")])


def test_a_first_chunk_may_lie_a_rounding_before_zero() -> None:
    (chunk,) = heard(SOUND | {"chunks": [CHUNK | {"at": -2.7e-15}]}, bytes(8))
    assert chunk.at == -2.7e-15


def test_samples_come_as_chunks_of_the_session() -> None:
    samples = np.array([0.5, np.nan], dtype=np.float32)
    (chunk,) = heard(SOUND, samples.tobytes())
    assert (chunk.session, chunk.track, chunk.at, chunk.arrived) == ("s", "main", 1.0, 5.0)
    assert chunk.samples.tolist() == [0.5, 0.0]


@pytest.mark.parametrize(
    ("lie", "size"),
    [
        ({"samples": 3}, 8),
        ({"samples": 0}, 8),
        ({"at": 62.0}, 8),
        ({"at": -2.0}, 8),
        ({"arrived": 6.0}, 8),
        ({"loss": "made_up"}, 8),
        ({"samples": 960_001}, 4 * 960_001),
        ({"gap": 0}, 8),
        ({}, 4),
    ],
)
def test_chunks_that_cannot_be_are_refused(lie: dict[str, Any], size: int) -> None:
    with pytest.raises(Broken):
        heard(SOUND | {"chunks": [CHUNK | lie]}, bytes(size))


@pytest.mark.parametrize(
    "lie", [{"width": 0}, {"height": 1 << 20}, {"at": 1e9}, {"arrived": 9.0}, {"picture": "1"}]
)
def test_pictures_that_cannot_be_are_refused(lie: dict[str, Any]) -> None:
    assert seen(SHOWN)[0].width == 4
    with pytest.raises(Broken):
        seen(SHOWN | {"pictures": [PICTURE | lie]})


def test_pixels_have_the_size_that_was_asked_for() -> None:
    liar = Liar(SHOWN, bytes(24))
    (picture,) = RemoteCodec(liar, 1, b"", {}).video_decoder("s").decode([frame("video")])
    assert isinstance(picture.handle, RemotePicture)
    assert picture.handle.pixels((2, 4, 3)).shape == (2, 4, 3)
    liar.body = bytes(25)
    with pytest.raises(Broken):
        picture.handle.pixels((2, 4, 3))


def test_many_or_long_packets_are_asked_for_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_decoders, "BATCH", 3)
    monkeypatch.setattr(source_decoders, "BATCH_BYTES", 10)
    liar = Liar({"chunks": [], "errors": 0, "repeated": 0})
    decoder = RemoteCodec(liar, 1, b"", {}).audio_decoder("s")
    sizes = [1, 1, 1, 1, 9, 2, 20, 1]
    decoder.decode([frame(payload=bytes(size)) for size in sizes])
    assert [[len(part) for part in parts] for _, parts in liar.asked] == [[1, 1, 1], [1, 9], [2], [20], [1]]


def test_nothing_is_decoded_once_the_process_has_failed() -> None:
    liar = Liar(SOUND, bytes(8))
    decoder = RemoteCodec(liar, 1, b"", {}).audio_decoder("s")
    assert isinstance(decoder, RemoteAudioDecoder)
    liar.failed = True
    assert decoder.decode([frame(), frame()]) == []
    assert decoder.flush() == []
    assert decoder.errors == 2
    with pytest.raises(SourceError):
        (picture,) = RemoteCodec(Liar(SHOWN), 1, b"", {}).video_decoder("s").decode([frame("video")])
        picture.handle._caller._process.failed = True
        picture.handle.pixels((2, 4))
