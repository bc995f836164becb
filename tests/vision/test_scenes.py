"""Scene captions name only what is shown with confidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streamsvc.core.types import Box, Keyframe, Sight, Tag, VideoFrame
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision.scenes import confident, count_shown, is_shown, phrase, quote, scene, slide
from tests.builders.units import screen, sight


def sight_of(boxes: list[tuple[str, float]], tags: list[tuple[str, float]], *, blank: bool = False) -> Sight:
    return Sight(
        "s",
        "main",
        0.0,
        0.0,
        np.zeros(2, np.float32),
        tuple(Tag(label, score) for label, score in tags),
        tuple(Box(label, score, 0, 0, 1, 1) for label, score in boxes),
        blank,
    )


def test_labels_are_counted_in_plain_words() -> None:
    assert phrase(sight_of([("person", 0.9), ("person", 0.8), ("car", 0.7)], [])) == "two persons and a car"
    assert phrase(sight_of([("cat", 0.9)], [("Egyptian cat", 0.6)])) == "a cat"


def test_uncertain_labels_are_not_named() -> None:
    assert phrase(sight_of([("person", 0.45)], [("football helmet", 0.48)])) is None


@pytest.mark.parametrize(
    ("label", "score", "tags", "expected"),
    [
        ("person", 0.55, [], True),
        ("clock", 0.7, [], False),
        ("clock", 0.8, [], True),
        ("clock", 0.55, [("wall clock", 0.4)], True),
    ],
)
def test_a_small_box_needs_a_higher_score_or_a_tag_that_confirms_it(
    label: str, score: float, tags: list[tuple[str, float]], expected: bool
) -> None:
    picture = sight_of([(label, score)], tags)
    assert confident(picture.boxes[0], picture) == expected
    assert is_shown(picture, label) == expected


def test_a_label_is_counted_by_boxes_and_once_by_a_tag() -> None:
    assert count_shown(sight_of([("cat", 0.9), ("dog", 0.9), ("cat", 0.3)], []), "animal") == 2
    assert count_shown(sight_of([], [("Egyptian cat", 0.6)]), "cat") == 1
    assert count_shown(sight_of([("cat", 0.9)], [], blank=True), "dog") == 0


def test_evidence_quotes_labels_from_the_possible_score_on() -> None:
    assert quote(sight_of([("cat", 0.9)], [("tabby", 0.31), ("lynx", 0.29)])) == "cat 0.90, tabby 0.31"
    assert quote(sight_of([], [], blank=True)) == "blank picture"


def test_a_scene_caption_comes_on_change_only() -> None:
    timeline = Timeline()
    first = scene(timeline, sight(0.0))
    assert first is not None and first.text == "A cat." and first.evidence
    timeline.add(sight(0.0))
    timeline.add(first)
    assert scene(timeline, sight(5.0)) is None
    blank = scene(timeline, sight(6.0, blank=True))
    assert blank is not None and blank.text == "The picture is blank."


# --- slides ---


def shown(timeline: Timeline, at: float, *lines: str, label: str = "", reason: str = "scene") -> list[str]:
    """A picture comes: what is seen on it, then what is read; the captions that it gets, in their order."""
    head = ("s", "main", at, 0.0)
    timeline.add(Keyframe(*head, VideoFrame(*head, None, 0, 0), reason))
    seen = sight(at, label) if label else replace(sight(at, "dog"), boxes=())
    timeline.add(seen)
    found = [scene(timeline, seen)]
    if found[0] is not None:
        timeline.add(found[0])
    read = screen(at, *lines)
    if lines or timeline.screen_at(at) is not None:
        timeline.add(read)
        found.append(slide(timeline, read) if lines else None)
        if found[-1] is not None:
            timeline.add(found[-1])
    return [item.text for item in found if item is not None]


def test_a_slide_is_a_scene_by_its_title_and_each_but_once() -> None:
    timeline = Timeline()
    assert shown(timeline, 0.0, "Plans for spring", "New beds") == ["Slide \u201cPlans for spring\u201d."]
    (told,) = timeline.scenes
    assert (told.evidence[0].kind, told.evidence[0].quote) == ("screen", "Plans for spring")
    assert shown(timeline, 5.0, "Plans for spring", "New beds", "A new pond", reason="text") == []
    assert shown(timeline, 8.0, "Plans for sprjng", "New beds", "A new pond") == [], "misread"
    assert shown(timeline, 9.0, "Costs", "Seeds: 40") == ["Slide \u201cCosts\u201d."]
    assert shown(timeline, 12.0, "Costs 2", "Soil: 60") == ["Slide \u201cCosts 2\u201d."]
    assert shown(timeline, 15.0, "Costs", "Seeds: 40") == ["Slide \u201cCosts\u201d."], "again"


def test_a_slide_without_a_title_is_told_by_its_first_line() -> None:
    timeline = Timeline()
    read = replace(screen(0.0, "Results", "48 took part"), title=None)
    found = slide(timeline, read)
    assert found is not None and found.text == "Slide \u201cResults\u201d."
    long = slide(timeline, screen(1.0, " ".join(f"w{n}" for n in range(30)), "and more"))
    assert long is not None and len(long.text.split()) == 13


def test_while_a_slide_stands_nothing_else_is_said_of_it() -> None:
    timeline = Timeline()
    shown(timeline, 0.0, "Plans", "New beds")
    assert shown(timeline, 3.0, "Plans", "New beds", label="cat", reason="motion") == []
    assert shown(timeline, 6.0, label="cat", reason="scene") == ["A cat."]
    assert shown(timeline, 9.0, label="dog", reason="motion") == ["A dog."]


def test_of_one_picture_one_caption_stays() -> None:
    timeline = Timeline()
    lines = ("Plans", "New beds", "A pond", "A fence")
    assert shown(timeline, 0.0, *lines, label="cat") == ["A cat.", "Slide \u201cPlans\u201d."]
    assert [item.text for item in timeline.scenes] == ["Slide \u201cPlans\u201d."]
    assert timeline.dropped["scenes"] == 0


def test_a_photo_with_a_word_on_it_is_no_slide() -> None:
    assert shown(Timeline(), 0.0, "EXIT") == []
    assert shown(Timeline(), 0.0, "EXIT", "Platform", label="cat") == ["A cat."]
