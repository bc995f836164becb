"""One trace per utterance, keyframe and question: whole, bounded, and without a word of the stream."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streamsvc.answers.question_queue import QuestionRequest
from streamsvc.core import clock
from streamsvc.core.errors import CapacityError
from streamsvc.core.spans import Span
from streamsvc.core.types import (
    Answer,
    Cue,
    Delta,
    Evidence,
    Keyframe,
    Scene,
    Sight,
    Speech,
    Stages,
    TextLine,
    Translation,
    Word,
    Words,
)
from streamsvc.core.units import AlertFired, Flushed, Reply, SceneDelta, Unit
from streamsvc.service import traces
from streamsvc.service.traces import Traces
from tests.builders import units
from tests.builders.session import Playing, Sender, make, packets, send
from tests.fakes.span_sink import SpanList

CANARY = "xylophone-canary"
HEAD: dict[str, Any] = {"session": "s", "track": "main"}


def speech(at: float, *, active: bool) -> Speech:
    return Speech(**HEAD, at=at, arrived=clock.now(), active=active)


def words(at: float, text: str = "la") -> Words:
    return Words(**HEAD, at=at, arrived=clock.now(), words=(Word(text, at, at + 0.3),), stable=1, final=False)


def cue(at: float, text: str = "la la", stages: Stages = ()) -> Cue:
    return replace(units.cue(text, at), arrived=clock.now(), stages=stages)


def reply(part: Any, question: str = "q", **more: Any) -> Reply:
    return Reply(question, 1.0, clock.now(), part, None, **more)


async def take(live: Traces, *all_units: Unit) -> None:
    for unit in all_units:
        live.take(unit, None, 0)
        await clock.sleep(0.1)


def test_a_session_tells_a_trace_of_each_utterance_keyframe_and_question(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    sink = SpanList()

    async def main() -> list[dict[str, Any]]:
        async with Playing(make(spans=sink)) as played:
            played.session.media.attach(Sender())
            await send(played.session, packets(tmp_path, 3.0))
            played.session.answering.queue.ask(QuestionRequest("What was said?", client="me"))
            played.session.end("unpublished")
            return await played.ended()

    events = stage.run(main())
    for root in sink.roots("utterance"):
        assert {"speech.started", "words", "caption.final"} <= set(sink.names(root))
    for root in sink.roots("keyframe"):
        assert sink.names(root)[:2] == ["keyframe.sampled", "sight.ready"]
    (question,) = sink.roots("question")
    assert sink.names(question)[-1] == "answer.done"
    # Each published event of these kinds is one span, under its id, as long as its age.
    spans = {str(span.attributes["streamsvc.event_id"]): span for span in sink.spans if _event_id(span)}
    told = [
        event
        for event in events
        if event["type"] in ("caption.final", "sight.ready", "keyframe.sampled", "answer.done")
    ]
    assert {event["type"] for event in told} == {
        "caption.final",
        "sight.ready",
        "keyframe.sampled",
        "answer.done",
    }
    for event in told:
        span = spans[event["id"]]
        assert span.name == event["type"]
        assert (span.end - span.start) / 1e6 == pytest.approx(event["age_ms"], abs=0.2)
        below = {one.name: one.end - one.start for one in sink.below(span)}
        assert set(below) <= set(event["stages"])
        assert sum(below.values()) <= span.end - span.start + 1000
    assert {span.parent for span in sink.spans} - {0} <= {span.id for span in sink.spans}


def _event_id(span: Span) -> bool:
    return "streamsvc.event_id" in span.attributes


async def test_speech_that_goes_on_while_its_captions_are_made_has_them_in_its_own_trace() -> None:
    sink = SpanList()
    live = Traces("s", sink)
    await take(live, speech(1.0, active=True), words(0.8), speech(2.0, active=False))
    await take(live, speech(2.6, active=True), cue(1.1), words(2.7), cue(2.7))
    translated = Translation(
        **HEAD, at=1.1, arrived=clock.now(), of="e", text="la", language="en", start=1.1, end=2
    )
    await take(live, translated)
    live.tick(ended=True)
    first, second = sink.roots("utterance")
    assert sink.names(first) == [
        "speech.started",
        "words",
        "speech.stopped",
        "caption.final",
        "caption.translation",
    ]
    assert sink.names(second) == ["speech.started", "words", "caption.final"]


async def test_the_root_spans_all_its_parts_and_a_part_its_stages() -> None:
    sink = SpanList()
    live = Traces("s", sink)
    arrived = clock.now()
    await clock.sleep(0.05)
    live.take(speech(1.0, active=True), None, 3)
    now = clock.now()
    marks = (("wait", arrived + 0.02), ("asr", arrived + 0.04), ("cut", arrived + 0.0401), ("asr", now + 9))
    live.take(replace(cue(1.0), arrived=arrived, stages=marks), None, 3)
    live.tick(ended=True)
    (root,) = sink.roots()
    part = next(one for one in sink.below(root) if one.name == "caption.final")
    stages = sink.below(part)
    assert [one.name for one in stages] == ["wait", "asr", "asr"], "below 1 ms there is no span"
    assert part.attributes["streamsvc.level"] == 3
    assert stages[0].start == part.start
    assert stages[-1].end == part.end
    assert root.end == max(one.end for one in sink.below(root))
    assert abs(root.start / 1e9 - clock.utc().timestamp()) < 5, "on the wall clock"


async def test_a_question_ends_with_its_answer_or_its_error() -> None:
    sink = SpanList()
    live = Traces("s", sink)
    answer = Answer("a", "la", True, (), outcome="answer", by="reader")
    await take(
        live,
        reply(Delta("a", "la"), "a", first=True),
        reply(Delta("a", "la"), "a"),
        reply(CapacityError("full"), "b"),
        reply(answer, "a"),
    )
    failed, answered = sink.roots("question")
    assert sink.names(answered) == ["answer.first_delta", "answer.done"]
    assert (failed.failed, answered.failed) == (True, False)
    done = sink.below(answered)[-1]
    assert (done.attributes["streamsvc.outcome"], done.attributes["streamsvc.by"]) == ("answer", "reader")
    assert sink.below(failed)[0].attributes["streamsvc.error"] == "capacity"


async def test_what_is_learnt_of_a_picture_belongs_to_its_keyframe_and_to_no_other() -> None:
    sink = SpanList()
    live = Traces("s", sink)
    first, second = keyframe(1.0), keyframe(2.0)
    await take(live, first, second, units.sight(2.0), units.sight(1.0), units.screen(1.0), units.sight(9.0))
    live.tick(ended=True)
    one, two = sink.roots("keyframe")
    assert sorted(sink.names(one)) == ["keyframe.sampled", "screen.text", "sight.ready"]
    assert sorted(sink.names(two)) == ["keyframe.sampled", "sight.ready"]


def keyframe(at: float) -> Keyframe:
    return units.keyframe(at, clock.now())


async def test_traces_that_are_open_are_bounded_and_quiet_ones_end(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = SpanList()
    live = Traces("s", sink)
    for at in range(traces.OPEN + 2):
        live.take(keyframe(float(at)), None, 0)
        live.take(speech(float(at), active=True), None, 0)
    assert len(sink.roots("keyframe")) == len(sink.roots("utterance")) == 2
    assert len(live._open) == 2 * traces.OPEN
    live.tick()
    assert len(live._open) == 2 * traces.OPEN
    monkeypatch.setattr(traces, "QUIET_SECONDS", -1.0)
    live.tick()
    assert live._open == []


async def test_an_utterance_without_an_end_is_cut_into_traces() -> None:
    sink = SpanList()
    live = Traces("s", sink)
    live.take(speech(0.0, active=True), None, 0)
    for number in range(2 * traces.PARTS):
        live.take(words(number * 0.4), None, 0)
    live.tick(ended=True)
    assert [len(sink.below(root)) for root in sink.roots()] == [traces.PARTS, traces.PARTS, 1]


async def test_a_part_has_spans_of_its_longest_stages_alone() -> None:
    sink = SpanList()
    live = Traces("s", sink)
    began = clock.now() - 10
    lengths = [0.002 + 0.001 * number for number in range(2 * traces.STAGES)]
    ends = [began + sum(lengths[: number + 1]) for number in range(len(lengths))]
    marks = tuple((f"s{number}", end) for number, end in enumerate(ends))
    live.take(replace(cue(1.0), arrived=began, stages=marks), None, 0)
    live.tick(ended=True)
    (part,) = sink.below(sink.roots()[0])
    kept = [one.name for one in sink.below(part)]
    assert len(kept) == traces.STAGES
    assert kept[-1] == "publish"
    assert "s0" not in kept


async def test_a_share_of_the_traces_is_sampled_each_whole_or_not_at_all() -> None:
    sink = SpanList(0.5)
    live = Traces("s", sink)
    for number in range(400):
        live.take(reply(Delta("a", "la"), str(number), first=True), None, 0)
        live.take(reply(Answer("a", "la", True), str(number)), None, 0)
    assert 100 < len(sink.roots()) < 300
    assert all(sink.names(root) == ["answer.first_delta", "answer.done"] for root in sink.roots())
    none = SpanList(0.0)
    live = Traces("s", none)
    await take(live, speech(1.0, active=True), cue(1.0))
    live.tick(ended=True)
    assert none.spans == []


async def test_without_a_sink_nothing_is_kept() -> None:
    live = Traces("s", None)
    await take(live, speech(1.0, active=True), cue(1.0))
    assert live._open == []


def secret_units() -> list[Unit]:
    """Each kind of unit, with the canary wherever it holds text, an address or an id that a client chose."""
    now = clock.now()
    head = {**HEAD, "at": 1.0, "arrived": now}
    evidence = (Evidence(1.0, 1.0, "speech", CANARY),)
    answer = Answer(CANARY, CANARY, True, evidence, values=(CANARY,))
    seen = replace(units.sight(1.0, CANARY), of=CANARY, colours=(CANARY,))
    assert isinstance(seen, Sight)
    line = TextLine(CANARY, 0.9, 0, 0, 1, 0.1)
    asked: dict[str, Any] = {"question": CANARY, "asker": CANARY}
    return [
        speech(1.0, active=True),
        words(1.0, CANARY),
        cue(1.0, CANARY),
        Translation(**head, of=CANARY, text=CANARY, language="en", start=1.0, end=2.0),
        speech(2.0, active=False),
        Flushed(CANARY),
        keyframe(1.0),
        seen,
        replace(units.screen(1.0, CANARY), lines=(line,), of=CANARY),
        Scene(**head, text=CANARY, start=1.0, end=1.0, evidence=evidence, scene_id=CANARY),
        SceneDelta(**head, scene_id=CANARY, index=0, text=CANARY, start=1.0),
        Reply(CANARY, 1.0, now, Delta(CANARY, CANARY), CANARY, first=True, **asked),
        Reply(CANARY, 1.0, now, answer, CANARY, **asked),
        Reply("b", 1.0, now, CapacityError(CANARY), CANARY, **asked),
        AlertFired(CANARY, 1.0, now, CANARY, evidence),
    ]


async def test_no_span_holds_a_word_of_the_stream_a_question_or_an_address() -> None:
    sink = SpanList()
    session = make(spans=sink)
    session.frame_url = lambda at: f"/frames/{CANARY}.jpg?token={CANARY}"  # type: ignore[method-assign]
    for unit in secret_units():
        if not isinstance(unit, Flushed):
            session.dispatcher.dispatch(unit)
    session.dispatcher.tick(ended=True)
    assert {span.name for span in sink.roots()} == {"utterance", "keyframe", "question"}
    parts = {
        "speech.started",
        "words",
        "caption.final",
        "caption.translation",
        "speech.stopped",
        "keyframe.sampled",
        "sight.ready",
        "screen.text",
        "scene.caption",
        "answer.first_delta",
        "answer.done",
    }
    assert parts <= {span.name for span in sink.spans}
    assert [span for span in sink.spans if CANARY in repr(span)] == []
    session.store.close(purge=True)
