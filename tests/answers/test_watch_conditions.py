"""Conditions of watches: plain words compile to checks, and what no model can decide is rejected."""

from __future__ import annotations

from typing import Any

import pytest

from streamsvc.answers.watch_conditions import compile_condition
from streamsvc.core.errors import InvalidRequest


@pytest.mark.parametrize(
    ("when", "kind", "expected"),
    [
        ("when a bus appears", "object", ("bus", 1)),
        ("tell me when somebody walks in", "object", ("somebody", 1)),
        ("alert me if there are more than three people", "object", ("people", 4)),
        ("when at least two cars are in the picture", "object", ("cars", 2)),
        ("when a second person appears", "object", ("person", 2)),
        ("as soon as a dog is visible", "object", ("dog", 1)),
        ("Please notify me when a pedestrian enters the picture!", "object", ("pedestrian", 1)),
        ("when the person leaves", "gone", ("person", 1)),
        ("when people disappear", "gone", ("people", 1)),
        ("let me know when the picture goes black", "blank", ()),
        ("when the slide changes", "slide", ()),
        ("notify me when a new title comes up", "slide", ()),
        ("when the next slide is shown", "slide", ()),
        ("when 'Budget' is on the screen", "written", {"budget"}),
        ('when the text "total due" is on the slide', "written", {"total", "due"}),
        ("when the screen shows an invoice", "written", {"invoic"}),
        ("when the invoice is shown", "written", {"invoic"}),
        ("someone says budget", "said", {"budget"}),
        ("when they talk about the harvest", "said", {"harvest"}),
        ('if the word "deadline" is mentioned', "said", {"deadlin"}),
        ("when the mountain spirit comes up", "said", {"mountain", "spirit"}),
        ("if anyone is talking about gravestones", "said", {"graveston"}),
        ("when the speaker stops for ten seconds", "silence", 10.0),
        ("when nobody has spoken for 2 minutes", "silence", 120.0),
        ("when the speaker starts talking again", "speech", ()),
    ],
)
def test_plain_words_compile_to_a_check(when: str, kind: str, expected: Any) -> None:
    (check,) = compile_condition(when)
    assert check.kind == kind
    if kind in ("object", "gone"):
        assert (check.label, check.min_count) == expected
    elif kind in ("written", "said"):
        assert check.stems == expected
    elif kind == "silence":
        assert check.seconds == expected


def test_a_quoted_phrase_alone_may_be_said_or_written() -> None:
    assert {check.kind for check in compile_condition('"quarterly report"')} == {"said", "written"}


@pytest.mark.parametrize(
    ("when", "reason"),
    [
        ("when a red car appears", "red"),
        ("when the dog barks", "barks"),
        ("when somebody smiles", "smiles"),
        ("when music plays", "music"),
        ("when a man with an umbrella walks in", "'man'"),
        ("when somebody sits down", "'sits'"),
        ("when a unicorn appears", "know"),
        ("when the coffee is gone", "detector"),
        ("when somebody says it", "which words"),
        ("when no one mentions budget", "silence alone"),
        ("when someone doesn't say budget", "does not happen"),
        ("when nothing is written on the screen", "silence alone"),
        ("tell me when", "characters"),
        ("x" * 201, "characters"),
    ],
)
def test_an_undecidable_condition_is_rejected_with_the_reason(when: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as caught:
        compile_condition(when)
    assert caught.value.code == "cannot_watch"


@pytest.mark.parametrize(
    ("when", "topics"),
    [
        ("when someone talks about the price of bread", ("the price of bread",)),
        ("tell me when they discuss hiring", ("hiring",)),
        ("if the conversation turns to politics", ("politics",)),
        ("when the talk is about insects", ("insects",)),
        ("when the speaker brings up the budget again", ("the budget again",)),
        ("someone says budget", ()),
        ('when they talk about "net zero"', ()),
        ("when the word deadline is mentioned", ()),
        ("when a bus appears", ()),
    ],
)
def test_talking_about_is_a_topic_and_saying_is_words(when: str, topics: tuple[str, ...]) -> None:
    checks = compile_condition(when)
    assert tuple(check.topic for check in checks if check.topic) == topics
