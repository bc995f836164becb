"""Samples become frames on their own time line; a flushed line goes on where it was."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from streamsvc import metrics
from streamsvc.errors import InvalidRequest, StreamsvcError, TooLarge
from streamsvc.session import Session
from streamsvc.types import EncodedFrame
from streamsvc.wire.line import Bounds, Expired, Feed, Format, Line, SessionOver, fits, shifted, spoken
from tests.live import serving
from tests.wire.speech import heard, samples

PCM = Format("pcm_s16le", 16_000)


class Taken:
    """A session that takes frames, and has room when it is told so."""

    id = "0.test"

    def __init__(self) -> None:
        self.frames: list[EncodedFrame] = []
        self.free = asyncio.Event()
        self.free.set()

    async def room(self) -> None:
        await self.free.wait()

    def tap(self, frame: EncodedFrame) -> None:
        self.frames.append(frame)


def feed(taken: Taken, form: Format = PCM, **options: Any) -> Feed:
    return Feed(cast(Session, taken), form, **options)


def subscribers() -> float:
    """Subscribers of all sessions of this process; tests of the log leave some."""
    return float(metrics.subscribers._value.get())


@pytest.mark.parametrize("cut", [1, 3, 641, 5000, 64_000])
def test_the_samples_define_the_time_line_however_they_are_cut(virtual: asyncio.Runner, cut: int) -> None:
    data = bytes(index % 251 for index in range(64_000))  # 2 s

    async def main() -> None:
        taken = Taken()
        line = feed(taken, start=3.0)
        for first in range(0, len(data), cut):
            await line.push(data[first : first + cut])
        assert b"".join(frame.payload for frame in taken.frames) == data
        assert line.seconds == 2.0
        at = 3.0
        for frame in taken.frames:
            assert frame.at == pytest.approx(at)
            assert 0 < len(frame.payload) <= 1280, "40 ms at most"
            assert len(frame.payload) % 2 == 0
            at += len(frame.payload) / 32_000

    virtual.run(main())


def test_who_pushes_waits_until_there_is_room(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        taken = Taken()
        taken.free.clear()
        pushing = asyncio.create_task(feed(taken).push(bytes(3200)))
        await asyncio.sleep(10)
        assert not pushing.done()
        assert taken.frames == []
        taken.free.set()
        await pushing
        assert sum(len(frame.payload) for frame in taken.frames) == 3200

    virtual.run(main())


def test_half_a_sample_waits_for_its_other_half() -> None:
    async def main() -> None:
        taken = Taken()
        line = feed(taken, rest=b"\x01")
        await line.push(b"\x02\x03")
        assert [frame.payload for frame in taken.frames] == [b"\x01\x02"]
        assert line.rest == b"\x03"

    asyncio.run(main())


def test_times_of_a_later_session_are_shifted_and_the_others_left_alone() -> None:
    event = {"type": "caption.final", "at": 1.0, "start": 1.0, "end": 2.0, "words": [{"text": "a", "start": 1.0, "end": 2.0}]}
    later = shifted(event, 10.0)
    assert (later["at"], later["start"], later["end"], later["words"][0]["start"], later["words"][0]["end"]) == (
        11.0,
        11.0,
        12.0,
        11.0,
        12.0,
    )
    assert shifted({"type": "session.closed", "reason": "flushed"}, 5.0) == {"type": "session.closed", "reason": "flushed"}


def test_a_language_is_a_code_that_the_model_hears() -> None:
    assert spoken(None, "whisper-tiny.en") is None
    assert spoken("en-US", "whisper-tiny.en") == "en"
    assert spoken("pt_BR", "whisper-base") == "pt"
    assert spoken("multi", "whisper-base") is None
    for language, model in (("de", "whisper-tiny.en"), ("multi", "whisper-tiny.en"), ("x1", "whisper-base"), ("english", "whisper-base")):
        with pytest.raises(InvalidRequest) as told:
            spoken(language, model)
        assert told.value.code == "unsupported_language"


def test_a_message_over_the_bound_is_refused() -> None:
    fits(b"12345", Bounds(message_bytes=5))
    with pytest.raises(TooLarge):
        fits(b"123456", Bounds(message_bytes=5))


@pytest.mark.media
@pytest.mark.models
async def test_a_flush_gives_all_that_was_said_and_the_times_go_on_in_the_next_session(media: Path, tmp_path: Path) -> None:
    before = subscribers()
    data = samples(media / "speech" / "harvard.flac", 16_000)
    cut = 2 * 16_000 * 10 - 1  # in the pause at 10 s, and in the middle of a sample
    async with serving(tmp_path) as (service, _, _):
        await service.ready()
        line = Line(service, PCM, language="en")
        await line.open()
        got: list[Any] = []

        async def take() -> None:
            while True:
                got.extend(await line.next())

        taking = asyncio.create_task(take())
        try:
            await line.push(data[:cut])
            await line.flush()
            first = list(got)
            assert first[-1]["type"] == "session.closed"
            assert len(service.sessions) == 1, "the first is erased, the next holds its place"
            await line.push(data[cut:])
            await line.flush(last=True)
        finally:
            taking.cancel()
            await line.close()
        text = [" ".join(event["text"] for event in part if event["type"] == "caption.final") for part in (first, got[len(first) :])]
        assert len(heard(text[0])) == 3
        assert len(heard(text[1])) >= 2
        starts = [event["start"] for event in got if event["type"] == "caption.final"]
        assert starts == sorted(starts)
        assert starts[len(starts) // 2] > 9.0
        assert line.seconds == pytest.approx(len(data) / 32_000)
        assert service.sessions == {}
        assert not list((tmp_path / "data").glob("*")), "nothing was written"
        assert subscribers() == before, "no subscriber is left behind"


async def test_a_session_that_the_service_ends_ends_the_line_and_too_much_audio_is_refused(tmp_path: Path) -> None:
    before = subscribers()
    async with serving(tmp_path) as (service, _, _):
        line = Line(service, PCM, bounds=Bounds(audio_seconds=1.0))
        await line.open()
        try:
            await line.push(bytes(2 * 16_000 + 2))
            with pytest.raises(Expired):
                await line.push(bytes(2))
            next(iter(service.sessions.values())).end("shutdown")
            event = (await line.next())[-1]
            assert event["type"] == "session.closed"
            with pytest.raises(SessionOver):
                line.over(event)
            with pytest.raises(StreamsvcError, match="shutdown"):
                await line.push(bytes(2))
        finally:
            await line.close()
        assert service.sessions == {}
        assert subscribers() == before, "no subscriber is left behind"
