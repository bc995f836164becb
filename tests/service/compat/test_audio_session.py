"""Samples become frames on their own time line; a flushed line goes on where it was, in the session that it has."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from streamsvc.core import metrics
from streamsvc.core.errors import InvalidRequest, StreamsvcError, TooLarge
from streamsvc.core.types import EncodedFrame
from streamsvc.service.compat.audio_session import (
    Bounds,
    Expired,
    Feed,
    Format,
    Line,
    SessionOver,
    fits,
    hangover,
    spoken,
)
from streamsvc.service.session import Session
from tests.builders.service import serving
from tests.builders.spoken import heard, samples

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
        line = feed(taken)
        await line.push(b"\x01")
        assert taken.frames == []
        await line.push(b"\x02\x03")
        assert [frame.payload for frame in taken.frames] == [b"\x01\x02"]

    asyncio.run(main())


def test_a_language_is_a_code_that_the_model_hears() -> None:
    assert spoken(None, "whisper-tiny.en") is None
    assert spoken("en-US", "whisper-tiny.en") == "en"
    assert spoken("pt_BR", "whisper-base") == "pt"
    assert spoken("multi", "whisper-base") is None
    for language, model in (
        ("de", "whisper-tiny.en"),
        ("multi", "whisper-tiny.en"),
        ("x1", "whisper-base"),
        ("english", "whisper-base"),
    ):
        with pytest.raises(InvalidRequest) as told:
            spoken(language, model)
        assert told.value.code == "unsupported_language"


def test_a_message_over_the_bound_is_refused() -> None:
    fits(b"12345", Bounds(message_bytes=5))
    with pytest.raises(TooLarge):
        fits(b"123456", Bounds(message_bytes=5))


def test_a_hangover_is_held_within_what_can_be() -> None:
    assert [hangover(asked) for asked in (None, 0, 100, 700, 5000, 10**9)] == [None, 0.1, 0.1, 0.7, 5.0, 5.0]


class Talk:
    """A line on a real service, and a task that takes its events as a door does: `async with Talk(line) as talk`."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.got: list[Any] = []

    async def __aenter__(self) -> Talk:
        await self.line.open()
        self._taking = asyncio.create_task(self._take())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._taking.cancel()
        await asyncio.wait([self._taking])
        await self.line.close()

    async def _take(self) -> None:
        while True:
            for event in await self.line.next():
                self.got.append(event)
                if event["type"] == "session.closed":
                    self.line.over(event)

    def finals(self, since: int = 0) -> str:
        return " ".join(event["text"] for event in self.got[since:] if event["type"] == "caption.final")


@pytest.mark.media
@pytest.mark.models
async def test_a_flush_gives_all_that_was_said_and_the_session_and_its_times_go_on(
    media: Path, tmp_path: Path
) -> None:
    before = subscribers()
    data = samples(media / "speech" / "harvard.flac", 16_000)
    cut = 2 * 16_000 * 10 - 1  # in the pause at 10 s, and in the middle of a sample
    async with serving(tmp_path) as (service, _, _):
        await service.ready()
        async with Talk(Line(service, PCM, language="en")) as talk:
            (session,) = service.sessions.by_id.values()
            await talk.line.push(data[:cut])
            await talk.line.flush()
            first = len(talk.got)
            assert talk.got[-1]["type"] == "session.flushed"
            await talk.line.push(data[cut:])
            await talk.line.flush()
            assert list(service.sessions.by_id.values()) == [session], "its place was never given away"
            assert talk.line.seconds == pytest.approx(len(data) / 32_000)
        assert (
            len(
                heard(
                    " ".join(event["text"] for event in talk.got[:first] if event["type"] == "caption.final")
                )
            )
            == 3
        )
        assert len(heard(talk.finals(first))) >= 2
        starts = [event["start"] for event in talk.got if event["type"] == "caption.final"]
        assert starts == sorted(starts)
        assert starts[len(starts) // 2] > 9.0
        assert service.sessions.by_id == {}
        assert not list((tmp_path / "data").glob("*")), "nothing was written"
        assert subscribers() == before, "no subscriber is left behind"


@pytest.mark.media
@pytest.mark.models
async def test_a_line_goes_on_with_another_format_and_hangover_where_it_was(
    media: Path, tmp_path: Path
) -> None:
    path = media / "speech" / "harvard.flac"
    async with serving(tmp_path) as (service, _, _):
        await service.ready()
        async with Talk(Line(service, PCM, language="en")) as talk:
            await talk.line.push(samples(path, 16_000)[: 2 * 16_000 * 10])
            law = Format("pcm_mulaw", 8_000)
            await talk.line.change(law, "en", ("pickle",), 3.0)
            first = len(talk.got)
            await talk.line.push(samples(path, 8_000, "pcm_mulaw")[8_000 * 10 :])
            await talk.line.flush()
            assert len(heard(talk.finals())) >= 4
            assert min(event["start"] for event in talk.got[first:] if event["type"] == "caption.final") > 9.0
            assert [event["type"] for event in talk.got[first:]].count("speech.stopped") == 1, (
                "no pause lasts for 3 s"
            )


async def test_a_session_that_the_service_ends_ends_the_line_and_too_much_audio_is_refused(
    tmp_path: Path,
) -> None:
    before = subscribers()
    async with serving(tmp_path) as (service, _, _):
        line = Line(service, PCM, bounds=Bounds(audio_seconds=1.0))
        await line.open()
        try:
            await line.push(bytes(2 * 16_000 + 2))
            with pytest.raises(Expired):
                await line.push(bytes(2))
            next(iter(service.sessions.by_id.values())).end("shutdown")
            event = (await line.next())[-1]
            assert event["type"] == "session.closed"
            with pytest.raises(SessionOver):
                line.over(event)
            with pytest.raises(StreamsvcError, match="shutdown"):
                await line.push(bytes(2))
        finally:
            await line.close()
        assert service.sessions.by_id == {}
        assert subscribers() == before, "no subscriber is left behind"


async def test_a_flush_of_a_session_that_the_service_ends_says_so(tmp_path: Path) -> None:
    async with serving(tmp_path) as (service, _, _), Talk(Line(service, PCM)) as talk:
        await talk.line.flush()
        (session,) = service.sessions.by_id.values()
        session.end("shutdown")
        await session.over.wait()
        with pytest.raises(SessionOver, match="shutdown"):
            await talk.line.flush()
