"""Notes quote what stands for each stretch, keep their bounds, and answer for stretches of long sessions."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsvc.answers.rules.parse import parse
from streamsvc.answers.rules.summary import notes, standing, stretch
from streamsvc.timeline.timeline import Timeline, TimelineLimits
from tests.builders.questions import find
from tests.builders.units import cue, screen

TOPICS = ("harbour", "lantern", "glacier", "orchard", "violin", "furnace")


def hour(minutes: int = 60, found: Timeline | None = None) -> Timeline:
    """A talk that dwells on one thing per ten minutes, four sentences a minute."""
    found = found or Timeline()
    for minute in range(minutes):
        topic = TOPICS[minute // 10 % len(TOPICS)]
        for part, text in enumerate(
            (
                "Well, let us go on.",
                f"The old {topic} was repaired in the year {1800 + minute}.",
                "And so on.",
                f"A {topic} is costly.",
            )
        ):
            found.add(cue(text, minute * 60.0 + part * 15.0))
    return found


def test_each_stretch_of_talk_is_noted_by_its_most_telling_sentence() -> None:
    found = notes(hour(3))
    assert [note.text for note in found] == [
        f"The old harbour was repaired in the year {1800 + minute}." for minute in range(3)
    ]
    assert all(note.start <= line.start < line.end <= note.end for note in found for line in note.lines)


def test_a_slide_is_noted_by_its_title_with_what_was_said_over_it() -> None:
    line = Timeline()
    line.add(screen(1.0, "Ferries", "of the north"))
    line.add(cue("The night ferry leaves at seven in winter.", 3.0))
    line.add(screen(20.0, "Trams", "since 1890"))
    assert [note.text for note in notes(line)] == [
        "Ferries: The night ferry leaves at seven in winter.",
        "Trams",
    ]


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 40), st.integers(0, 1800), st.integers(1, 1800))
def test_notes_are_few_enough_by_time_and_of_the_stretch_asked_for(
    most: int, start: int, length: int
) -> None:
    found = notes(hour(30), float(start), float(start + length), most)
    assert len(found) <= most
    assert [note.start for note in found] == sorted(note.start for note in found)
    assert all(start <= (line.start + line.end) / 2 < start + length for note in found for line in note.lines)


def test_nothing_known_makes_no_notes() -> None:
    assert notes(Timeline()) == []


@pytest.mark.parametrize(
    ("question", "span"),
    [
        ("What happened between 3:00 and 5:00?", (180.0, 300.0)),
        ("What happened between minute 3 and minute 5?", (180.0, 300.0)),
        ("Summarise the first ten minutes.", (0.0, 600.0)),
        ("Summarize the first minute", (0.0, 60.0)),
        ("What happened in the last 2 minutes?", (880.0, 1000.0)),
        ("What is it about?", None),
    ],
)
def test_a_stretch_is_read_from_the_words(question: str, span: tuple[float, float] | None) -> None:
    assert stretch(parse(question), 1000.0) == span


@pytest.mark.parametrize(
    ("question", "topic", "start", "end"),
    [
        ("Summarise the first ten minutes.", "harbour", 0.0, 600.0),
        ("What happened between 12:00 and 15:00?", "lantern", 720.0, 900.0),
        ("Summarize what happened between minute 21 and minute 25", "glacier", 1260.0, 1500.0),
        ("What happened in the last 5 minutes?", "furnace", 3300.0, 3600.0),
        ("What have I missed?", "harbour", 0.0, 3600.0),
    ],
)
def test_a_summary_of_a_stretch_of_a_long_session_quotes_that_stretch(
    question: str, topic: str, start: float, end: float
) -> None:
    found = find(question, hour(), 3600.0)
    assert found.supported
    assert topic in found.text
    assert len(found.text.split()) <= 40
    assert all(start <= line.start < line.end <= end for line in found.evidence)


def test_a_summary_of_a_time_of_which_nothing_is_known_is_declined() -> None:
    assert not find("What happened between 70:00 and 75:00?", hour(), 3600.0).supported


def test_a_question_about_minute_three_is_answered_at_minute_sixty() -> None:
    found = find("What was said at 3:16?", hour(), 3600.0)
    assert found.text.startswith('At 3:15: "The old harbour')
    assert not find("What happened to the submarine between 3:00 and 5:00?", hour(), 3600.0).supported


def test_what_told_most_of_each_minute_is_still_found_when_the_limit_of_the_line_is_long_past() -> None:
    line = hour(found=Timeline(standing, TimelineLimits(sentences=24)))
    assert len(line.sentences) < 24 + 60 + 8
    assert line.dropped["sentences"] > 150
    for minute, thing in ((0, "harbour"), (10, "lantern")):
        found = find(f"What was said about the {thing}?", line, 3600.0)
        assert found.supported
        assert thing in found.text
        assert 60.0 * minute <= found.evidence[0].start < 60.0 * minute + 600.0
    minutes = [note.text for note in notes(line, 180.0, 300.0)]
    assert minutes
    assert all("harbour" in text for text in minutes)
