"""One session from its first publisher to its end.

Nothing is lost in silence, and nothing that fails takes the rest with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import Payload
from streamsvc.answers import answering, router
from streamsvc.answers.question_queue import QuestionRequest
from streamsvc.core import clock, metrics
from streamsvc.core.context import Roles
from streamsvc.core.errors import CapacityError, Conflict, NotFound, SourceError, WorkerError
from streamsvc.core.options import SessionOptions, SpeechOptions
from streamsvc.core.roles import Role
from streamsvc.core.types import MediaTrack, VideoFrame
from streamsvc.ingest import decode
from streamsvc.ingest.source import SourceSink
from streamsvc.service.media_input import State
from streamsvc.service.session import Session
from streamsvc.vision import perception
from streamsvc.vision.pipeline import VisionPipeline
from tests.builders.session import (
    OPUS,
    VP8,
    Models,
    Playing,
    Sender,
    Tape,
    Threadless,
    kinds,
    make,
    packets,
    send,
)

Run = Callable[[Awaitable[None]], None]


def at(live: Session, state: State) -> bool:
    return live.state is state


def counted(outcome: str) -> float:
    return float(metrics.frames.labels(outcome)._value.get())


def test_a_stream_becomes_captions_sights_and_answers_and_ends_when_all_is_understood(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        async with Playing(make()) as played:
            live = played.session
            assert at(live, State.CREATED)
            sender = Sender()
            live.media.attach(sender)
            assert at(live, State.LIVE)
            await send(live, packets(tmp_path, 3.0))
            question = live.answering.queue.ask(QuestionRequest("What was said?", client="me"))
            live.end("unpublished")
            events = await played.ended()
            assert at(live, State.ENDED)
            assert sender.closed == 1
        assert kinds(events)[:2] == ["session.created", "session.updated"]
        assert kinds(events)[-1] == "session.closed"
        for kind in (
            "speech.started",
            "caption.partial",
            "caption.final",
            "keyframe.sampled",
            "sight.ready",
            "scene.caption",
        ):
            assert kind in kinds(events), kind
        final = next(event for event in events if event["type"] == "caption.final")
        assert final["text"].startswith("La la")
        done = next(event for event in events if event["type"] == "answer.done")
        assert done["question_id"] == question.id
        assert events[-1]["reason"] == "unpublished"
        assert [event["seq"] for event in events if "seq" in event] == list(range(1, live.log.seq + 1))
        assert len(live.dispatcher.cues) == kinds(events).count("caption.final")

    stage.run(main())


def test_sound_alone_and_pictures_alone_are_whole_sessions(stage: asyncio.Runner, tmp_path: Path) -> None:
    async def main() -> None:
        for track, wanted, absent in (
            (OPUS, "caption.final", "keyframe.sampled"),
            (VP8, "sight.ready", "caption.final"),
        ):
            async with Playing(make()) as played:
                played.session.media.attach(Sender(track))
                await send(
                    played.session, [frame for frame in packets(tmp_path, 1.5) if frame.kind == track.kind]
                )
                played.session.end("ended")
                got = kinds(await played.ended())
                assert wanted in got
                assert absent not in got

    stage.run(main())


# --- captions
# -------------------------------------------------------------------------------------------------------


def test_captions_of_another_language_come_in_english_too_and_the_session_ends_after_them(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        async with Playing(
            make(hear={"model": "whisper-base"}, options=SessionOptions(SpeechOptions(translate=True)))
        ) as played:
            played.session.media.attach(Sender(OPUS))
            await send(played.session, [frame for frame in packets(tmp_path, 3.0) if frame.kind == "audio"])
            played.session.end("ended")
            events = await played.ended()
        finals = [event for event in events if event["type"] == "caption.final"]
        translations = [event for event in events if event["type"] == "caption.translation"]
        assert {event["language"] for event in finals} == {"it"}
        assert [(event["of"], event["text"], event["language"]) for event in translations] == [
            (event["id"], "The the.", "en") for event in finals
        ]
        assert [unit.of for unit in played.session.dispatcher.translations] == [
            event["id"] for event in finals
        ]
        assert events[-1]["type"] == "session.closed"

    stage.run(main())


def test_phrases_are_replaced_wherever_captions_are_read(stage: asyncio.Runner, tmp_path: Path) -> None:
    async def main() -> None:
        async with Playing(
            make(options=SessionOptions(SpeechOptions(replace={"la la la": "trill"})))
        ) as played:
            played.session.media.attach(Sender(OPUS))
            await send(played.session, [frame for frame in packets(tmp_path, 3.0) if frame.kind == "audio"])
            played.session.end("ended")
            events = await played.ended()
        text = " ".join(event["text"] for event in events if event["type"] == "caption.final")
        assert "trill" in text
        assert "la la la" not in text.lower()
        assert [cue.text for cue in played.session.dispatcher.cues] == [
            event["text"] for event in events if event["type"] == "caption.final"
        ]

    stage.run(main())


def test_a_session_is_changed_while_it_is_live(stage: asyncio.Runner, tmp_path: Path) -> None:
    async def main() -> None:
        async with Playing(make(hear={"model": "whisper-base"})) as played:
            live = played.session
            live.media.attach(Sender(OPUS))
            sound = [frame for frame in packets(tmp_path, 3.0) if frame.kind == "audio"]
            await send(live, sound)
            await live.speech.flush()
            before = len(live.dispatcher.cues)
            options = replace(live.speech.options, replace={"la la": "trill"}, translate=True)
            live.speech.use(options)
            assert live.speech.options == options
            await clock.sleep(3.0)  # what was said before is no context any more
            await send(live, sound)
            live.end("ended")
            events = await played.ended()
        finals = [event for event in events if event["type"] == "caption.final"]
        translations = {event["of"] for event in events if event["type"] == "caption.translation"}
        assert 0 < before < len(finals)
        assert all("trill" not in event["text"].lower() for event in finals[:before])
        assert all("la la" not in event["text"].lower() for event in finals[before:])
        assert translations == {event["id"] for event in finals[before:]}

    stage.run(main())


# --- states
# ---------------------------------------------------------------------------------------------------------


def test_nothing_moves_an_ended_session(stage: asyncio.Runner) -> None:
    async def main() -> None:
        async with Playing(make()) as played:
            live, peer = played.session, Sender()
            live.media.attach(peer)
            live.end("first")
            live.end("second")
            with pytest.raises(Conflict) as refused:
                live.media.attach(Sender())
            assert refused.value.code == "session_ended"
            live.media.publisher_state(peer, "stalled", "late")
            events = await played.ended()
            assert events[-1]["reason"] == "first"
            assert "session.stalled" not in kinds(events)
            with pytest.raises(Conflict):
                live.media.attach(Sender())
            with pytest.raises(NotFound) as late:
                live.answering.queue.ask(QuestionRequest("Anybody there?"))
            assert late.value.code == "session_ended"
            assert at(live, State.ENDED)

    stage.run(main())


# --- media
# ----------------------------------------------------------------------------------------------------------


def test_what_one_publisher_left_behind_is_decoded_as_its_own_whoever_comes_next(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        frames = packets(tmp_path, 1.0)
        async with Playing(make()) as played:
            live = played.session
            live.media.attach(Sender(OPUS, VP8))
            for frame in frames:
                live.media.tap(frame)
            live.media.detach("left")
            live.media.attach(Sender(MediaTrack("audio", "pcm_mulaw")))
            live.end("ended")
            got = kinds(await played.ended())
            assert "sight.ready" in got
            assert "caption.final" in got
            assert live.failure is None

    stage.run(main())


def test_gauges_hold_the_sum_of_all_sessions_and_nothing_of_those_that_ended(
    stage: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stuck(self: VisionPipeline) -> None:
        while not self.video._closed:
            await clock.sleep(0.5)
        self._keyframes.close()

    monkeypatch.setattr(VisionPipeline, "_decode", stuck)

    def waiting() -> float:
        return float(metrics.queue_depth.labels("video")._value.get())

    async def main() -> None:
        before, active = waiting(), metrics.sessions_active._value.get()
        frames = packets(tmp_path, 0.4, audio=None)
        async with Playing(make()) as one, Playing(make()) as other:
            for played in (one, other):
                played.session.media.attach(Sender(VP8))
                for frame in frames:
                    played.session.media.tap(frame)
            await clock.sleep(6.0)
            assert waiting() - before == 2 * len(frames)
            assert metrics.sessions_active._value.get() - active == 2
        assert waiting() == before
        assert metrics.sessions_active._value.get() == active

    stage.run(main())


# --- workers that fail
# ----------------------------------------------------------------------------------------------


def test_who_speaks_again_after_a_long_absence_of_the_worker_is_heard(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        models = Models()
        frames = packets(tmp_path, 2.0, video=None)
        async with Playing(make(models, ingest={"resume_seconds": 300.0})) as played:
            live, peer = played.session, Sender(OPUS)
            live.media.attach(peer)
            models.broken = {"vad": WorkerError("the hear worker died")}
            await send(live, frames)
            await clock.sleep(120.0)  # neither worker nor audio
            models.broken.clear()
            await send(live, frames)
            live.end("ended")
            got = kinds(await played.ended())
            assert "caption.gap" in got, "what was not heard is said"
            assert "caption.final" in got
            assert got.index("caption.gap") < got.index("caption.final")

    stage.run(main())


def test_a_room_that_fails_ends_its_session_with_an_error_and_lets_the_publisher_go(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        models = Models()
        live = make(models, options=SessionOptions(lossless=True))

        def broken(*_: object) -> Any:
            raise RuntimeError("somebody said a secret")

        live.timeline.add = broken  # type: ignore[method-assign,assignment]
        async with Playing(live) as played:
            sender = Sender()
            live.media.attach(sender)
            await send(live, packets(tmp_path, 1.0))
            events = await played.ended()
            assert sender.closed == 1
            await live.media.wait_for_space()  # a source that waits for room is let go too
            failure = live.failure
        assert events[-1]["reason"] == "failed"
        assert events[-1]["error"]["code"] == "internal"
        assert "secret" not in str(events)
        assert failure is not None
        assert at(live, State.ENDED)

    stage.run(main())


def test_a_cancelled_session_still_tells_its_end_and_why(stage: asyncio.Runner) -> None:
    async def main() -> None:
        for ending, wanted in ((False, "cancelled"), (True, "shutdown")):
            async with Playing(make()) as played:
                played.session.media.attach(Sender())
                if ending:
                    played.session.end("shutdown")
                played.task.cancel()
                assert (await played.ended())[-1]["reason"] == wanted

    stage.run(main())


# --- sources
# --------------------------------------------------------------------------------------------------------


def test_a_source_read_as_fast_as_possible_loses_nothing(stage: asyncio.Runner, tmp_path: Path) -> None:
    async def main() -> None:
        outcomes = [f"dropped_{queue}" for queue in ("audio", "video", "chunks", "keyframe", "text")]
        before = [counted(outcome) for outcome in outcomes]
        async with Playing(
            make(options=SessionOptions(lossless=True), ingest={"audio_seconds": 0.04, "video_ring": 2})
        ) as played:
            tape = Tape(packets(tmp_path, 4.0))
            await played.session.play(tape, None)
            assert played.session.clock.position() == pytest.approx(4.0, abs=0.1), (
                "media time, not the clock's"
            )
            events = await played.ended()
            assert tape.closed
        assert [counted(outcome) for outcome in outcomes] == before
        assert events[-1]["reason"] == "source_ended"
        assert sum(len(event["words"]) for event in events if event["type"] == "caption.final") >= 8

    stage.run(main())


def test_a_source_may_wait_until_the_decoders_have_all_its_frames(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    class Waiting(Tape):
        left: tuple[int, int] | None = None

        async def run(self, sink: SourceSink) -> None:
            await super().run(sink)
            assert len(played.session.vision.video), "there is something to wait for"
            await sink.taken()
            self.left = len(played.session.speech.audio), len(played.session.vision.video)

    played: Playing

    async def main() -> None:
        nonlocal played
        async with Playing(make(options=SessionOptions(lossless=True))) as played:
            tape = Waiting(packets(tmp_path, 1.0))
            await played.session.play(tape, None)
            assert tape.left == (0, 0)

    stage.run(main())


def test_a_source_that_fails_ends_the_session_with_its_error_and_what_came_is_kept(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        async with Playing(make(options=SessionOptions(lossless=True))) as played:
            failure = SourceError("a.mp4 is damaged", code="corrupt")
            await played.session.play(Tape(packets(tmp_path, 2.0), failure), None)
            events = await played.ended()
            assert played.session.failure is failure
        assert events[-1]["reason"] == "source_failed"
        assert events[-1]["error"] == {
            "type": "source_error",
            "code": "corrupt",
            "message": "a.mp4 is damaged",
            "retryable": False,
        }
        assert "caption.final" in kinds(events)

    stage.run(main())


def test_a_live_source_that_falls_silent_is_told_and_its_return_too(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    class Faltering(Tape):
        """Media, silence, media."""

        async def run(self, sink: SourceSink) -> None:
            await super().run(sink)
            sink.on_state("stalled", "no media")
            sink.on_state("resumed", "opened again")

    async def main() -> None:
        async with Playing(make(options=SessionOptions(lossless=True))) as played:
            await played.session.play(Faltering(packets(tmp_path, 1.0)), None)
            events = await played.ended()
        told = [
            (event["type"], event["reason"])
            for event in events
            if event["type"] in ("session.stalled", "session.resumed")
        ]
        assert told == [("session.stalled", "no media"), ("session.resumed", "opened again")]

    stage.run(main())


def test_a_source_for_a_session_that_has_ended_is_closed(stage: asyncio.Runner) -> None:
    async def main() -> None:
        async with Playing(make()) as played:
            played.session.end("deleted")
            tape = Tape([])
            with pytest.raises(Conflict):
                await played.session.play(tape, None)
            assert tape.closed == 1

    stage.run(main())


def test_a_full_disk_is_told_and_the_stream_goes_on_to_its_end(stage: asyncio.Runner, tmp_path: Path) -> None:
    async def main() -> None:
        async with Playing(make()) as played:
            live = played.session
            live.store._db.execute("PRAGMA max_page_count = 5")
            live.media.attach(Sender())
            await send(live, packets(tmp_path, 3.0))
            live.end("ended")
            events = await played.ended()
        assert [event["error"]["code"] for event in events if event["type"] == "error"][:1] == [
            "store_failed"
        ]
        assert {"caption.final", "keyframe.sampled", "sight.ready"} <= set(kinds(events))
        assert (events[-1]["type"], events[-1]["reason"]) == ("session.closed", "ended")
        assert played.task.done() and played.task.exception() is None

    stage.run(main())


# --- the budget
# -----------------------------------------------------------------------------------------------------


def test_what_a_level_spends_is_told_once_and_given_back(stage: asyncio.Runner, tmp_path: Path) -> None:
    def count(events: list[dict[str, Any]], kind: str) -> int:
        return kinds(events).count(kind)

    async def main() -> None:
        async with Playing(make(ingest={"video": "full"})) as played:
            live = played.session
            live.media.attach(Sender())
            for level in (0, 4, 4, 6):
                live.apply_level(level, "sound waits to be processed")
            await send(live, packets(tmp_path, 6.0))
            with pytest.raises(CapacityError, match="sound waits to be processed") as refused:
                live.answering.queue.ask(QuestionRequest("What is shown?"))
            assert refused.value.code == "capacity"
            await clock.sleep(1.0)
            spent = list(played.events)
            live.apply_level(0, "")
            live.answering.queue.ask(QuestionRequest("What is shown?", client="me"))
            await send(live, packets(tmp_path, 6.0))
            live.end("ended")
            events = await played.ended()
        told = [(event["level"], event["reason"]) for event in events if event["type"] == "session.degraded"]
        assert told == [
            (4, "sound waits to be processed"),
            (6, "sound waits to be processed"),
            (0, "recovered"),
        ]
        assert [event["level"] for event in events if event["type"] == "latency.report"][-1] == 0
        assert count(spent, "scene.caption") == count(events, "scene.caption") == 1, "by rule: costs nothing"
        assert (
            0
            < count(spent, "keyframe.sampled")
            < count(events, "keyframe.sampled") - count(spent, "keyframe.sampled")
        )
        assert count(events, "answer.done") == 1

    stage.run(main())


# --- stages


class Slow:
    """A role each of whose calls takes time. `seconds`: by op; others take 0.02."""

    def __init__(self, role: Role, seconds: dict[str, float]) -> None:
        self.role = role
        self.seconds = seconds

    async def call(self, op: str, payload: Any, *, deadline_in_s: float, affinity: str = "") -> Any:
        await clock.sleep(self.seconds.get(op, 0.02))
        return await self.role.call(op, payload, deadline_in_s=deadline_in_s, affinity=affinity)

    async def stream(self, op: str, payload: Any, *, deadline_in_s: float, affinity: str = "") -> Any:
        await clock.sleep(self.seconds.get(op, 0.02))
        async for item in self.role.stream(op, payload, deadline_in_s=deadline_in_s, affinity=affinity):
            yield item


class SlowModels(Models):
    def roles(self) -> Roles:
        seconds = {"transcribe": 0.12, "translate": 0.3, "look": 0.05, "read": 0.8}
        roles = super().roles()
        hear, see, think = (Slow(role, seconds) for role in (roles.hear, roles.see, roles.think))
        return Roles(hear, see, think)

    @staticmethod
    def _read(payload: Payload) -> Payload:
        corners = np.array([[0.1, 0.1, 0.8, 0.1]], np.float32)
        return {"texts": ["Budget 2026"], "scores": [0.9], "corners": corners}


def test_the_stages_of_every_event_with_an_age_add_up_to_it(
    stage: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perception, "likely_text", lambda page: True)
    jpeg = decode.jpeg

    def slow_jpeg(frame: VideoFrame) -> bytes:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Threadless)
        loop.jump(0.015)
        return jpeg(frame)

    async def slow_route(*arguments: Any) -> Any:
        await clock.sleep(0.03)
        return await router.route(*arguments)

    monkeypatch.setattr(decode, "jpeg", slow_jpeg)
    monkeypatch.setattr(answering, "route", slow_route)

    async def main() -> None:
        options = SessionOptions(SpeechOptions(translate=True))
        async with Playing(make(SlowModels(), options=options, hear={"model": "whisper-base"})) as played:
            live = played.session
            live.media.attach(Sender())
            await live.watches.add("when a cat appears")
            await live.watches.add('when somebody says "la"')
            await send(live, packets(tmp_path, 3.0))
            for text in ("What was said?", "How many cats are there?"):
                live.answering.queue.ask(QuestionRequest(text, client="me"))
            waiting = live.answering.queue.ask(QuestionRequest("And what else?", client="me"))
            await clock.sleep(0.01)
            live.answering.cancel(waiting.id)
            live.end("unpublished")
            events = await played.ended()
        aged = [event for event in events if event["age_ms"]]
        assert {event["type"] for event in aged} >= {
            "speech.started",
            "speech.stopped",
            "caption.partial",
            "caption.final",
            "caption.translation",
            "keyframe.sampled",
            "sight.ready",
            "screen.text",
            "scene.caption",
            "answer.delta",
            "answer.done",
            "alert.fired",
        }
        for event in aged:
            assert sum(event["stages"].values()) == pytest.approx(event["age_ms"], abs=1.0), event
            assert event["stages"].get("publish", 0.0) <= 1.0, f"what took the time is named: {event}"
        assert all(not event["stages"] for event in events if not event["age_ms"])
        parts = {event["type"]: event["stages"] for event in aged}
        assert parts["caption.final"]["queue"] >= 100, "the fake worker says that decoding took 10 ms"
        assert parts["caption.translation"]["translate"] == pytest.approx(320, abs=25)
        assert parts["sight.ready"]["sight"] == pytest.approx(50, abs=1)
        assert parts["keyframe.sampled"]["jpeg"] == 15.0
        assert parts["answer.done"]["route"] == pytest.approx(30, abs=1)
        assert parts["screen.text"]["text"] == pytest.approx(800, abs=1)

    stage.run(main())
