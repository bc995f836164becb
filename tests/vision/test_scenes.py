"""Scene captions name only what is shown with confidence."""

from __future__ import annotations

import numpy as np
import pytest

from streamsvc.core.types import Box, Sight, Tag
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision.scenes import confident, count_shown, is_shown, phrase, quote, scene
from tests.builders.units import sight


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
