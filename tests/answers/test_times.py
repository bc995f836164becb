"""Times, ordinals, numbers and quotations are read from a question; nothing else of English is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.answers.times import numbers_of, ordinal_of, quotation_of, quotations_of, span_of

NOW = 300.0


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("What was shown at 1:15?", (75.0, 75.0)),
        ("what was shown around 45s", (45.0, 45.0)),
        ("What was shown at second 75?", (75.0, 75.0)),
        ("what was shown at minute 2", (120.0, 120.0)),
        ("what was shown 1 minute 5 seconds in", (65.0, 65.0)),
        ("What was shown between 10 and 20 seconds?", (10.0, 20.0)),
        ("Who spoke from 1:15 to 2:00?", (75.0, 120.0)),
        ("1:10-1:20 what was that", (70.0, 80.0)),
        ("Recap minute 3 to 5: between minute 3 and 5", (180.0, 300.0)),
        ("What was told between minute 3 and minute 4?", (180.0, 240.0)),
        ("what was told in the last minute", (240.0, 300.0)),
        ("and in the past two minutes?", (180.0, 300.0)),
        ("the last half a minute please", (270.0, 300.0)),
        ("What was shown 20 seconds ago?", (280.0, 280.0)),
        ("what was told a minute ago", (240.0, 240.0)),
        ("Outline the first two minutes.", (0.0, 120.0)),
        ("What happened in the third minute?", (120.0, 180.0)),
        ("what happened since 1:15", (75.0, 300.0)),
        ("Who spoke before 0:20?", (0.0, 20.0)),
        ("What is the weather?", None),
        ("When does the 9:15 train leave?", None),  # later than now
        ("Does it close at 5 pm?", None),
        ('When was "the last minute" said?', None),
        ("How long did it last?", None),
    ],
)
def test_a_span_is_read_in_session_seconds(text: str, span: tuple[float, float] | None) -> None:
    assert span_of(text, NOW) == span


@pytest.mark.parametrize(
    ("text", "ordinal"),
    [
        ("the first slide", 1),
        ("the 3rd slide", 3),
        ("the last talk", -1),
        ("which second was it", None),
        ("in the last minute", None),
        ("the first ten minutes", None),
        ("after twenty seconds", None),
        ("How long did it last?", None),
        ("the second slide", 2),
    ],
)
def test_an_ordinal_is_no_unit_of_time(text: str, ordinal: int | None) -> None:
    assert ordinal_of(text) == ordinal


def test_numbers_are_those_that_are_no_times() -> None:
    assert numbers_of("slide 4") == (4.0,)
    assert numbers_of("three cats at 1:10 or 2.5 dogs") == (3.0, 2.5)
    assert numbers_of("the last one between 10 and 20 seconds") == ()
    assert numbers_of("twenty-two boats") == (22.0,)


def test_quotations_are_taken_from_any_marks() -> None:
    assert quotation_of('Who said "good morning"?') == "good morning"
    assert quotation_of("Who said \u201cgood morning\u201d?") == "good morning"
    assert quotation_of("Who said 'good morning'?") == "good morning"
    assert quotation_of("Who said it's fine, isn't it?") == ""
    assert quotations_of('"a" or \u00abb\u00bb') == ("a", "b")


@given(st.text(max_size=60), st.floats(0, 1e5))
def test_any_text_is_read_and_a_span_lies_in_the_session(text: str, now: float) -> None:
    span = span_of(text, now)
    assert span is None or 0.0 <= span[0] <= span[1] <= now
    ordinal_of(text)
    numbers_of(text)
