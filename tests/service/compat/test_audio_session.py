"""Samples become timed frames; an audio session continues after a flush and a new format."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from streamsvc.core import metrics
from streamsvc.core.errors import InvalidRequest, StreamsvcError, TooLarge
from streamsvc.core.options import SpeechOptions
from streamsvc.core.types import EncodedFrame
from streamsvc.service.compat.audio_session import (
    AudioFormat,
    AudioSession,
    ConnectionLimits,
    Expired,
    PcmPublisher,
    SessionOver,
    check_size,
    clamp_hangover,
    continues,
    language_code,
)
from streamsvc.service.session import Session
from tests.builders.service import serving
from tests.builders.spoken import heard, samples

PCM = AudioFormat("pcm_s16le", 16_000)


class FakeSession:
    """A session that records frames, and has room while `free` is set."""

    id = "0.test"

    def __init__(self) -> None:
        self.media = self  # its own MediaInput
        self.frames: list[EncodedFrame] = []
        self.free = asyncio.Event()
        self.free.set()

    async def wait_for_space(self) -> None:
        await self.free.wait()

    def tap(self, frame: EncodedFrame) -> None:
        self.frames.append(frame)


def publisher_of(session: FakeSession, start: float = 0.0) -> PcmPublisher:
    return PcmPublisher(cast(Session, session), PCM, start)


def subscribers() -> float:
    """Subscribers of all sessions of this process; tests of the event log leave some."""
    return float(metrics.subscribers._value.get())


@pytest.mark.parametrize("cut", [1, 3, 641, 5000, 64_000])
def test_frame_times_follow_the_samples_however_they_are_cut(virtual: asyncio.Runner, cut: int) -> None:
    data = bytes(index % 251 for index in range(64_000))  # 2 s

    async def main() -> None:
        session = FakeSession()
        publisher = publisher_of(session, start=3.0)
        for first in range(0, len(data), cut):
            await publisher.push(data[first : first + cut])
        assert b"".join(frame.payload for frame in session.frames) == data
        assert publisher.seconds == 2.0
        at = 3.0
        for frame in session.frames:
            assert frame.at == pytest.approx(at)
            assert 0 < len(frame.payload) <= 1280, "40 ms at most"
            assert len(frame.payload) % 2 == 0
            at += len(frame.payload) / 32_000

    virtual.run(main())


def test_push_waits_until_the_session_has_room(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        session = FakeSession()
        session.free.clear()
        pushing = asyncio.create_task(publisher_of(session).push(bytes(3200)))
        await asyncio.sleep(10)
        assert not pushing.done()
        assert session.frames == []
        session.free.set()
        await pushing
        assert sum(len(frame.payload) for frame in session.frames) == 3200

    virtual.run(main())


def test_an_incomplete_sample_waits_for_the_rest() -> None:
    async def main() -> None:
        session = FakeSession()
        publisher = publisher_of(session)
        await publisher.push(b"\x01")
        assert session.frames == []
        await publisher.push(b"\x02\x03")
        assert [frame.payload for frame in session.frames] == [b"\x01\x02"]

    asyncio.run(main())


def test_a_language_tag_becomes_a_code_that_the_model_supports() -> None:
    assert language_code(None, "whisper-tiny.en") is None
    assert language_code("en-US", "whisper-tiny.en") == "en"
    assert language_code("pt_BR", "whisper-base") == "pt"
    assert language_code("multi", "whisper-base") is None
    for language, model in (
        ("de", "whisper-tiny.en"),
        ("multi", "whisper-tiny.en"),
        ("x1", "whisper-base"),
        ("english", "whisper-base"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            language_code(language, model)
        assert caught.value.code == "unsupported_language"


def test_a_message_over_the_limit_is_refused() -> None:
    check_size(b"12345", ConnectionLimits(message_bytes=5))
    with pytest.raises(TooLarge):
        check_size(b"123456", ConnectionLimits(message_bytes=5))


@pytest.mark.parametrize(
    ("milliseconds", "seconds"),
    [(None, None), (0, 0.1), (100, 0.1), (700, 0.7), (5000, 5.0), (10**9, 5.0)],
)
def test_a_hangover_is_clamped(milliseconds: int | None, seconds: float | None) -> None:
    assert clamp_hangover(milliseconds) == seconds


class Connection:
    """An open audio session of a real service, and a task that takes its events."""

    def __init__(self, audio: AudioSession) -> None:
        self.audio = audio
        self.got: list[Any] = []

    async def __aenter__(self) -> Connection:
        await self.audio.open()
        self._taking = asyncio.create_task(self._take())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._taking.cancel()
        await asyncio.wait([self._taking])
        await self.audio.close()

    async def _take(self) -> None:
        while True:
            for event in await self.audio.next():
                self.got.append(event)
                if event["type"] == "session.closed":
                    self.audio.end(event)

    def finals(self, first: int = 0, end: int | None = None) -> list[dict[str, Any]]:
        """The caption.final events among events `first` to `end`."""
        return [event for event in self.got[first:end] if event["type"] == "caption.final"]


def text_of(captions: list[dict[str, Any]]) -> str:
    return " ".join(caption["text"] for caption in captions)


@pytest.mark.media
@pytest.mark.models
async def test_a_flush_transcribes_all_audio_and_the_session_and_its_times_continue(
    media: Path, tmp_path: Path
) -> None:
    before = subscribers()
    data = samples(media / "speech" / "harvard.flac", 16_000)
    cut = 2 * 16_000 * 10 - 1  # in the pause at 10 s, and in the middle of a sample
    async with serving(tmp_path) as (service, _, _):
        await service.ready()
        async with Connection(AudioSession(service, PCM, SpeechOptions("en"))) as connection:
            (session,) = service.sessions.by_id.values()
            await connection.audio.push(data[:cut])
            await connection.audio.flush()
            first = len(connection.got)
            assert connection.got[-1]["type"] == "session.flushed"
            await connection.audio.push(data[cut:])
            await connection.audio.flush()
            assert list(service.sessions.by_id.values()) == [session], "the session stays the same"
            assert connection.audio.seconds == pytest.approx(len(data) / 32_000)
        assert len(heard(text_of(connection.finals(end=first)))) == 3
        assert len(heard(text_of(connection.finals(first)))) >= 2
        starts = [caption["start"] for caption in connection.finals()]
        assert starts == sorted(starts)
        assert starts[len(starts) // 2] > 9.0
        assert service.sessions.by_id == {}
        assert not list((tmp_path / "data").glob("[!.]*")), "nothing was written"
        assert subscribers() == before, "no subscriber is left behind"


@pytest.mark.media
@pytest.mark.models
async def test_an_audio_session_continues_with_another_format_and_hangover(
    media: Path, tmp_path: Path
) -> None:
    path = media / "speech" / "harvard.flac"
    async with serving(tmp_path) as (service, _, _):
        await service.ready()
        async with Connection(AudioSession(service, PCM, SpeechOptions("en"))) as connection:
            await connection.audio.push(samples(path, 16_000)[: 2 * 16_000 * 10])
            mulaw = AudioFormat("pcm_mulaw", 8_000)
            await connection.audio.reconfigure(mulaw, SpeechOptions("en", ("pickle",), 3.0))
            first = len(connection.got)
            await connection.audio.push(samples(path, 8_000, "pcm_mulaw")[8_000 * 10 :])
            await connection.audio.flush()
            assert len(heard(text_of(connection.finals()))) >= 4
            assert min(caption["start"] for caption in connection.finals(first)) > 9.0
            stopped = [event for event in connection.got[first:] if event["type"] == "speech.stopped"]
            assert len(stopped) == 1, "no pause lasts for 3 s"


async def test_the_audio_limit_and_the_end_of_the_session_raise(tmp_path: Path) -> None:
    before = subscribers()
    async with serving(tmp_path) as (service, _, _):
        audio = AudioSession(service, PCM, limits=ConnectionLimits(audio_seconds=1.0))
        await audio.open()
        try:
            await audio.push(bytes(2 * 16_000 + 2))
            with pytest.raises(Expired):
                await audio.push(bytes(2))
            next(iter(service.sessions.by_id.values())).end("shutdown")
            event = (await audio.next())[-1]
            assert event["type"] == "session.closed"
            with pytest.raises(SessionOver):
                audio.end(event)
            with pytest.raises(StreamsvcError, match="shutdown"):
                await audio.push(bytes(2))
        finally:
            await audio.close()
        assert service.sessions.by_id == {}
        assert subscribers() == before, "no subscriber is left behind"


async def test_a_flush_after_the_end_of_the_session_raises(tmp_path: Path) -> None:
    async with serving(tmp_path) as (service, _, _), Connection(AudioSession(service, PCM)) as connection:
        await connection.audio.flush()
        (session,) = service.sessions.by_id.values()
        session.end("shutdown")
        await session.over.wait()
        with pytest.raises(SessionOver, match="shutdown"):
            await connection.audio.flush()


def tone(samples: int) -> bytes:
    """A quiet tone of 16-bit samples."""
    return (900 * np.sin(np.arange(samples) / 9)).astype("<i2").tobytes()


def test_a_payload_goes_on_from_half_a_sample_only_where_that_sounds_like_audio() -> None:
    audio = tone(800)
    assert continues(audio[:5][4:], audio[5:], PCM)
    assert not continues(b"\x7f", audio, PCM)
    stereo = AudioFormat("pcm_s16le", 16_000, 2)
    assert stereo.sample_bytes == 4
    assert continues(audio[:3], audio[3:], stereo)
    assert not continues(b"\x7f", audio, stereo)
    assert not continues(b"\x01", bytes(640), PCM), "silence tells nothing: the client has ended its audio"
    assert not continues(b"\x01", audio, AudioFormat("pcm_mulaw", 8_000, 2))


@pytest.mark.parametrize("extra", [1, 3])
def test_half_a_sample_before_the_end_of_a_part_does_not_shift_what_follows(extra: int) -> None:
    async def main() -> None:
        session = FakeSession()
        publisher = publisher_of(session)
        await publisher.push(tone(400) + bytes(extra))
        publisher.end_part()
        session.frames.clear()
        await publisher.push(tone(800))
        assert b"".join(frame.payload for frame in session.frames) == tone(800)
        publisher.end_part()
        session.frames.clear()
        whole = tone(800)
        for part in (whole[:641], whole[641:]):  # a stream that is cut within a sample and goes on
            await publisher.push(part)
            publisher.end_part()
        assert b"".join(frame.payload for frame in session.frames) == whole

    asyncio.run(main())


async def test_a_flush_ends_the_part(tmp_path: Path) -> None:
    async with serving(tmp_path) as (service, _, _), Connection(AudioSession(service, PCM)) as connection:
        await connection.audio.push(tone(1) + b"\x7f")
        await connection.audio.flush()
        await connection.audio.push(tone(160) + b"\x01")
        assert connection.audio.seconds == 161 / 16_000, "the half samples make no sample"
