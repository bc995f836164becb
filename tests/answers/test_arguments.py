"""What a question names: labels, titles, its subject, times and numbers."""

from __future__ import annotations

import pytest

from streamsvc.answers.arguments import arguments_of, labels_in, subject_of, title_in
from streamsvc.answers.example_votes import words_of
from streamsvc.answers.route import Arguments
from streamsvc.timeline.timeline import Timeline
from tests.builders.units import cue, screen, sight


@pytest.fixture
def timeline() -> Timeline:
    known = Timeline()
    known.add(cue("The northern pipeline leaks near Trondheim.", 1.0))
    known.add(screen(2.0, "Winter Accounts", "heating 40"))
    return known


def test_times_numbers_and_quotations_are_read(timeline: Timeline) -> None:
    found = arguments_of('How often was "heat pump" said from 0:05 to 0:09?', "how often", timeline, 20.0)
    assert found.text == "heat pump"
    assert found.span == (5.0, 9.0)
    assert found.form == "how often"
    assert arguments_of("the third slide", "open", timeline, 20.0).ordinal == 3
    assert arguments_of("heading of slide 2", "open", timeline, 20.0).number == 2.0


def test_a_question_that_names_nothing_has_no_arguments(timeline: Timeline) -> None:
    assert arguments_of("What is she talking about?", "open", timeline, 20.0) == Arguments()


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("how many sheep graze there", ("sheep",)),
        ("count the buses and the knives", ("bus", "knife")),
        ("how many people", ("person",)),
        ("is the wine glass left of the tv", ("wine glass", "tv")),
        ("how many animals", ("animal",)),
        ("was it on the screen", ()),
        ("did somebody come", ()),
    ],
)
def test_labels_are_those_that_the_detector_can_name(question: str, expected: tuple[str, ...]) -> None:
    assert labels_in(words_of(question), Timeline()) == expected


def test_labels_are_those_that_were_seen_too(timeline: Timeline) -> None:
    words = words_of("when did the gondolas show up")
    assert labels_in(words, timeline) == ()
    timeline.add(sight(3.0, "gondola"))
    assert labels_in(words, timeline) == ("gondola",)


def test_a_label_is_named_once(timeline: Timeline) -> None:
    assert labels_in(words_of("the dog, is the dog left of the cat"), timeline) == ("dog", "cat")


def test_a_title_stands_whole_in_the_question(timeline: Timeline) -> None:
    assert title_in(words_of("when was winter accounts up"), timeline) == "Winter Accounts"
    assert title_in(words_of("when was winter"), timeline) == ""
    assert arguments_of("how long was the Winter Accounts page up?", "open", timeline, 20.0).text == (
        "Winter Accounts"
    )


def test_the_subject_is_what_the_stream_holds(timeline: Timeline) -> None:
    words = words_of("did the extraordinarily verbose commentator bring up Trondheim")
    assert subject_of(words, timeline) == "trondheim"
    assert subject_of(words, Timeline()) == "extraordinarily verbose commentator bring"


def test_numbers_in_digits_are_no_subject(timeline: Timeline) -> None:
    assert subject_of(words_of("what was it in 1967"), timeline) == ""
