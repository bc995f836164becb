"""Lines are quoted with their times, near enough to what was asked."""

from __future__ import annotations

import pytest

from streamsvc.answers.rules.parse import parse
from streamsvc.answers.rules.passages import claim, extract, locate, mentions
from streamsvc.timeline.timeline import Timeline
from tests.answers.rules.ferries import ferries
from tests.builders.units import cue, screen


def line() -> Timeline:
    found = Timeline()
    found.add(cue("The stone cutter shook his head.", 2.0))
    found.add(cue("Nobody saw the spirit.", 10.0))
    return found


def test_a_compound_written_apart_is_found() -> None:
    assert locate(parse("the stone-cutter"), line()) is not None


def test_the_evidence_of_a_mention_begins_with_the_word() -> None:
    assert [round(e.start, 1) for e in mentions(parse("spirit"), line())] == [11.2]


def test_too_few_shared_words_are_no_answer() -> None:
    assert extract(parse("Where did the cutter bury the golden treasure?"), line(), 20.0) is None


def test_what_is_another_s_is_no_answer() -> None:
    found = Timeline()
    found.add(cue("His wooden hut was a stately palace filled with splendid furniture.", 2.0))
    assert extract(parse("What was the stately palace filled with?"), found, 20.0) is not None
    for question in (
        "What was the palace of the king filled with?",
        "What was the king's palace filled with?",
    ):
        assert extract(parse(question), found, 20.0) is None


def test_a_word_may_be_meant_by_another_beside_one_that_is_the_same() -> None:
    found = ferries()
    asked = extract(parse("What did the captain reject?"), found, 50.0)
    assert asked is not None
    assert "the oldest one" in asked.text
    assert extract(parse("What did they decline?"), found, 50.0) is None, "no word is the same"


def test_what_is_acted_upon_must_be_spoken_of_there() -> None:
    found = Timeline()
    found.add(cue("The captain refused to eat.", 2.0))
    found.add(cue("The weather was fine all day.", 20.0))
    found.add(cue("A medal was struck.", 40.0))
    assert extract(parse("Why did the captain refuse the medal?"), found, 60.0) is None


def test_why_is_told_with_what_came_before_where_no_cause_is_named() -> None:
    found = Timeline()
    found.add(cue("There was a hole in the old boiler.", 2.0))
    found.add(cue("The captain rejected the boiler on the spot.", 5.4))
    asked = extract(parse("Why did the captain refuse the boiler?"), found, 20.0)
    assert asked is not None
    assert asked.text.startswith('At 0:02: "There was a hole')


def test_who_acts_may_be_named_in_the_sentence_before() -> None:
    found = Timeline()
    found.add(cue("The inspector came at noon. He sealed the old boiler with great care.", 2.0))
    found.add(cue("Nobody spoke of the mayor that day.", 20.0))
    affirmed = claim(parse("Did the inspector seal the boiler?"), found)
    assert affirmed is not None
    assert affirmed.text.startswith("Yes, ")
    assert claim(parse("Did the mayor seal the boiler?"), found) is None


def test_a_sentence_goes_on_where_the_next_one_begins_with_but() -> None:
    found = Timeline()
    found.add(cue("The inspector looked round the cellar.", 2.0))
    found.add(cue("But could find nobody.", 4.6))
    denied = claim(parse("Did the inspector find anybody in the cellar?"), found)
    assert denied is not None
    assert denied.text.startswith("No, ")


def test_a_word_may_have_been_heard_as_one_that_sounds_like_it() -> None:
    found = Timeline()
    found.add(cue("A crowd stood round the knew peer in the harbour.", 2.0))
    found.add(cue("The weather was fine all day.", 20.0))
    asked = extract(parse("Who stood round the harbour pier?"), found, 60.0)
    assert asked is not None
    assert "A crowd" in asked.text


@pytest.mark.parametrize(("shown", "known"), [("The winter voyage", True), ("The summer garden", False)])
def test_what_stood_on_the_screen_meanwhile_belongs_to_what_was_said(shown: str, known: bool) -> None:
    found = Timeline()
    found.add(screen(1.0, shown, "Slide 1 of 2"))
    found.add(cue("The captain chose woollen blankets with golden tassels.", 2.0))
    found.add(screen(20.0, "Another page", "Slide 2 of 2"))
    found.add(cue("Now to something else.", 22.0))
    asked = extract(parse("What kind of blankets were there for the voyage?"), found, 60.0)
    assert (asked is not None and "woollen" in asked.text) == known


def buried(newer: str, *older: str) -> Timeline:
    """What was said at first, three seconds apart, and something else twenty times since."""
    found = Timeline()
    for at, text in [(2.0 + 3 * n, text) for n, text in enumerate(older)] + [
        (20.0 + 10 * n, newer) for n in range(20)
    ]:
        found.add(cue(text, at))
    return found


def test_lines_that_say_half_of_what_is_asked_do_not_hide_the_older_one_that_answers() -> None:
    found = buried(
        "Please wait and the recording begins after the tone.",
        "It was the time of year when summer was just beginning.",
    )
    asked = extract(parse("What season was beginning?"), found, 300.0)
    assert asked is not None
    assert "summer" in asked.text


def test_of_equals_the_one_where_he_is_spoken_of_answers_a_question_about_him() -> None:
    newer = "If you wish to send this to somebody, press nine."
    found = buried(newer, "He sat by the fire.", "To be a rich man was his only wish.")
    asked = extract(parse("What did he wish to be?"), found, 300.0)
    assert asked is not None
    assert "rich man" in asked.text
    newest = extract(parse("What did you wish to be?"), found, 300.0)
    assert newest is not None
    assert "press nine" in newest.text
