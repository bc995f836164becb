"""A question that came with a picture is answered from the picture, or declined."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streamsvc.answers.rules.image import answered
from streamsvc.answers.rules.parse import parse
from tests.builders import pages
from tests.builders.units import sight

NOTHING = pages.screen([], 75.0)
CAT = sight(75.0)
PAGE = replace(sight(75.0), boxes=())


@pytest.mark.parametrize(
    "question, text",
    [
        ("What is the total on the invoice?", '$67.83, in the image: "Total due $67.83"'),
        ("When is this due?", '11 April 2026, in the image: "Due date: 11 April 2026"'),
        (
            "What is the email address?",
            'billing@northwind.example, in the image: "billing@northwind.example"',
        ),
        ("Read the second line.", 'In the image: "Date: 12 March 2026"'),
        ("Does it mention Alice?", 'Yes: "Alice Mutton"'),
    ],
)
def test_a_document_is_read(question: str, text: str) -> None:
    found = answered(parse(question), PAGE, pages.screen(pages.INVOICE, 75.0, "INVOICE"), 75.0)
    assert found is not None and found.text == text
    assert {(item.kind, item.start, item.end, item.frame) for item in found.evidence} == {
        ("image", 75.0, 75.0, None)
    }


@pytest.mark.parametrize(
    "question, text",
    [
        ("Is there a cat in this picture?", "Yes, a cat is shown."),
        ("What is shown in the image?", "A cat."),
        ("How many cats are there in the picture?", "1, as far as I can see."),
    ],
)
def test_things_in_the_picture_are_named(question: str, text: str) -> None:
    found = answered(parse(question), CAT, NOTHING, 75.0)
    assert found is not None and found.text == text
    assert [item.kind for item in found.evidence] == ["image"]


@pytest.mark.parametrize(
    "question",
    [
        "What colour is the cat?",
        "Is there an astronaut in this image?",
        "Has a dog been shown?",
        "When was this photo taken?",
        "What does the sign say?",
    ],
)
def test_what_the_picture_does_not_tell_is_declined(question: str) -> None:
    found = answered(parse(question), CAT, NOTHING, 75.0)
    assert found is not None and not found.supported
    assert found.evidence == ()


@pytest.mark.parametrize(
    "question",
    ["What did the speaker say about Lisbon?", "When did the cat appear?", "What was said at 0:30?"],
)
def test_a_question_about_the_stream_is_left_to_the_stream(question: str) -> None:
    assert answered(parse(question), CAT, NOTHING, 75.0) is None
