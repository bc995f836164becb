"""A question is taken apart by rule, whatever is typed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.questions import parse


@pytest.mark.parametrize(
    "text, form",
    [
        ("When did it end?", "when"),
        ("At what time did it end?", "when"),
        ("How many cars?", "how many"),
        ("How long was it?", "how long"),
        ("Has a dog been shown?", "yes/no"),
        ("Why?", "open"),
    ],
)
def test_the_form_is_known_by_its_first_words(text: str, form: str) -> None:
    assert parse(text).form == form


def test_times_quotes_and_ordinals_are_read() -> None:
    assert parse("Did anybody speak between 16 s and 29 s?").times == (16.0, 29.0)
    assert parse("What was shown at 1:05?").times == (65.0,)
    assert parse("What was said in the last 20 seconds?").last == 20.0
    assert parse("What was shown two minutes ago?").ago == 120.0
    assert parse('When did the slide "The wish" appear?').quoted == "The wish"
    assert parse("How does the second speech begin?").ordinal == 2


def test_the_acting_noun_and_names_are_known() -> None:
    assert parse("What did the dragon carry?").subject == "dragon"
    assert parse("Did he meet Napoleon?").names == ["napoleon"]


@given(st.text(max_size=200))
def test_any_text_can_be_taken_apart(text: str) -> None:
    ask = parse(text)
    assert ask.raw == text
    assert (ask.about, ask.focus, ask.subject, ask.names, ask.ordinal, ask.thing) is not None


@pytest.mark.parametrize("asked", ["What do you know about the visit?", "Tell me about the visit", "Can you tell me more about the visit?"])
def test_what_is_known_of_something_is_what_was_said_about_it(asked: str) -> None:
    assert parse(asked).text == "what was said about the visit"
    assert parse(asked).raw == asked


@pytest.mark.parametrize(
    "question", ["What is shown now?", "How many people are there?", "Is there a dog?", "What is on the left?", "What is happening?"]
)
def test_questions_about_what_the_picture_shows_now_are_known(question: str) -> None:
    assert parse(question).present


@pytest.mark.parametrize(
    "question",
    [
        "What was shown?",
        "What did he say just now?",
        "What does the slide say now?",
        "When was a dog shown?",
        "Is there a dog at 0:20?",
        "Which came later, the dog or the cat?",
        "Why?",
    ],
)
def test_other_questions_need_no_picture_of_now(question: str) -> None:
    assert not parse(question).present
