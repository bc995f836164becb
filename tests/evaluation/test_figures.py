"""Events become figures."""

from __future__ import annotations

from typing import Any

import pytest

from streamsvc.evaluation.figures import (
    ages,
    keyframes,
    percentiles,
    report,
    screen_counts,
    screens,
    sights,
    speech,
    within_budget,
)

SLIDES = [
    {"start": 0, "end": 10, "kind": "slide", "title": "First page", "text": "First page\nten nets"},
    {"start": 10, "end": 20, "kind": "slide", "title": "Second page", "text": "Second page\ntwo nets"},
    {"start": 20, "end": 30, "kind": "photo", "label": "cat"},
    {"start": 30, "end": 40, "kind": "clip", "label": "road", "things": ["bus", "car"]},
]
TRUTH = {"intervals": SLIDES}


def final(text: str, start: float, received: float, age: float = 500.0) -> dict[str, Any]:
    words = [{"text": word} for word in text.split()]
    return {
        "type": "caption.final",
        "words": words,
        "start": start,
        "end": start + 1,
        "received": received,
        "age_ms": age,
    }


def partial(stable: int, received: float, age: float) -> dict[str, Any]:
    return {"type": "caption.partial", "stable": stable, "received": received, "age_ms": age}


def test_word_errors_stand_beside_what_was_never_published() -> None:
    words = [
        {"w": "One", "start": 0.1, "end": 0.5},
        {"w": "two", "start": 0.5, "end": 1.0},
        {"w": "20", "start": 1.0, "end": 1.5},
    ]
    truth = {"words": words, "speech": [{"start": 0.0, "end": 1.5}]}
    table = speech(truth, [partial(1, 0.9, 300.0), final("one too", 0.1, 2.0), final("you", 9.0, 11.0)])
    assert table["words_spoken"] == 3
    assert table["edits"] == 2  # "too" for two, "you" for twenty
    assert table["coverage"] == 1.0
    assert table["captions_without_speech"] == 1
    assert table["stable_after_word_s"] == {"p50": 0.4, "p95": 0.4, "max": 0.4, "n": 1}


def test_words_after_the_played_part_are_left_out() -> None:
    words = [{"w": "one", "start": 0.0, "end": 1.0}, {"w": "two", "start": 8.0, "end": 9.0}]
    assert speech({"words": words}, [final("one", 0.0, 1.5)], until=5.0)["wer_percent"] == 0.0


def test_without_words_there_is_no_word_error_rate_and_without_speech_known_no_invention() -> None:
    table = speech({}, [final("hello", 1.0, 2.0)])
    assert "wer_percent" not in table
    assert table["captions_without_speech"] == 0
    assert speech({"speech": []}, [final("hello", 1.0, 2.0)])["captions_without_speech"] == 1


def test_each_word_is_as_old_as_the_event_that_made_it_stable() -> None:
    events = [
        partial(1, 1.0, 100.0),
        partial(2, 2.0, 200.0),
        final("a b c", 0.0, 3.0, 900.0),
        partial(1, 4.0, 50.0),
    ]
    assert ages(events)["stable"] == {"p50": 150.0, "p95": 795.0, "max": 900.0, "n": 4}
    assert ages(events)["final"]["n"] == 1


def test_scene_captions_of_a_vlm_are_in_no_age() -> None:
    scenes = [
        {"type": "scene.caption", "by": by, "age_ms": age} for by, age in (("rule", 100.0), ("model", 2500.0))
    ]
    assert ages(scenes)["scene"] == {"p50": 100.0, "p95": 100.0, "max": 100.0, "n": 1}


def test_a_budget_is_kept_where_the_95th_percentile_is_within_it() -> None:
    table = {
        "ages_ms": {"stable": {"p95": 1100}, "final": {"p95": 1700}, "sight": {"p95": 9}},
        "answers": {"done_s": {"p95": 3.1}},
    }
    assert within_budget(table, {"stable": 1.2, "final": 1.6, "answer": 3.0}) == {
        "stable": True,
        "final": False,
        "answer": False,
    }


def test_a_change_is_found_by_a_keyframe_within_a_second_and_a_still_picture_needs_no_other() -> None:
    events = [{"type": "keyframe.sampled", "at": at} for at in (0.0, 5.0, 10.3, 21.5, 30.2, 33.0, 36.0)]
    table = keyframes(TRUTH, events)
    assert (table["changes"], table["found"], table["recall"]) == (4, 3, 0.75)
    assert (table["of_still"], table["due"], table["precision"]) == (4, 2, 0.5)
    assert keyframes(TRUTH, events, until=25.0)["changes"] == 3
    assert keyframes({}, events) == {}


def text(first_seen: float, received: float, *lines: str, title: str = "") -> dict[str, Any]:
    table = [{"text": line} for line in lines]
    return {
        "type": "screen.text",
        "first_seen": first_seen,
        "received": received,
        "lines": table,
        "title": title,
        "age_ms": 900.0,
    }


def test_a_slide_is_read_when_its_title_comes_and_as_well_as_its_last_reading() -> None:
    events = [
        text(0.1, 2.0, "First page", title="First page"),
        text(0.1, 6.0, "First page", "ten nots"),
        text(10.2, 15.0, "Second page"),
    ]
    first, second = screens(TRUTH, events)
    assert (first["found"], first["as_title"], first["delay_s"]) == (True, True, 2.0)
    assert first["cer"] == pytest.approx(1 / 19, abs=1e-4)
    assert second["cer"] == pytest.approx(9 / 20, abs=1e-4)
    assert screen_counts([first, second]) == {
        "titles": 2,
        "found": 2,
        "in_time": 1,
        "cer_mean": 0.2513,
        "cer_worst": 0.45,
    }
    assert screens(TRUTH, [])[0]["cer"] == 1.0


def test_an_object_is_named_by_a_tag_or_a_box_of_its_class() -> None:
    events = [
        {"type": "sight.ready", "at": 20.3, "tags": [{"label": "Egyptian cat"}], "boxes": []},
        {"type": "sight.ready", "at": 31.0, "tags": [], "boxes": [{"label": "dog"}]},
    ]
    assert sights(TRUTH, events) == {"shown": 2, "named": 1, "by_tag": 1, "by_box": 0, "missed": ["bus"]}


def test_a_report_has_all_parts_and_accepts_a_run_without_events() -> None:
    table = report(TRUTH, [{"type": "error", "error": {"code": "x"}, "received": 1.0}], {})
    assert table["errors"] == ["x"]
    assert set(table) >= {"speech", "keyframes", "screens", "sights", "answers", "slides"}
    assert report({}, [], {})["answers"] == {}


def test_percentiles_without_values_are_empty() -> None:
    assert percentiles([]) == {}
    assert percentiles([1.0, 3.0], 1) == {"p50": 2.0, "p95": 2.9, "max": 3.0, "n": 2}
