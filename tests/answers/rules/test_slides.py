"""The screen that a question means is known by its number, its title or its words."""

from __future__ import annotations

from streamsvc.answers.rules.parse import parse
from streamsvc.answers.rules.slides import count_screens, numbered_screen, screen_for
from streamsvc.timeline.timeline import Timeline, TimelineLimits
from tests.builders.units import screen


def test_slides_are_counted_by_their_own_numbering_else_so_far() -> None:
    numbered, plain = Timeline(), Timeline()
    numbered.add(screen(1.0, "Title", "3 / 12"))
    plain.add(screen(1.0, "Title"))
    assert count_screens(parse("How many slides are there?"), numbered).text.startswith("12")
    assert count_screens(parse("How many slides are there?"), plain).text == "1 so far."


def test_where_screens_have_been_forgotten_nobody_knows_which_was_the_third() -> None:
    whole, short = Timeline(), Timeline(limits=TimelineLimits(screens=4))
    for n, title in enumerate(("Alpha", "Bravo", "Charlie", "Delta", "Echo", "Foxtrot")):
        for found in (whole, short):
            found.add(screen(10.0 * n, title, title * 4))
    asked = parse("What does the third slide say?")
    charlie = numbered_screen(asked, whole, 60.0)
    assert charlie is not None
    assert charlie.title == "Charlie"
    assert numbered_screen(asked, short, 60.0) is None


def test_a_misread_word_of_a_title_is_forgiven_and_another_word_is_not() -> None:
    found = Timeline()
    found.add(screen(1.0, "The brave night fery", "Slide 1 of 3"))
    meant = screen_for(parse('When was the slide "The brave night ferry" shown?'), found)
    assert meant is not None
    assert meant.start == 1.0
    assert screen_for(parse('When was the slide "The brave night train" shown?'), found) is None
