"""Slides are known by place, number and title; what stands on the screen is quoted."""

from __future__ import annotations

import pytest

from streamsvc.answers.route import Arguments
from streamsvc.answers.tools.screen import number_of, screen_text, slide_with, slides, slides_of, table
from streamsvc.timeline.timeline import Timeline, TimelineLimits
from tests.builders import pages
from tests.builders.timelines import ferries
from tests.builders.units import cue, screen, sight

PRICES = '"Prices and tickets", slide 2, from 0:34 on: "Children travel free".'


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (Arguments(form="list"), '"The night ferry", "Prices and tickets", "Questions".'),
        (Arguments(), '"Questions", slide 3, from 0:44 on, 3 slides so far.'),
        (Arguments(ordinal=2), PRICES),
        (Arguments(number=1.0), '"The night ferry", slide 1, from 0:20 on: "Leaves at nine".'),
        (Arguments(span=(36.0, 36.0)), PRICES),
        (Arguments(text="tickets"), PRICES),
        (Arguments(text="children"), PRICES),
        (Arguments(text="tickets", form="when"), "At 0:34."),
        (Arguments(text="tickets", form="how long"), "10 seconds, from 0:34 to 0:44."),
        (Arguments(text="tickets", form="yes/no"), 'Yes, "Prices and tickets", slide 2, from 0:34 on.'),
        (Arguments(form="how often"), '3; the screen says "Slide 3 of 3"; 3 were shown so far.'),
        (Arguments(ordinal=4), None),
        (Arguments(ordinal=2, text="chapter"), PRICES),
        (Arguments(text="chapter"), None),
        (Arguments(form="list", text="deck"), '"The night ferry", "Prices and tickets", "Questions".'),
        (Arguments(span=(10.0, 10.0)), None),
    ],
)
def test_slides_are_told_in_order_or_one_by_one(arguments: Arguments, text: str | None) -> None:
    found = slides(ferries(), arguments, 50.0)
    assert (found and found.text) == text


def test_slides_are_counted_by_their_own_numbering_else_so_far() -> None:
    numbered, plain = Timeline(), Timeline()
    numbered.add(screen(1.0, "Title", "3 / 12"))
    plain.add(screen(1.0, "Title"))
    many = [slides(one, Arguments(form="how often"), 5.0) for one in (numbered, plain)]
    assert [found and found.values for found in many] == [("12",), ("1",)]
    assert many[1] is not None
    assert many[1].text == "1 so far."
    assert number_of(numbered.screens[0]) == (3, 12)


def test_where_screens_have_been_forgotten_nobody_knows_which_was_the_third() -> None:
    whole, short = Timeline(), Timeline(limits=TimelineLimits(screens=4))
    for place, title in enumerate(("Alpha", "Bravo", "Charlie", "Delta", "Echo", "Foxtrot")):
        for found in (whole, short):
            found.add(screen(10.0 * place, title, title * 4))
    third = slides(whole, Arguments(ordinal=3), 60.0)
    assert third is not None
    assert third.values == ("Charlie",)
    assert slides(short, Arguments(ordinal=3), 60.0) is None
    last = slides(short, Arguments(ordinal=-1), 60.0)
    assert last is not None
    assert last.values == ("Foxtrot",)


def test_a_letter_on_some_thing_is_no_slide_and_a_slide_read_anew_is_one() -> None:
    found = Timeline()
    for at, *lines in ((1.0, "B"), (5.0, "Budget", "one"), (9.0, "Budget", "one", "quite another line")):
        found.add(screen(at, *lines))
    assert [one.title for one in slides_of(found)] == ["Budget"]


def test_a_misread_word_of_a_title_is_forgiven_and_another_word_is_not() -> None:
    found = Timeline()
    found.add(screen(1.0, "The brave night fery", "Slide 1 of 3"))
    meant = slide_with(found, "The brave night ferry")
    assert meant is not None
    assert slide_with(found, "The brave night train") is None


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            Arguments(),
            '"Plan for the spring / - Hire two engineers / - Open the office in Lisbon / '
            '- Ship version 2.5 / Slide 3 of 9"',
        ),
        (Arguments(ordinal=2), '"- Open the office in Lisbon"'),
        (Arguments(ordinal=-1), '"- Ship version 2.5"'),
        (Arguments(ordinal=4), None),
        (
            Arguments(form="how often"),
            '3: "- Hire two engineers / - Open the office in Lisbon / - Ship version 2.5"',
        ),
        (
            Arguments(text="bullets", form="how often"),
            '3: "- Hire two engineers / - Open the office in Lisbon / - Ship version 2.5"',
        ),
        (Arguments(text="Lisbon"), 'At 0:10: "- Open the office in Lisbon".'),
        (Arguments(text="Lisbon", form="yes/no"), 'Yes, at 0:10: "- Open the office in Lisbon"'),
        (Arguments(text="Lisbon", form="when"), 'At 0:10: "- Open the office in Lisbon".'),
        (Arguments(text="Madrid", form="yes/no"), 'No, I have not seen "Madrid" on the screen.'),
        (Arguments(text="Madrid"), None),
    ],
)
def test_what_stands_on_the_screen_is_quoted(arguments: Arguments, text: str | None) -> None:
    found = screen_text(pages.shown(pages.BULLETS), arguments, 15.0)
    assert (found and found.text) == text
    assert found is None or found.evidence[0].start >= 0.0


def test_the_points_are_the_values_of_a_list() -> None:
    found = screen_text(pages.shown(pages.BULLETS), Arguments(form="list"), 15.0)
    assert found is not None
    assert found.values == ("- Hire two engineers", "- Open the office in Lisbon", "- Ship version 2.5")


def test_without_text_on_the_screen_the_picture_is_told() -> None:
    timeline = Timeline()
    timeline.add(sight(1.0, "cat"))
    found = screen_text(timeline, Arguments(), 3.0)
    assert found is not None
    assert found.text == "I see a cat."
    assert screen_text(timeline, Arguments(form="how often"), 3.0) is None


def test_a_labelled_value_is_told_from_the_newest_page_that_has_it() -> None:
    timeline = pages.shown(pages.INVOICE, pages.TABLE)
    total = table(timeline, Arguments(text="total due"), 30.0)
    assert total is not None
    assert total.values == ("$67.83",)
    assert total.text == '$67.83 ("Total due", on the screen at 0:10).'
    third = table(timeline, Arguments(text="2025 Q3"), 30.0)
    assert third is not None
    assert third.values == ("162",)
    assert table(timeline, Arguments(text="total due", span=(25.0, 25.0)), 30.0) is None
    assert table(timeline, Arguments(text="discount"), 30.0) is None
    assert table(timeline, Arguments(), 30.0) is None
    assert table(ferries(), Arguments(text="total"), 50.0) is None


def test_tools_of_the_screen_find_nothing_where_nothing_was_read() -> None:
    spoken = Timeline()
    spoken.add(cue("The night ferry leaves.", 1.0))
    assert slides(spoken, Arguments(), 5.0) is None
    assert table(spoken, Arguments(text="ferry"), 5.0) is None
