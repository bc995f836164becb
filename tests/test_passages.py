"""Lines are quoted with their times, near enough to what was asked."""

from __future__ import annotations

from streamsvc.context import Timeline
from streamsvc.passages import clock, count_screens, extract, locate, mentions, numbered_screen, quote_of
from streamsvc.questions import parse
from tests.test_context import cue, screen
from tests.told import ferries


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
    for question in ("What was the palace of the king filled with?", "What was the king's palace filled with?"):
        assert extract(parse(question), found, 20.0) is None


def test_quotes_are_cut_at_a_number_of_words() -> None:
    assert quote_of("one two three four", 2) == "one two …"
    assert quote_of("one two three four", 2, tail=True) == "… three four"


def test_times_are_told_as_a_clock() -> None:
    assert (clock(64.9), clock(3723.0)) == ("1:04", "1:02:03")


def test_slides_are_counted_by_their_own_numbering_else_so_far() -> None:
    numbered, plain = Timeline(), Timeline()
    numbered.add(screen(1.0, "Title", "3 / 12"))
    plain.add(screen(1.0, "Title"))
    assert count_screens(parse("How many slides are there?"), numbered).text.startswith("12")
    assert count_screens(parse("How many slides are there?"), plain).text == "1 so far."


def test_where_screens_have_been_forgotten_nobody_knows_which_was_the_third() -> None:
    whole, short = Timeline(), Timeline(screens=4)
    for n, title in enumerate(("Alpha", "Bravo", "Charlie", "Delta", "Echo", "Foxtrot")):
        for found in (whole, short):
            found.add(screen(10.0 * n, title, title * 4))
    asked = parse("What does the third slide say?")
    charlie = numbered_screen(asked, whole, 60.0)
    assert charlie is not None
    assert charlie.title == "Charlie"
    assert numbered_screen(asked, short, 60.0) is None


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
