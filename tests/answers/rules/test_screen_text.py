"""Questions about text on the screen are answered from it, with its time.

What it does not say is left to others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines import ocr
from streamsvc.answers.rules import screen_text
from streamsvc.answers.rules.parse import parse
from streamsvc.core.types import ScreenText, TextLine
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision.perception import lines_of, title
from tests.builders import pages
from tests.builders.questions import find
from tests.builders.units import sight


def on(pieces: list[pages.Piece]) -> Timeline:
    return pages.shown(pages.BULLETS, pieces)


@pytest.mark.parametrize(
    "question, begins",
    [
        ("What is the total on the invoice?", "$67.83, on the screen at 0:20:"),
        ("How much is the total?", "$67.83"),
        ("What is the due date?", "11 April 2026"),
        ("When is the invoice due?", "11 April 2026"),
        ("What is the invoice number?", "10248"),
        ("What is the date on the invoice?", "12 March 2026"),
        ("Who is the invoice billed to?", "Alice Mutton"),
        ("What is the price of the chai latte?", "18.00"),
        ("How much does the chai latte cost?", "18.00"),
        ("How many brown sugar are on the invoice?", "10,"),
        ("What is the email address on the invoice?", "billing@northwind.example"),
        ("What is the phone number?", "+44 20 7946 0958"),
        ("What is the website?", "www.northwind.example"),
        ("How much is the VAT on the bill?", "10.83"),
        ("Which item is the cheapest?", "Brown sugar"),
        ("What is the most expensive item on the invoice?", "Chai latte"),
    ],
)
def test_an_invoice_is_read_by_its_labels_its_table_and_the_look_of_its_values(
    question: str, begins: str
) -> None:
    found = find(question, on(pages.INVOICE), 30.0)
    assert found.text.startswith(begins)
    assert found.supported
    assert {(item.kind, item.start, item.end, item.frame) for item in found.evidence} == {
        ("screen", 20.0, 20.0, 20.0)
    }


@pytest.mark.parametrize(
    "question",
    [
        "What is the total on the receipt?",
        "What is the shipping cost on the invoice?",
        "What is the discount?",
        "What is the price of the oolong tea?",
        "How many biscuits are on the invoice?",
        "What is the fax number?",
        "What is the IBAN on the invoice?",
        "When is the delivery date?",
        "Read the fortieth line.",
        "Read the ninth point.",
        "What does the terminal show?",
        "Which slide showed the budget?",
    ],
)
def test_what_a_page_does_not_say_is_declined(question: str) -> None:
    assert not find(question, on(pages.INVOICE), 30.0).supported


@pytest.mark.parametrize(
    "question, holds",
    [
        ("What was the revenue in Q3 of 2025?", "162"),
        ("What is the value for Q1 in 2024?", "120"),
        ("What is the title of the slide?", "Revenue by quarter"),
        ("Which quarter had the highest revenue in 2025?", "Q3, on the screen at 0:20"),
        ("Which quarter had the lowest revenue in 2024?", "Q1, on the screen at 0:20"),
        ("Read the third line.", "Q1 120 140"),
        ("What is the last line on the screen?", "Q3 131 162"),
        ("How many lines are on the slide?", "5: "),
        ("Which slide showed Lisbon?", '"Plan for the spring", from 0:10.'),
        ("Which slide mentioned revenue?", "Revenue by quarter"),
        ("How many bullet points are on the first slide?", "3: "),
        ("What is the second bullet point of the first slide?", "Open the office in Lisbon"),
    ],
)
def test_tables_lines_and_slides_are_found(question: str, holds: str) -> None:
    found = find(question, on(pages.TABLE), 30.0)
    assert holds in found.text
    assert found.supported and found.evidence


@pytest.mark.parametrize(
    "question, holds",
    [
        ("What does the terminal show?", "nothing to commit"),
        ("What was the last command?", "git status"),
        ("What was the first command in the terminal?", "pytest tests/test_api.py"),
        ("What is the output of git status?", "On branch main / nothing to commit, working tree clean"),
        ("What error does the terminal show?", "AssertionError: expected 200, got 401"),
    ],
)
def test_a_terminal_is_read_by_its_prompts(question: str, holds: str) -> None:
    found = find(question, on(pages.TERMINAL), 30.0)
    assert holds in found.text
    assert found.supported


def edited() -> Timeline:
    """A page whose third line is edited at second 20, and which is blank from second 40 on."""
    before = [
        ("Weekly report", 80, 50, 48),
        ("Open tickets: 12", 80, 200, 30),
        ("Closed tickets: 7", 80, 300, 30),
    ]
    line = pages.shown(before, [*before[:2], ("Closed tickets: 9", 80, 300, 30)])
    line.add(sight(40.0, blank=True))
    return line


@pytest.mark.parametrize(
    "question, begins",
    [
        ('When did "Closed tickets: 9" appear on the screen?', "At 0:20 (20.0 s)."),
        ('When did the text "Open tickets" appear?', "At 0:10 (10.0 s)."),
        ('How long was "Closed tickets: 7" shown?', "10 s, from 0:10 to 0:20."),
        ('How long was "Open tickets" on the screen?', "30 s, from 0:10 to 0:40."),
        ('When did the text "Open tickets" disappear?', "At 0:40 (40.0 s)."),
        (
            "What was the last line before the screen went black?",
            'On the screen at 0:20: "Closed tickets: 9"',
        ),
        ("What changed on the screen since 0:15?", "At 0:"),
    ],
)
def test_each_line_has_its_own_times(question: str, begins: str) -> None:
    assert find(question, edited(), 50.0).text.startswith(begins)


def test_what_changed_is_what_came_and_what_went() -> None:
    line = pages.shown(
        [("Weekly report", 80, 50, 48), ("Sum 12", 80, 200, 30)],
        [("Weekly report", 80, 50, 48), ("Sum 15", 80, 200, 30)],
    )
    found = find("What changed on the screen?", line, 30.0)
    assert found.text == 'At 0:20, new: "Sum 15"; gone: "Sum 12".'
    assert [(item.start, item.quote) for item in found.evidence] == [(20.0, "Sum 15"), (20.0, "Sum 12")]
    assert not find("What changed on the screen in the last 5 seconds?", line, 30.0).supported


def test_what_is_still_shown_has_not_disappeared() -> None:
    assert not find('When did the text "INVOICE" disappear?', on(pages.INVOICE), 30.0).supported


def test_a_word_in_the_question_that_belongs_to_no_page_leaves_it_to_other_rules() -> None:
    assert screen_text.read(parse("What did the king say about the total?"), on(pages.INVOICE), 30.0) is None
    assert screen_text.read(parse("Who carried the lantern?"), on(pages.INVOICE), 30.0) is None
    assert screen_text.read(parse("What is the total?"), Timeline(), 30.0) is None


@given(st.text(max_size=80))
def test_no_question_makes_it_fail(question: str) -> None:
    found = screen_text.read(parse(question), on(pages.INVOICE), 30.0)
    assert found is None or found.supported == bool(found.evidence)


@pytest.fixture(scope="module")
def reader() -> Iterator[Callable[[bytes], tuple[TextLine, ...]]]:
    """Reads a picture by the real models."""
    engine: Any = ocr.load({})
    yield lambda jpeg: lines_of(engine.ops["read"].run([{"jpeg": np.frombuffer(jpeg, np.uint8)}])[0])


@pytest.mark.models
@pytest.mark.parametrize(
    "pieces, question, begins",
    [
        (pages.INVOICE, "What is the total on the invoice?", "$67.83"),
        (pages.INVOICE, "What is the due date?", "11 April 2026"),
        (pages.INVOICE, "What is the price of the chai latte?", "18.00"),
        (pages.INVOICE, "What is the email address?", "billing@northwind.example"),
        (pages.TABLE, "What was the revenue in Q3 of 2025?", "162"),
        (pages.TERMINAL, "What is the output of git status?", 'On the screen at 0:10: "On branch main'),
        (pages.TERMINAL, "What error does the terminal show?", 'On the screen at 0:10: "E AssertionError'),
        (pages.BULLETS, "How many bullet points are on the slide?", "3: "),
        (pages.BULLETS, "What is the title of the slide?", '"Plan for the spring"'),
    ],
)
def test_pages_that_are_really_read_answer_the_same(
    reader: Callable[[bytes], tuple[TextLine, ...]], pieces: list[pages.Piece], question: str, begins: str
) -> None:
    read = reader(pages.picture(pieces))
    line = Timeline()
    line.add(ScreenText("s", "main", 10.0, 0.0, title(read), read, 10.0))
    assert find(question, line, 20.0).text.startswith(begins)


def test_quoted_words_on_the_screen_are_found_and_a_near_miss_of_a_title_is_not() -> None:
    line = pages.shown(
        [("The house of a rich man", 80, 50, 48), ("He could scarcely breathe", 80, 200, 30)], pages.INVOICE
    )
    assert find('Was "He could scarcely breathe" on the screen?', line, 30.0).text.startswith("Yes, at 0:")
    assert not find('Was "golden rings" on the slide?', line, 30.0).supported
    assert find('When was the slide "The house of a rich man" shown?', line, 30.0).supported
    assert find('When was the slide "The horse of a rich man" shown?', line, 30.0).supported, (
        "as it may be misread"
    )
    assert not find('When was the slide "The house of a poor man" shown?', line, 30.0).supported
