"""Neighbouring sentences are one passage while they are short; the best passages do not overlap."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.core.types import Evidence
from streamsvc.timeline.passages import (
    ANSWER,
    FLOOR,
    MARGIN,
    MAX_SCREEN_WORDS,
    MAX_WORDS,
    OWN,
    SCREEN,
    Passage,
    distinct,
    limited,
    margin,
    screen_passages,
    spoken_passages,
)
from streamsvc.timeline.screen_history import Screen
from streamsvc.timeline.text_tracks import TextTrack


def said(*texts: str) -> list[Evidence]:
    return [Evidence(10.0 * n, 10.0 * n + 5, "speech", text) for n, text in enumerate(texts)]


def of(*texts: str, score: float = 0.0, at: int = 0) -> Passage:
    return Passage(tuple(said(*[""] * at, *texts)[at:]), score)


def track(text: str, start: float, end: float | None = None) -> TextTrack:
    return TextTrack(text, 0.9, 0, 0, 1, 0.1, start, end, start)


def test_two_and_three_sentences_that_follow_each_other_are_passages() -> None:
    assert [passage.text for passage in spoken_passages([said("A.", "B.", "C.")])] == [
        "A. B.",
        "A. B. C.",
        "B. C.",
    ]


def test_a_sentence_that_fits_with_no_neighbour_stands_alone() -> None:
    long = " ".join(["word"] * MAX_WORDS)
    assert [passage.text for passage in spoken_passages([said("A.", long, "B.", "C.")])] == [
        "A.",
        long,
        "B. C.",
    ]
    assert [passage.text for passage in spoken_passages([said("A.")])] == ["A."]
    assert spoken_passages([[]]) == []


def test_no_passage_bridges_two_talks_or_sentences_whose_neighbours_are_gone() -> None:
    first, second, third = said("A.", "B.", "C.")
    assert [passage.text for passage in spoken_passages([[first], [second, third]])] == ["A.", "B. C."]
    assert [passage.text for passage in spoken_passages([[first, second, third]], 15.0)] == ["A.", "B.", "C."]


@given(st.lists(st.integers(1, 50), max_size=12))
def test_every_sentence_is_in_a_passage_and_none_is_long_but_for_single_sentences(lengths: list[int]) -> None:
    talk = said(*(" ".join(f"w{n}" for _ in range(length)) for n, length in enumerate(lengths)))
    passages = spoken_passages([talk])
    assert {part for passage in passages for part in passage.parts} == set(talk)
    assert all(len(each.parts) == 1 or len(each.text.split()) <= MAX_WORDS for each in passages)


def test_a_screen_is_a_passage_and_each_of_its_lines() -> None:
    screens = [Screen(5.0, None, "Plan", ("Plan", "Costs: 5"), 5.0)]
    whole, title, line = screen_passages(screens, [track("Plan", 5.0), track("Costs: 5", 6.0, 8.0)], 9.0)
    assert (whole.text, whole.kind, whole.start, whole.end) == ("Plan Costs: 5", "screen", 5.0, 9.0)
    assert (title.text, title.end, line.text, line.end) == ("Plan", 9.0, "Costs: 5", 8.0)


def test_a_title_that_is_no_line_comes_first_and_a_long_screen_is_cut() -> None:
    lines = tuple(f"{n} and three more words" for n in range(MAX_SCREEN_WORDS))
    (whole,) = screen_passages([Screen(5.0, 8.0, "Plan", lines, 5.0)], [], 9.0)
    assert whole.parts[0].quote == "Plan"
    assert MAX_SCREEN_WORDS - 5 <= len(whole.text.split()) <= MAX_SCREEN_WORDS


def test_of_equal_texts_on_the_screen_the_newest_counts() -> None:
    (line,) = screen_passages([], [track("Plan", 1.0, 2.0), track("Plan", 5.0, 6.0)], 9.0)
    assert line.start == 5.0


def test_what_was_not_over_is_left_out_but_a_screen_that_is_shown() -> None:
    speech, screen = of("A."), Passage((Evidence(1.0, 9.0, "screen", "Plan", 1.0),))
    assert limited([speech, screen], 4.0, None) == [screen]
    assert limited([speech, screen], 5.0, None) == [speech, screen]
    assert limited([speech, screen], None, (6.0, 7.0)) == [screen]


def test_the_best_of_overlapping_passages_stays_and_no_text_comes_twice() -> None:
    first, second, third = of("A.", "B."), of("B.", "C.", at=1), of("C.", at=2)
    assert distinct([first, second, third], 3) == [first, third]
    assert distinct([second, first, third], 3) == [second]
    assert distinct([third, of("C.", at=7), first], 3) == [third, first]
    assert distinct([first, third], 1) == [first]


def test_the_margin_is_to_the_next_passage_that_says_something_else() -> None:
    best, overlapping, apart = of("A.", score=3.0), of("A.", "B.", score=2.0), of("C.", score=-1.0, at=2)
    assert margin(best, [best, overlapping, apart]) == 4.0
    assert margin(best, [best, overlapping]) == math.inf
    screen = Passage((Evidence(0.0, 1.0, "screen", "D", 0.0),), 2.5)
    assert margin(best, [best, apart, screen]) == 4.0


@pytest.mark.parametrize(
    ("score", "distance", "own", "answers"),
    [
        (ANSWER, MARGIN, OWN, True),
        (ANSWER - 0.1, MARGIN, OWN, False),
        (ANSWER, MARGIN - 0.1, OWN, False),
        (ANSWER, MARGIN, OWN - 0.1, False),
        (-math.inf, math.inf, math.inf, False),
    ],
)
def test_a_passage_answers_if_it_is_good_stands_out_and_fits_the_question(
    score: float, distance: float, own: float, answers: bool
) -> None:
    assert Passage(tuple(said("A.")), score, distance, own).answers is answers
    screen = (Evidence(0.0, 1.0, "screen", "D", 0.0),)
    assert Passage(screen, score + SCREEN, distance, own).answers is answers


def test_a_passage_is_pointed_at_from_the_floor_on_and_where_nothing_ranked_it() -> None:
    assert of("A.", score=FLOOR).near and of("A.", score=-math.inf).near
    assert not of("A.", score=FLOOR - 0.1).near


def test_a_passage_is_evidence_as_a_whole() -> None:
    assert of("A.", "B.").evidence() == Evidence(0.0, 15.0, "speech", "A. B.")
