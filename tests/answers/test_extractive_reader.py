"""The extractive reader tells the best passage, points at it, or says nothing, by its score."""

from __future__ import annotations

import pytest

from streamsvc.answers.extractive_reader import POINTED, extract
from streamsvc.answers.route import Arguments, Route
from streamsvc.core.types import Evidence
from streamsvc.timeline.passages import ANSWER, FLOOR, SCREEN, Passage

ROUTE = Route()


def passage(
    score: float, text: str = "The kiln is fired on Thursdays.", at: float = 75.0, kind: str = "speech"
) -> Passage:
    return Passage((Evidence(at, at + 2.0, kind, text),), score, margin=9.0)


def test_a_passage_above_the_threshold_is_the_answer() -> None:
    found = extract([passage(ANSWER), passage(FLOOR)], ROUTE)
    assert found.outcome == "answer"
    assert found.finding.text == "At 1:15: “The kiln is fired on Thursdays.”"
    assert [item.start for item in found.finding.evidence] == [75.0]


def test_below_it_the_nearest_passages_are_pointed_at() -> None:
    near = [passage(ANSWER - 0.1), *(passage(FLOOR + 0.1, at=n) for n in (10.0, 20.0, 30.0))]
    found = extract(near, ROUTE)
    assert found.outcome == "closest"
    assert found.finding.text.startswith("I found no answer. Nearest, at 1:15: “The kiln")
    assert len(found.finding.evidence) == POINTED


def test_below_the_floor_nothing_is() -> None:
    assert extract([passage(FLOOR - 0.1)], ROUTE).outcome == "declined"
    assert extract([], ROUTE).outcome == "declined"


@pytest.mark.parametrize(
    "route", [Route(arguments=Arguments(form="yes/no")), Route(reader="sight"), Route(reader="none")]
)
def test_a_passage_says_neither_yes_nor_what_a_picture_shows(route: Route) -> None:
    assert extract([passage(ANSWER + 9)], route).outcome == "closest"


def test_a_long_passage_is_cut_and_its_markup_is_text() -> None:
    long = passage(ANSWER + SCREEN, 'He said "stop" ' + "and on " * 40, kind="screen")
    text = extract([long], ROUTE).finding.text
    assert text.startswith("On the screen at 1:15: “He said 'stop'")
    assert text.endswith("…”")
    assert len(text.split()) <= 40
