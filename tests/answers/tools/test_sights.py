"""Only what was surely seen is named; absence is told only where a thing would have been seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streamsvc.answers.route import Arguments
from streamsvc.answers.tools.sights import appearances, count, seen, seen_at, sights, surely_absent
from streamsvc.core.types import Box, Keyframe, Sight, Tag, VideoFrame
from streamsvc.timeline.timeline import Timeline
from tests.builders.timelines import ferries
from tests.builders.units import NO_EMBEDDING, cue, screen, sight


def picture(at: float, boxes: list[tuple[str, float]], tags: list[tuple[str, float]]) -> Sight:
    told = tuple(Box(label, score, 0.3 * n, 0, 0.2, 1) for n, (label, score) in enumerate(boxes))
    return Sight("s", "main", at, 0.0, NO_EMBEDDING, tuple(Tag(*tag) for tag in tags), told)


def of(*pictures: Sight) -> Timeline:
    timeline = Timeline()
    for one in pictures:
        timeline.add(one)
    return timeline


def street() -> Timeline:
    """A cat, then two persons and a dog, then nothing, then a blank picture."""
    return of(
        sight(0.0, "cat"),
        picture(10.0, [("person", 0.9), ("person", 0.8), ("dog", 0.9)], []),
        picture(20.0, [], []),
        sight(30.0, blank=True),
    )


def test_a_look_that_misses_a_thing_for_a_moment_does_not_end_its_appearance() -> None:
    timeline = of(
        *(
            sight(at, label)
            for at, label in ((0.0, "cat"), (2.0, "cup"), (4.0, "cat"), (6.0, "cup"), (30.0, "cat"))
        )
    )
    assert [(span.start, span.end) for span in appearances(timeline, "cat")] == [(0.0, 6.0), (30.0, 30.0)]
    assert [span.start for span in appearances(street(), "black")] == [30.0]


@pytest.mark.parametrize(
    ("arguments", "now", "text"),
    [
        (Arguments(), 5.0, "I see a cat."),
        (Arguments(), 12.0, "I see two persons and a dog."),
        (Arguments(), 22.0, "I see nothing that I can name."),
        (Arguments(), 31.0, "The picture is blank."),
        (Arguments(form="yes/no"), 5.0, "Yes, I see a cat."),
        (Arguments(form="yes/no"), 31.0, "No, the picture is blank."),
        (Arguments(label="horse"), 5.0, "I see a cat."),
        (Arguments(span=(12.0, 12.0)), 31.0, "At 0:12 I saw two persons and a dog."),
        (Arguments(span=(0.0, 15.0)), 31.0, "At 0:00 I saw a cat; then two persons and a dog."),
        (Arguments(label="people", form="yes/no"), 12.0, "Yes, two persons and a dog, at 0:10."),
        (Arguments(label="horse", form="yes/no"), 12.0, "No, I see no horse."),
        (Arguments(label="black", form="yes/no"), 12.0, "No, two persons and a dog."),
        (Arguments(label="black", form="yes/no"), 31.0, "Yes, the picture is blank, since 0:30."),
        (Arguments(label="rocket", form="yes/no"), 12.0, None),
    ],
)
def test_the_scene_is_described(arguments: Arguments, now: float, text: str | None) -> None:
    timeline = street()
    found = sights(timeline, arguments, now)
    assert (found and found.text) == text
    assert found is None or found.evidence


def test_the_title_on_the_screen_and_speech_belong_to_the_scene() -> None:
    timeline = of(sight(0.0, "person"))
    timeline.add(screen(1.0, "Budget 2026", "Hosting"))
    timeline.add(cue("Let us look at the figures.", 2.0))
    found = sights(timeline, Arguments(), 5.0)
    assert found is not None
    assert found.text == 'I see a person. The screen says "Budget 2026": "Hosting". Somebody is speaking.'
    assert [span.kind for span in found.evidence] == ["sight", "screen", "speech"]


def test_what_is_likely_and_not_sure_is_told_as_such() -> None:
    unsure = replace(sight(0.0), boxes=(), tags=(Tag("lighthouse", 0.45), Tag("pier", 0.31)))
    found = sights(of(unsure), Arguments(), 1.0)
    assert found is not None
    assert (found.text, found.values) == ("It may be a lighthouse.", ("lighthouse",))
    faint = replace(unsure, tags=(Tag("lighthouse", 0.2),))
    found = sights(of(faint), Arguments(), 1.0)
    assert found is not None
    assert found.text == "I see nothing that I can name."


def test_a_scene_is_told_of_without_pictures_too() -> None:
    timeline = Timeline()
    assert sights(timeline, Arguments(), 1.0) is None
    timeline.add(cue("Let us look at the figures.", 2.0))
    heard = sights(timeline, Arguments(), 5.0)
    assert heard is not None
    assert heard.text == 'Somebody is speaking: "Let us look at the figures."'


def test_the_newest_keyframe_that_has_been_looked_at_tells_what_is_there() -> None:
    timeline = of(sight(0.0, "cat"))
    timeline.add(Keyframe("s", "main", 9.0, 0.0, VideoFrame("s", "main", 9.0, 0.0, None, 1, 1), "scene"))
    known = seen_at(timeline, 10.0)
    assert known is not None
    assert known.start == 0.0
    found = sights(timeline, Arguments(), 10.0)
    assert found is not None
    assert found.evidence[0].end == 9.0


def test_what_may_have_been_seen_is_not_denied() -> None:
    timeline = of(picture(0.0, [("dog", 0.42)], []))
    assert not surely_absent(timeline.shown, "dog")
    assert surely_absent(timeline.shown, "zebra")
    assert sights(timeline, Arguments(label="dog", form="yes/no"), 1.0) is None
    assert count(timeline, Arguments(label="dog"), 1.0) is None


def test_everything_seen_is_listed_once_by_time() -> None:
    found = seen(ferries(), Arguments(), 50.0)
    assert found is not None
    assert found.text == 'A cat, a car, "The night ferry", "Prices and tickets", "Questions".'
    assert found.values == ("cat", "car", "The night ferry", "Prices and tickets", "Questions")
    animals = seen(street(), Arguments(label="animal"), 40.0)
    assert animals is not None
    assert animals.values == ("cat", "dog")
    none = seen(street(), Arguments(label="horse", form="yes/no"), 40.0)
    assert none is not None
    assert none.text == "No, I have seen no horse."
    assert seen(Timeline(), Arguments(), 5.0) is None


@pytest.mark.parametrize(
    ("arguments", "now", "text", "values"),
    [
        (Arguments(label="people"), 12.0, "Two persons, as far as I can see, at 0:10.", ("2",)),
        (Arguments(label="dogs"), 12.0, "A dog, as far as I can see, at 0:10.", ("1",)),
        (Arguments(label="people"), 22.0, "I see no person now; at most 2 at once, at 0:10.", ("0",)),
        (Arguments(label="people", span=(22.0, 22.0)), 40.0, "I see no person.", ("0",)),
        (
            Arguments(label="people", span=(0.0, 40.0)),
            40.0,
            "Two persons, as far as I can see, at 0:10.",
            ("2",),
        ),
        (Arguments(label="horse"), 12.0, "I see no horse.", ("0",)),
        (Arguments(label="horse", form="yes/no"), 12.0, "No, I see no horse.", ("0",)),
        (Arguments(label="galaxy"), 12.0, None, ()),
        (Arguments(), 12.0, None, ()),
    ],
)
def test_things_are_counted_and_none_is_an_answer(
    arguments: Arguments, now: float, text: str | None, values: tuple[str, ...]
) -> None:
    found = count(street(), arguments, now)
    assert (found and found.text) == text
    assert found is None or found.values == values


def test_without_pictures_none_is_no_answer() -> None:
    assert count(Timeline(), Arguments(label="people"), 1.0) is None
