"""Lines are quoted with their times, near enough to what was asked."""

from __future__ import annotations

import pytest

from streamsvc.context import Timeline
from streamsvc.passages import beside, clock, count_screens, extract, locate, mentions, numbered_screen, quote_of
from streamsvc.questions import parse
from tests.test_context import cue, screen


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


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ('What did the speaker say right after "the stone cutter"?', 'At 0:03: "shook his head."'),
        ('What was said after "stone gutter shook his"?', 'At 0:04: "head. Nobody saw the spirit."'),
        ('What was said after "Nobody paw the"?', None),
        ('What came next after "cutter shook his head. Nobody saw the"?', 'At 0:11: "spirit."'),
        ('What was said before "saw the spirit"?', 'At 0:02: "The stone cutter shook his head. Nobody"'),
        ('What did he say after "something else entirely"?', None),
        ('What was shown after "the stone cutter"?', ""),
    ],
)
def test_what_was_said_beside_a_quote_is_told_even_if_a_word_of_it_was_heard_otherwise(question: str, text: str | None) -> None:
    found = beside(parse(question), line(), 20.0)
    if text == "":
        assert found is None, "other rules tell what was shown"
        return
    assert found is not None
    assert found.supported == (text is not None)
    assert text is None or found.text == text


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
