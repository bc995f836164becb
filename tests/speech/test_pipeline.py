"""A flush brings out all that was heard before it, in its place among the events, and the session goes on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import av
import numpy as np
import pytest

from streamsvc.core import clock
from streamsvc.core.errors import CapacityError, Conflict, InvalidRequest, WorkerError
from streamsvc.core.options import SessionOptions, SpeechOptions
from streamsvc.core.types import EncodedFrame, MediaTrack, TextLine
from streamsvc.service.session import Session
from streamsvc.speech import decoding_loop, pipeline, recognizer
from tests.builders import units
from tests.builders.session import Models, Playing, Sender, kinds, make, send


def attach(session: Session) -> None:
    context: Any = av.CodecContext.create("pcm_s16le", "r")
    context.sample_rate, context.layout = 16_000, "mono"
    session.media.attach(Sender(MediaTrack("audio", "pcm_s16le", context)))


def frames(start: float, seconds: float, *, loud: bool, piece: float = 0.04) -> list[EncodedFrame]:
    """PCM from session second `start` on: a tone, which is speech on the stage, or silence."""
    wave = (np.sin(np.arange(round(piece * 16_000)) * 0.3) * 16_000 * loud).astype("<i2").tobytes()
    return [
        EncodedFrame("s", "main", start + place * piece, clock.now(), "audio", wave, "pcm_s16le", True)
        for place in range(round(seconds / piece))
    ]


def push(session: Session, start: float, seconds: float, *, loud: bool = True) -> None:
    for frame in frames(start, seconds, loud=loud):
        session.media.tap(frame)


def test_a_flush_closes_what_was_said_before_it_and_the_session_and_its_time_go_on(
    stage: asyncio.Runner,
) -> None:
    async def main() -> None:
        async with Playing(make()) as played:
            live = played.session
            attach(live)
            push(live, 0.0, 2.0)
            began = clock.now()
            await live.speech.flush()
            assert clock.now() - began < 0.5
            await asyncio.sleep(0)
            first = kinds(played.events)
            assert first[-1] == "session.flushed"
            assert first.count("caption.final") >= 1
            assert first[-2] == "speech.stopped"
            push(live, 2.0, 2.0)
            await live.speech.flush()
            live.end("ended")
            events = await played.ended()
        finals = [event for event in events if event["type"] == "caption.final"]
        assert kinds(events).count("session.flushed") == 2
        assert 1.5 < finals[-1]["end"] <= 4.0
        assert [final["start"] for final in finals] == sorted(final["start"] for final in finals)

    stage.run(main())


def test_flushes_at_the_beginning_of_silence_and_one_upon_the_other_are_done_at_once(
    stage: asyncio.Runner,
) -> None:
    async def main() -> None:
        async with Playing(make()) as played:
            live = played.session
            began = clock.now()
            await live.speech.flush()  # nobody has published yet
            attach(live)
            push(live, 0.0, 2.0, loud=False)
            await asyncio.gather(*(live.speech.flush() for _ in range(pipeline.MAX_FLUSHES)))
            assert clock.now() - began < 0.1
            waiting = [asyncio.ensure_future(live.speech.flush()) for _ in range(pipeline.MAX_FLUSHES)]
            await asyncio.sleep(0)
            with pytest.raises(CapacityError, match="under way"):
                await live.speech.flush()
            await asyncio.gather(*waiting)
            live.end("ended")
            assert kinds(await played.ended()).count("session.flushed") == 2 * pipeline.MAX_FLUSHES + 1

    stage.run(main())


def test_a_flush_that_nobody_waits_for_any_more_keeps_its_place_and_harms_nobody(
    stage: asyncio.Runner,
) -> None:
    async def main() -> None:
        async with Playing(make()) as played:
            live = played.session
            attach(live)
            push(live, 0.0, 2.0)
            gone = asyncio.create_task(live.speech.flush())
            await asyncio.sleep(0)
            gone.cancel()
            await live.speech.flush()
            live.end("ended")
            assert kinds(await played.ended()).count("session.flushed") == 2

    stage.run(main())


def test_a_flush_is_told_to_the_one_who_asked(stage: asyncio.Runner) -> None:
    async def main() -> None:
        async with Playing(make()) as played:
            await played.session.speech.flush("somebody")
            await played.session.speech.flush("me")  # the client of `Playing`
            played.session.end("ended")
            assert kinds(await played.ended()).count("session.flushed") == 1

    stage.run(main())


def test_a_flush_while_the_worker_is_away_becomes_a_gap_and_is_done(stage: asyncio.Runner) -> None:
    async def main() -> None:
        models = Models(broken={"vad": WorkerError("away")})
        async with Playing(make(models)) as played:
            live = played.session
            attach(live)
            push(live, 0.0, 2.0)
            began = clock.now()
            await live.speech.flush()
            assert clock.now() - began == pytest.approx(decoding_loop.GIVE_UP, abs=recognizer.RETRY_MAX + 0.1)
            del models.broken["vad"]
            push(live, 2.0, 2.0)
            await live.speech.flush()
            live.end("ended")
            events = await played.ended()
        told = [
            event for event in events if event["type"] in ("caption.gap", "session.flushed", "caption.final")
        ]
        assert [event["type"] for event in told] == [
            "caption.gap",
            "session.flushed",
            "caption.final",
            "session.flushed",
        ]
        assert (told[0]["start"], told[0]["end"], told[0]["reason"]) == (
            0.0,
            pytest.approx(2.0, abs=0.01),
            "worker_restart",
        )

    stage.run(main())


def test_flushes_under_way_are_done_when_the_session_ends_and_refused_after_it(stage: asyncio.Runner) -> None:
    async def main() -> None:
        async with Playing(make()) as played:
            live = played.session
            attach(live)
            push(live, 0.0, 2.0)
            flushing = asyncio.create_task(live.speech.flush())
            await asyncio.sleep(0)
            live.end("ended")
            await flushing
            got = kinds(await played.ended())
            assert got.index("caption.final") < got.index("session.flushed")
            with pytest.raises(Conflict) as late:
                await live.speech.flush()
            assert late.value.code == "session_ended"

    stage.run(main())


def test_a_flush_of_a_session_that_fails_is_refused_and_not_waited_for_for_ever(
    stage: asyncio.Runner,
) -> None:
    async def main() -> None:
        models = Models(broken={"transcribe": WorkerError("the hear worker died")})
        async with Playing(make(models)) as played:
            live = played.session
            attach(live)
            push(live, 0.0, 2.0)
            flushing = asyncio.create_task(live.speech.flush())
            await clock.sleep(1.0)
            assert not flushing.done(), "it waits for a worker that is away"
            played.task.cancel()
            await asyncio.wait([flushing])
            assert isinstance(flushing.exception(), Conflict)

    stage.run(main())


@pytest.mark.parametrize("piece", [0.005, 0.04, 2.0])
def test_who_pushes_is_held_up_after_the_same_seconds_however_the_audio_is_cut(
    stage: asyncio.Runner, piece: float
) -> None:
    async def main() -> None:
        models = Models(broken={"vad": WorkerError("away")})
        async with Playing(make(models, options=SessionOptions(lossless=True))) as played:
            live = played.session
            attach(live)
            ahead = 0.0

            async def pour() -> None:
                nonlocal ahead
                for frame in frames(0.0, 200.0, loud=True, piece=piece):
                    await live.media.wait_for_space()
                    live.media.tap(frame)
                    ahead = frame.at

            pouring = asyncio.create_task(pour())
            await clock.sleep(5.0)
            assert not pouring.done()
            assert 25.0 <= ahead <= 75.0, "the ring, the chunks, and what the transcriber holds"
            pouring.cancel()
            played.task.cancel()

    stage.run(main())


def test_silence_ends_an_utterance_after_the_hangover_of_the_session(stage: asyncio.Runner) -> None:
    async def main() -> None:
        for hangover in (0.1, 0.5, 3.0):
            async with Playing(make(options=SessionOptions(SpeechOptions(hangover=hangover)))) as played:
                live = played.session
                attach(live)
                zero = clock.now()
                for frame in [*frames(0.0, 2.0, loud=True), *frames(2.0, 4.0, loud=False)]:
                    await clock.sleep(zero + frame.at + 0.04 - clock.now())
                    live.media.tap(frame)
                    if "speech.stopped" in kinds(played.events):
                        break
                assert clock.now() - zero - 2.0 == pytest.approx(hangover, abs=0.25)

    stage.run(main())


def test_what_is_tuned_holds_from_the_next_flush_on(stage: asyncio.Runner) -> None:
    async def main() -> None:
        async with Playing(make(options=SessionOptions(SpeechOptions(hangover=0.1)))) as played:
            live = played.session
            attach(live)
            live.speech.reconfigure(SpeechOptions("en", ("Anna",), 3.0))
            push(live, 0.0, 1.0)
            push(live, 1.0, 1.0, loud=False)
            await live.speech.flush()
            push(live, 2.0, 1.0)
            push(live, 3.0, 1.0, loud=False)
            push(live, 4.0, 1.0)
            await live.speech.flush()
            live.end("ended")
            assert kinds(await played.ended()).count("speech.started") == 2, "the second pause ends nothing"

    stage.run(main())


@pytest.mark.parametrize(("level", "partials"), [(0, True), (6, True), (7, False)])
def test_the_top_of_the_ladder_spends_partials_and_no_closed_caption(
    stage: asyncio.Runner, level: int, partials: bool
) -> None:
    async def main() -> None:
        models = Models()
        async with Playing(make(models)) as played:
            attach(played.session)
            played.session.apply_level(level, "test")
            await send(played.session, [*frames(0.0, 4.0, loud=True), *frames(4.0, 1.0, loud=False)])
            assert played.session.speech.backlog < 1.0
            played.session.end("ended")
            events = await played.ended()
        assert ("caption.partial" in kinds(events)) == partials
        assert sum(len(event["words"]) for event in events if event["type"] == "caption.final") == 10
        assert models.asked.count("transcribe") <= {0: 15, 6: 8, 7: 6}[level], "steps are longer"

    stage.run(main())


@pytest.mark.parametrize("seconds", [0.0, 0.09, 5.1, float("nan")])
def test_a_hangover_that_cannot_be_is_refused(seconds: float) -> None:
    with pytest.raises(InvalidRequest) as refused:
        SpeechOptions(hangover=seconds).check()
    assert refused.value.code == "bad_hangover"
    SpeechOptions().check()


@dataclass
class HearsTerms(Models):
    """A recogniser that writes the terms it is given as it pleases. `given`: with each request."""

    given: list[tuple[str, ...]] = field(default_factory=list)

    def _transcribe(self, payload: Any) -> Any:  # type: ignore[override]  # of an instance here
        self.given.append(tuple(payload.get("screen_terms", ())))
        result = Models._transcribe(payload)
        if self.given[-1]:
            result["words"] = [[self.given[-1][0], *word[1:]] for word in result["words"]]
        return result


@pytest.mark.parametrize("wanted", [True, False])
def test_terms_of_the_screen_reach_the_recogniser_and_are_still_corrected(
    stage: asyncio.Runner, wanted: bool
) -> None:
    async def main() -> None:
        models = HearsTerms()
        hear = {"screen_vocabulary": wanted, "replace": {"okafor": "Okafór"}}
        async with Playing(make(models, hear=hear)) as played:
            live = played.session
            attach(live)
            push(live, 0.0, 2.0)
            await live.speech.flush()
            before = len(models.given)
            live.dispatch(replace(units.screen(2.0), lines=(TextLine("Okafor", 0.99, 0, 0, 1, 0.1),)))
            push(live, 2.0, 2.0)
            await live.speech.flush()
            live.end("ended")
            events = await played.ended()
        assert set(models.given[:before]) == {()}
        assert set(models.given[before:]) == ({("Okafor",)} if wanted else {()})
        said = " ".join(event["text"] for event in events if event["type"] == "caption.final")
        assert ("Okafór" in said, "Okafor" in said) == (wanted, False)

    stage.run(main())
