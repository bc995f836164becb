"""A question is taken apart by rule, whatever is typed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.answers.rules.parse import parse


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


@pytest.mark.parametrize(
    "asked",
    ["What do you know about the visit?", "Tell me about the visit", "Can you tell me more about the visit?"],
)
def test_what_is_known_of_something_is_what_was_said_about_it(asked: str) -> None:
    assert parse(asked).text == "what was said about the visit"
    assert parse(asked).raw == asked


@pytest.mark.parametrize(
    "question",
    [
        "What is shown now?",
        "How many people are there?",
        "Is there a dog?",
        "What is on the left?",
        "What is happening?",
    ],
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


@pytest.mark.parametrize(
    ("asked", "plain"),
    [
        ("What's the title of slide 2?", "what is the title of slide 2"),
        ("Whats the title of slide 2?", "what is the title of slide 2"),
        ("What's been said?", "what has been said"),
        ("Didn't he mention it?", "did he mention it"),
        ("Hey, can you please tell me what was said at 0:16?", "what was said at 0:16"),
        ("Do you remember when the shipyard came up?", "when the shipyard mentioned"),
        ("What exactly was said around 0:16, please?", "what was said at 0:16"),
        ("What do they say regarding the shipyard?", "what was said about the shipyard"),
        ("So far, what was shown?", "so far, what was shown"),
        ("Any cats in the video?", "was there any cats in the video"),
    ],
)
def test_other_ways_to_say_it_are_put_as_the_rules_know_it(asked: str, plain: str) -> None:
    assert parse(asked).text == plain


@pytest.mark.parametrize(
    "asked",
    ["Tell me whether a dog was shown", "I wonder if a dog was shown", "Do you know if a dog was shown?"],
)
def test_whether_asks_for_yes_or_no(asked: str) -> None:
    assert parse(asked).form == "yes/no"


@pytest.mark.parametrize(
    "asked",
    ["What was said 1 minute 5 seconds in?", "What was said at 1m05s?", "What was said at 1 min 5 sec?"],
)
def test_minutes_and_seconds_are_one_time(asked: str) -> None:
    assert parse(asked).times == (65.0,)


def test_a_second_of_the_clock_is_no_ordinal() -> None:
    assert parse("At which second was the shipyard mentioned?").ordinal is None
    assert parse("What was said at second 16?").ordinal is None
    assert parse("What is the second slide called?").ordinal == 2
    assert parse("What is the second slide called?").form == "open"


def test_what_is_done_and_to_what_is_known() -> None:
    asked = parse("Why did the woman throw the first honey on the grass?")
    assert (asked.subject, asked.verb, asked.definite) == ("woman", "throw", ["honey", "grass"])
    assert parse("What tastes fine with chicken?").definite == ["chicken"]
    assert parse("What did the speaker say?").verb is None


def test_a_word_about_the_stream_is_what_it_is_about_where_that_is_asked() -> None:
    assert parse("What was said about the moment?").about == ["moment"]
    assert parse("What is shown at the moment?").about == []


def test_all_quotations_are_known_in_order() -> None:
    assert parse('Was "alpha" said before "beta"?').quotes == ["alpha", "beta"]
