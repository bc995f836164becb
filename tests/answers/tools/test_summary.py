"""A summary quotes what tells most of each part, in whole clauses, with its time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsvc.answers.finding import MAX_WORDS
from streamsvc.answers.route import Arguments
from streamsvc.answers.tools.summary import points, spoken_between, summary, topic
from streamsvc.answers.tools.wording import words_in
from streamsvc.timeline.timeline import Timeline
from tests.builders.timelines import ferries
from tests.builders.units import cue, screen

TOPICS = ("harbour", "lantern", "glacier", "orchard", "violin", "furnace")


def talk(minutes: int = 60) -> Timeline:
    """A talk that dwells on one thing per ten minutes, four sentences a minute."""
    found = Timeline()
    for minute in range(minutes):
        thing = TOPICS[minute // 10 % len(TOPICS)]
        texts = (
            "Well, let us go on.",
            f"The old {thing} was repaired in the year {1800 + minute}.",
            "And is that all?",
            f"Such a {thing} is costly.",
        )
        for part, text in enumerate(texts):
            found.add(cue(text, minute * 60.0 + part * 15.0))
    return found


def test_all_is_told_in_points_that_are_spread_over_the_time() -> None:
    found = summary(talk(), Arguments(), 3600.0)
    assert found is not None
    assert [span.start // 1200 for span in found.evidence] == [0, 1, 2]
    assert all("repaired" in value for value in found.values)
    assert found.text.startswith("At ")
    assert words_in(found.text) <= MAX_WORDS


@pytest.mark.parametrize(
    ("start", "end", "thing"),
    [(0.0, 600.0, "harbour"), (720.0, 900.0, "lantern"), (3300.0, 3600.0, "furnace")],
)
def test_a_span_is_told_by_what_was_said_in_it(start: float, end: float, thing: str) -> None:
    found = summary(talk(), Arguments(span=(start, end)), 3600.0)
    assert found is not None
    assert thing in found.text
    assert all(start <= span.start < span.end <= end for span in found.evidence)


def test_a_long_sentence_is_told_by_a_clause_of_it() -> None:
    found = Timeline()
    text = "When the ice had gone, the ferry crossed the strait, which nobody had done since the war began."
    found.add(cue(text, 2.0))
    found.add(cue("A ferry in the strait?", 20.0))
    told = points(found.sentences, 1, 8)
    assert [point.text for point in told] == ["the ferry crossed the strait,"]


def test_a_question_or_a_fragment_is_no_point_beside_a_statement() -> None:
    found = Timeline()
    for place, text in enumerate(("What of the ferry, the ferry?", "Ferry.", "They painted the old ferry.")):
        found.add(cue(text, 5.0 * place))
    assert [point.text for point in points(found.sentences, 1, 10)] == ["They painted the old ferry."]


def test_the_topic_is_that_of_the_last_minute_and_of_the_screen() -> None:
    timeline = talk(25)
    timeline.add(screen(1440.0, "Ice and its makers", "Slide 9"))
    found = topic(timeline, Arguments(), 1500.0)
    assert found is not None
    assert "glacier" in found.text
    assert found.text.endswith('On the screen: "Ice and its makers".')
    assert min(span.start for span in found.evidence) >= 1440.0


def test_without_speech_the_titles_tell_what_it_is_about() -> None:
    timeline = Timeline()
    timeline.add(screen(1.0, "Ferries", "of the north"))
    timeline.add(screen(20.0, "Trams", "since 1890"))
    found = summary(timeline, Arguments(), 30.0)
    assert found is not None
    assert found.text == 'On the screen: "Ferries", "Trams".'
    assert topic(timeline, Arguments(), 30.0) == found
    assert summary(Timeline(), Arguments(), 30.0) is None
    assert topic(Timeline(), Arguments(), 30.0) is None


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1700), st.integers(1, 1800))
def test_a_summary_of_any_span_is_short_and_of_the_span(start: int, length: int) -> None:
    found = summary(SHORT, Arguments(span=(float(start), float(start + length))), 1800.0)
    inside = spoken_between(SHORT, start, start + length)
    assert (found is None) == (not inside)
    if found is not None:
        assert words_in(found.text) <= MAX_WORDS
        assert all(any(span == one.evidence() for one in inside) for span in found.evidence)


SHORT = talk(30)


def test_a_talk_with_slides_is_told_from_what_was_said() -> None:
    found = summary(ferries(), Arguments(), 50.0)
    assert found is not None
    assert {span.kind for span in found.evidence} == {"speech"}
