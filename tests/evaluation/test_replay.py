"""A recorded session is played again, and goes the same way; what goes otherwise is told."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import Engine, Op
from streamsvc.core import config
from streamsvc.core.clock import Threadless
from streamsvc.core.errors import InvalidRequest
from streamsvc.core.options import SessionOptions, VisionOptions
from streamsvc.evaluation import replay, session_run
from streamsvc.evaluation.bundle import Record
from streamsvc.evaluation.replay_outcome import Outcome
from streamsvc.service.recording import NAME
from streamsvc.vision import colour, perception
from tests.builders.clips import clip
from tests.builders.fake_service import serving
from tests.builders.recorded import Changed, changed, recorded, same
from tests.builders.session import Models
from tests.fakes import engines_by_name

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"


def played(bundle: Path, load: session_run.Load | None = None) -> Outcome:
    return replay.run(bundle, config.load(None), load)


def kinds(outcome: Outcome) -> set[str]:
    return {event["type"] for event in outcome.events}


def first(
    kind: str, change: Callable[[Record], Changed | None], **told: Any
) -> Callable[[Record], Changed | None]:
    """Change the first record of a kind with such fields alone."""
    done: list[int] = []

    def one(record: Record) -> Changed | None:
        fits = record.kind == kind and all(record.fields.get(name) == value for name, value in told.items())
        if done or not fits:
            return same(record)
        done.append(record.place)
        return change(record)

    return one


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of speech alone, on a virtual clock."""
    with asyncio.Runner(loop_factory=Threadless) as runner:
        return runner.run(recorded(tmp_path_factory.mktemp("spoken")))


def test_two_replays_are_byte_equal_and_equal_to_what_was_recorded(spoken: Path) -> None:
    one, other = played(spoken), played(spoken)
    assert one.text() == other.text()
    assert (one.first, one.divergences, one.cut) == ("", 0, "")
    assert {"caption.partial", "caption.final", "speech.stopped", "session.closed"} <= kinds(one)
    assert len(one.events) == len(one.recorded)


def test_pictures_questions_watches_updates_and_levels_are_replayed(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    bundle = stage.run(recorded(tmp_path, pictures=True, clients=True))
    one, other = played(bundle), played(bundle)
    assert (one.first, one.divergences) == ("", 0)
    assert one.text() == other.text()
    wanted = {
        "sight.ready",
        "scene.caption",
        "alert.fired",
        "answer.done",
        "session.degraded",
        "session.flushed",
    }
    assert wanted <= kinds(one)


@dataclass
class ReadsTerms(Models):
    """Models that read a name on every picture. `given`: the screen terms of each request to hear."""

    given: list[Any] = field(default_factory=list)

    def _read(self, payload: Any) -> Any:  # type: ignore[override]  # of an instance here
        self.asked.append("a name")
        names = ["Okafor" if self.asked.count("a name") == 1 else "Motikatika"]
        return {"texts": names, "scores": [0.99], "corners": np.array([[0.1, 0.1, 0.5, 0.1]], np.float32)}

    def _transcribe(self, payload: Any) -> Any:  # type: ignore[override]
        self.given.append(payload.get("screen_terms"))
        return Models._transcribe(payload)


def test_the_words_of_the_screen_go_to_the_recogniser_as_they_went_when_recorded(
    stage: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perception, "likely_text", lambda page: True)
    models = ReadsTerms()
    bundle = stage.run(recorded(tmp_path, pictures=True, models=models))
    assert ["Okafor"] in models.given
    assert models.given[-1] == ["Okafor", "Motikatika"]
    one, other = played(bundle), played(bundle)
    assert (one.first, one.divergences) == ("", 0)
    assert one.text() == other.text()

    def without_setting(record: Record) -> Changed:
        kind, fields, payload = same(record)
        if kind == "session":
            fields["settings"]["hear"].pop("screen_vocabulary")
        return kind, fields, payload

    old = played(changed(bundle, without_setting))
    assert old.divergences == sum(terms is not None for terms in models.given)  # no terms were given then


def test_a_recording_of_real_time_and_threads_is_replayed_in_its_order_each_time(tmp_path: Path) -> None:
    bundle = asyncio.run(recorded(tmp_path, seconds=2.0, pictures=True, clients=True))
    one, other = played(bundle), played(bundle)
    assert (one.first, one.divergences) == ("", 0)
    assert one.text() == other.text()


@pytest.mark.parametrize("late", ["measure", "_page"])
def test_what_a_thread_finishes_late_is_replayed_as_late(
    late: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that was slower when it was recorded than what went on beside it."""
    module: Any = perception if late == "_page" else colour
    plain = getattr(module, late)
    pages: list[bool] = []

    def slow(*arguments: Any) -> Any:
        time.sleep(0.3)
        return plain(*arguments)

    def every_other(_: Any) -> bool:
        """Text, then none: that is told without a call of a model."""
        pages.append(not pages or not pages[-1])
        return pages[-1]

    monkeypatch.setattr(perception, "likely_text", every_other)
    with monkeypatch.context() as patched:
        patched.setattr(module, late, slow)
        bundle = asyncio.run(recorded(tmp_path, seconds=2.0, pictures=True))
    pages.clear()
    found = played(bundle)
    assert (found.first, found.divergences) == ("", 0)
    assert pages.count(False)


def test_a_file_that_its_own_process_reads_is_recorded_and_replayed_the_same(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", video="libx264", audio="aac", seconds=2.0)

    async def record() -> Path:
        async with serving(tmp_path / "data", store={"record": "all"}) as service:
            session = await service.sessions.create(str(path), roots=None)
            await session.over.wait()
            return tmp_path / "data" / session.id / NAME

    def plain(events: list[dict[str, Any]]) -> list[tuple[str, float]]:
        """In no order: real stages side by side publish in the order of the moment."""
        of_media = [event for event in events if not event["type"].startswith("session.")]
        return sorted((event["type"], event.get("at", 0.0)) for event in of_media)

    one = played(asyncio.run(record()))
    assert (one.divergences, one.cut) == (0, "")
    assert plain(one.events) == plain(one.recorded)
    assert one.recorded[-1]["reason"] == "source_ended"
    assert {"caption.final", "scene.caption"} <= kinds(one)


def test_another_reply_of_a_model_is_found(spoken: Path) -> None:
    def otherwise(record: Record) -> Changed:
        words = [["lo", *word[1:]] for word in record.payload["words"]]
        return "reply", dict(record.fields), {**record.payload, "words": words}

    def every(record: Record) -> Changed:
        return otherwise(record) if "words" in record.payload else same(record)

    found = played(changed(spoken, every))
    assert "caption.partial at" in found.first or "was asked another thing" in found.first
    assert found.divergences > 0 or "differs" in found.first


def test_another_request_is_counted_and_named_by_its_step(spoken: Path) -> None:
    places: list[int] = []

    def otherwise(record: Record) -> Changed:
        places.append(record.place)
        return "call", {**record.fields, "digest": "0" * 24}, {}

    found = played(changed(spoken, first("call", otherwise, op="transcribe")))
    assert found.divergences == 1
    assert found.first.startswith(f"step {places[0]} at ")
    assert found.first.endswith("hear transcribe was asked another thing")
    assert len(found.events) == len(found.recorded), "the replay goes on with the recorded reply"


def test_a_stage_that_takes_less_than_recorded_makes_other_requests(spoken: Path) -> None:
    def less(record: Record) -> Changed:
        return "take", {**record.fields, "count": 1}, {}

    def large(record: Record) -> bool:
        return record.kind == "take" and record.fields["name"] == "chunks" and record.fields["count"] > 0

    whole = played(spoken)
    found = played(changed(spoken, lambda record: None if large(record) else same(record)))
    assert not whole.first
    assert found.first


def test_a_stage_that_does_not_come_is_named_and_ends_the_replay(spoken: Path) -> None:
    def twice(record: Record) -> Changed:
        return "take", {"name": "nobody", "count": 1}, {}

    found = played(changed(spoken, first("take", twice)))
    assert "take nobody did not come" in found.first


def test_a_call_that_was_dropped_and_does_not_come_ends_no_replay(spoken: Path) -> None:
    whole = played(spoken)
    found = played(changed(spoken, first("event", lambda record: ("dropped", {"call": 999}, {}))))
    assert found.divergences == 0
    assert len(found.events) == len(whole.events)


def test_an_event_that_differs_is_named_without_what_was_said(spoken: Path) -> None:
    def otherwise(record: Record) -> Changed:
        event = json.loads(record.fields["told"] + "}")
        if event["type"] == "caption.final":
            event["text"] = "something else"
        return "event", {"told": json.dumps(event)[:-1]}, {}

    found = played(
        changed(spoken, lambda record: otherwise(record) if record.kind == "event" else same(record))
    )
    assert found.divergences == 0
    assert "caption.final at" in found.first
    assert "text differs" in found.first
    assert "something" not in found.first


def test_a_torn_recording_is_compared_as_far_as_it_goes(spoken: Path, tmp_path: Path) -> None:
    torn = tmp_path / NAME
    torn.write_bytes(spoken.read_bytes()[: spoken.stat().st_size * 2 // 3])
    found = played(tmp_path)
    assert (found.first, found.cut) == ("", "torn")
    assert 0 < len(found.recorded) <= len(found.events)


@pytest.mark.parametrize("content", [None, b"no bundle", b"streamsvc bundle 1\n"])
def test_what_is_no_bundle_is_refused(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "b").write_bytes(content)
    with pytest.raises(InvalidRequest) as caught:
        played(tmp_path / "b")
    assert caught.value.code == "no_bundle"


def test_engines_on_the_recorded_boundaries_give_the_same_captions_and_others_are_found(spoken: Path) -> None:
    assert not played(spoken, engines_by_name.load).first

    def other(module: str, options: Any) -> Any:
        engine = engines_by_name.load(module, options)
        run: Any = engine.ops["transcribe"].run

        def otherwise(batch: list[Any]) -> list[Any]:
            return [
                {**found, "words": [["lo", *word[1:]] for word in found["words"]]} for found in run(batch)
            ]

        return Engine({**engine.ops, "transcribe": Op(otherwise)})

    assert "caption.final at" in played(spoken, other).first


@pytest.mark.models
def test_real_engines_on_the_recorded_boundaries_give_the_same_captions(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    settings = config.load(None, server={"data_dir": tmp_path}, store={"record": "all"})

    async def record() -> None:
        async with session_run.fixed_time_service(settings) as service:
            options = SessionOptions(vision=VisionOptions(enabled=False))
            session = await service.sessions.create(options=options, name="taped")
            await asyncio.sleep(0)
            with session_run.open_recording(FIXTURES / "canary.ogg") as (tracks, frames):
                session.media.attach(session_run.RecordingPublisher(tracks))
                for due, frame in frames:
                    await session_run.tap_when_due(session, due, frame)
            session.end("done")
            await session.over.wait()
            (tmp_path / session.id / NAME).rename(tmp_path / "a")

    stage.run(record())
    recorded_replies = played(tmp_path / "a")
    assert (recorded_replies.first, recorded_replies.divergences) == ("", 0)
    again = played(tmp_path / "a", session_run.load_engine)
    assert not again.first
    assert sum(event["type"] == "caption.final" for event in again.events) > 2
