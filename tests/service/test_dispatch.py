"""Each kind of unit goes where it is used, through one place."""

from __future__ import annotations

from typing import Any

import pytest

from streamsvc.core.types import Cue, Event, Evidence, Gap, Scene, Speech, Translation, Word, Words
from streamsvc.service.dispatch import Dispatcher
from tests.builders.session import make

HEAD: dict[str, Any] = {"session": "s", "track": "main", "at": 1.0, "arrived": 0.0}
WORDS = (Word("Once", 1.0, 1.4), Word("more.", 1.5, 1.9))


def cue(*, final: bool) -> Cue:
    return Cue(**HEAD, text="Once more.", words=WORDS, stable=2 if final else 1, final=final)


@pytest.fixture
def live() -> Dispatcher:
    return make().dispatcher


def published(event: Event | None) -> str:
    assert event is not None
    return event.type


async def test_a_closed_cue_is_published_kept_and_on_the_timeline(live: Dispatcher) -> None:
    assert published(live.dispatch(cue(final=True))) == "caption.final"
    assert [kept.text for kept in live.cues] == ["Once more."]
    assert [sentence.text for sentence in live._timeline.sentences] == ["Once more."]


async def test_what_is_said_is_open_until_its_cue_is_closed_also_where_no_partial_is_published(
    live: Dispatcher,
) -> None:
    live._context.degradation.apply(7, "test")
    live.dispatch(Speech(**HEAD, active=True))
    live.dispatch(cue(final=False))
    assert live.open_speech.progress(20.0, 0.0).open == WORDS[:1]
    live.dispatch(cue(final=True))
    live.dispatch(Speech(**{**HEAD, "at": 1.9}, active=False))
    assert live.open_speech.progress(20.0, 0.0).open == ()


async def test_an_open_cue_is_known_and_is_published_unless_the_level_spends_that(live: Dispatcher) -> None:
    assert published(live.dispatch(cue(final=False))) == "caption.partial"
    live._context.degradation.apply(7, "test")
    assert live.dispatch(cue(final=False)) is None
    assert not live.cues
    assert not live._timeline.empty


async def test_words_reach_watches_and_figures_and_are_not_published(live: Dispatcher) -> None:
    watch = await live.watches.add('somebody says "once"')
    assert live.dispatch(Words(**HEAD, words=WORDS, stable=2, final=True)) is None
    assert [kept["fired"] for kept in live.watches.all() if kept["id"] == watch["id"]] == [1]
    assert live.latency.body(0.0, 0)["ages"]["stable"]["count"] == 1


async def test_a_translation_is_kept_and_a_gap_lowers_coverage(live: Dispatcher) -> None:
    live.dispatch(Speech(**HEAD, active=True))
    live.dispatch(cue(final=True))
    live.dispatch(Speech(**HEAD | {"at": 1.9}, active=False))
    live.dispatch(Translation(**HEAD, of="e.1", text="Noch einmal.", language="de", start=1.0, end=1.9))
    live.dispatch(Gap(**HEAD, start=2.0, end=2.9, reason="overload"))
    assert [kept.of for kept in live.translations] == ["e.1"]
    assert live.latency.body(0.0, 0)["coverage"] == 0.5


async def test_a_scene_by_the_model_stays_off_the_timeline(live: Dispatcher) -> None:
    evidence = (Evidence(1.0, 1.0, "sight", "cat", 1.0),)
    by_model = Scene(**HEAD, text="A cat.", start=1.0, end=1.0, evidence=evidence, by="model")
    assert published(live.dispatch(by_model)) == "scene.caption"
    assert list(live._timeline.scenes) == []
    live.dispatch(Scene(**HEAD, text="A cat.", start=1.0, end=1.0, evidence=evidence))
    assert len(live._timeline.scenes) == 1


async def test_speech_is_on_the_timeline_before_it_is_published(live: Dispatcher) -> None:
    assert published(live.dispatch(Speech(**HEAD, active=True))) == "speech.started"
    assert live._timeline.speeches[-1].active
