"""One decoder at a time, where the track says, and none is left."""

from __future__ import annotations

from concurrent.futures import Executor
from types import SimpleNamespace
from typing import Any

from streamsvc.core.types import MediaTrack
from streamsvc.ingest.decode import AudioDecoder, VideoDecoder
from streamsvc.ingest.decoders import Decoders, audio_decoder, video_decoder
from streamsvc.ingest.source_decoders import RemoteAudioDecoder, RemoteCodec, RemoteVideoDecoder

OPUS, VP8 = MediaTrack("audio", "opus"), MediaTrack("video", "vp8")


class Held:
    """A process that counts who needs it."""

    def __init__(self) -> None:
        self.threads: Executor | None = None
        self.holders = 0
        self.least = 100

    def hold(self) -> None:
        self.holders += 1

    def release(self) -> None:
        self.holders -= 1
        self.least = min(self.least, self.holders)

    def ask(self, *_: Any) -> Any:
        raise NotImplementedError


def test_a_track_says_where_it_is_decoded() -> None:
    assert isinstance(audio_decoder(OPUS, "s"), AudioDecoder)
    assert isinstance(video_decoder(VP8, "s"), VideoDecoder)
    held = Held()
    codec = RemoteCodec(held, 1, b"", {})
    sound, pictures = MediaTrack("audio", "aac", codec), MediaTrack("video", "h264", codec)
    decoders = audio_decoder(sound, "s"), video_decoder(pictures, "s")
    assert isinstance(decoders[0], RemoteAudioDecoder)
    assert isinstance(decoders[1], RemoteVideoDecoder)
    assert held.holders == 2
    for decoder in (*decoders, *decoders):
        decoder.close()
    assert held.holders == 0


def test_the_next_decoder_is_made_before_the_one_before_is_closed_and_none_is_left() -> None:
    held = Held()
    first, second, third = (MediaTrack("audio", "aac", RemoteCodec(held, n, b"", {})) for n in range(3))
    with Decoders("s", audio_decoder) as decoders:
        present, before = decoders.of(first)
        assert (decoders.present, before) == (present, None)
        assert decoders.of(first) == (present, None)
        fresh, before = decoders.of(second)
        assert before is present
        assert fresh is decoders.present
        before.close()
        assert held.least == 1, "its process would have ended in between"
        decoders.of(third)
        assert held.holders == 2
    assert held.holders == 0


def test_every_decoder_is_closed_where_the_work_is_cancelled() -> None:
    closed: list[int] = []

    def make(track: MediaTrack, session: str) -> Any:
        return SimpleNamespace(close=lambda: closed.append(int(track.codec)))

    try:
        with Decoders("s", make) as decoders:
            for name in ("1", "2", "3"):
                decoders.of(MediaTrack("audio", name))
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert sorted(closed) == [1, 2, 3]
