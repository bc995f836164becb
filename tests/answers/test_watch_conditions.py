"""Conditions of watches: their words become checks of the kind that the examples say, or are rejected."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamsvc.answers.watch_conditions import (
    DOUBT,
    Able,
    Check,
    checks_from,
    checks_of,
    fields_of,
    understood,
)
from streamsvc.answers.watch_intents import Kind
from streamsvc.core.errors import InvalidRequest
from tests.builders.votes import vote_for


@pytest.mark.parametrize(
    ("when", "kind", "expected"),
    [
        ("when a bus appears", "seen", "a bus in the picture"),
        ("tell me when somebody walks in", "seen", "a person in the picture"),
        ("alert me if there are more than three people", "seen", "at least four persons in the picture"),
        ("when at least two cars are in the picture", "seen", "at least two cars in the picture"),
        ("exactly six forks", "seen", "six forks in the picture"),
        ("when a second person appears", "seen", "at least two persons in the picture"),
        ("when somebody leaves", "gone", "no person in the picture any more"),
        ("everybody has left", "gone", "no person in the picture any more"),
        ("let me know when the picture goes black", "blank", "a blank picture"),
        ("when the slide changes", "slide", "another screen of text"),
        ("when 'Budget' is on the screen", "written", "on the screen: Budget"),
        ("when the screen shows an invoice", "written", "on the screen: invoice"),
        ("someone says budget", "said", "said: budget"),
        ("when the mountain spirit comes up", "said", "said: mountain spirit"),
        ("when they talk about the price of bread", "topic", "said or talked about: price of bread"),
        ('when they talk about "net zero"', "topic", "said: net zero"),
        ("when the speaker stops for ten seconds", "silence", "no speech for 10 s"),
        ("when it is quiet for 2 minutes", "silence", "no speech for 120 s"),
        ("when it is quiet", "silence", "no speech for 5 s"),
        ("when the speaker starts talking again", "speech", "speech begins"),
    ],
)
def test_the_words_of_a_condition_become_a_check_of_its_kind(when: str, kind: Kind, expected: str) -> None:
    (check,) = checks_of(when, vote_for(kind), Able())
    assert understood(check) == expected


def test_alternatives_are_checks_of_their_own_and_a_topic_is_one() -> None:
    seen = checks_of("when a cat or a dog appears", vote_for("seen"), Able())
    assert [check.label for check in seen] == ["cat", "dog"]
    talked = checks_of("they talk about illness or doctors", vote_for("topic"), Able())
    assert [check.text for check in talked] == ["illness", "doctors"]
    assert [check.topic for check in talked] == ["illness or doctors", ""]


def test_a_quotation_alone_may_be_said_or_written_and_is_never_seen() -> None:
    for vote in (None, vote_for("seen")):
        assert {check.kind for check in checks_of('"quarterly report"', vote, Able())} == {"said", "written"}
    assert checks_of('when "bus" is here', vote_for("seen", written=0.1), Able())[0].kind == "written"


def test_two_things_at_once_are_for_a_model_that_sees() -> None:
    when, vote = "somebody sings while a bus is in view", vote_for("seen")
    checks = checks_of(when, vote, Able(sees=True, reads=True))
    assert [(check.kind, check.sees) for check in checks] == [("model", True), ("model", False)]
    for able in (Able(), Able(reads=True)):
        with pytest.raises(InvalidRequest, match="two things at once"):
            checks_of(when, vote, able)


@pytest.mark.parametrize(
    ("when", "kind"),
    [("while they discuss the offer", "topic"), ("when 'while stocks last' is on the screen", "written")],
)
def test_a_word_that_stands_between_no_two_things_joins_none(when: str, kind: Kind) -> None:
    assert all(check.kind != "model" for check in checks_of(when, vote_for(kind), Able()))


def test_what_is_meant_a_model_that_reads_may_find_too_and_what_is_quoted_may_not() -> None:
    reads = Able(reads=True)
    cases: tuple[tuple[str, Kind, int], ...] = (
        ("they talk about rivers", "topic", 1),
        ("a warning pops up", "written", 1),
        ("they talk about 'net zero'", "topic", 0),
        ("somebody says rivers", "said", 0),
    )
    for when, kind, models in cases:
        checks = checks_of(when, vote_for(kind), reads)
        assert sum(check.kind == "model" for check in checks) == models, when
        assert all(check.kind != "model" for check in checks_of(when, vote_for(kind), Able())), when


def test_checks_survive_a_recording() -> None:
    checks = checks_of("they talk about illness or doctors", vote_for("topic"), Able())
    checks += checks_of("when a bus appears", None, Able())
    assert checks_from(json.loads(json.dumps([fields_of(check) for check in checks]))) == checks


def test_without_examples_labels_and_quotations_are_understood() -> None:
    assert checks_of("when a bus appears", None, Able())[0].label == "bus"
    assert {check.kind for check in checks_of("when they say 'hello'", None, Able())} == {"said", "written"}


@pytest.mark.parametrize(
    ("when", "kind", "reason"),
    [
        ("when a unicorn appears", "seen", "know"),
        ("when the coffee is gone", "gone", "detector"),
        ("when more than two rockets are there", "seen", "cannot be counted"),
        ("when no more than two people are there", "seen", "few"),
        ("when somebody says it", "said", "which words"),
        ("when a man in red waves", "look", "model that sees"),
        ("when somebody asks a question", "read", "model that reads"),
        ("when the dog barks", "none", "sounds"),
        (" ", "seen", "characters"),
        ("x" * 201, "seen", "characters"),
    ],
)
def test_what_nothing_here_can_decide_is_rejected_with_the_reason(when: str, kind: Kind, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as caught:
        checks_of(when, vote_for(kind), Able())
    assert caught.value.code == "cannot_watch"


def test_a_doubtful_condition_is_not_taken_for_one_of_the_rules() -> None:
    assert checks_of("a bus", vote_for("seen", 0.5, none=0.5 - DOUBT - 0.01), Able())
    with pytest.raises(InvalidRequest):
        checks_of("a bus", vote_for("seen", 0.5, none=0.5 - DOUBT + 0.01), Able())


@pytest.mark.parametrize(
    ("kind", "able", "sees"),
    [("look", Able(sees=True), True), ("read", Able(reads=True), False), ("look", Able(True, True), True)],
)
def test_a_model_takes_what_rules_cannot(kind: Kind, able: Able, sees: bool) -> None:
    assert checks_of("when somebody wears a helmet", vote_for(kind), able) == (Check("model", sees=sees),)


@pytest.mark.parametrize(("kind", "able"), [("look", Able(reads=True)), ("none", Able(True, True))])
def test_a_model_is_not_asked_what_it_cannot_tell(kind: Any, able: Able) -> None:
    with pytest.raises(InvalidRequest):
        checks_of("when somebody wears a helmet", vote_for(kind), able)
