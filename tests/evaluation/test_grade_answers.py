"""Answers are graded as the shared bench grades them, and as the published sets do."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.evaluation import grade_answers
from tests.conftest import MEDIA

SHARED = MEDIA.parent / "bench" / "grade.py"
OPEN = {
    "type": "open",
    "question": "What drink?",
    "answer": "coffee",
    "keywords": ["coffee", "espresso"],
    "evidence_s": [12, 24],
}
YES = {"type": "yes/no", "question": "A cat?", "answer": "yes", "keywords": ["yes"], "evidence_s": [32, 44]}
NO = YES | {"answer": "no, it is black"}
WHEN = {
    "type": "when",
    "question": "When did it come?",
    "answer": "at 32 s",
    "keywords": ["32"],
    "evidence_s": [32, 44],
}
NEVER = OPEN | {"answerable": False}
QUESTIONS: list[dict[str, Any]] = [
    question | {"id": "q", "modality": modality}
    for question in (
        OPEN,
        YES,
        NO,
        WHEN,
        NEVER,
        OPEN | {"question": "What colour is it?"},
        OPEN | {"keywords": ["best of times", "8"]},
    )
    for modality in ("ocr", "speech", "speech+ocr", "vision", "vision+speech", "audio")
]
PIECES = [
    *(
        "Yes",
        "No",
        "yes,",
        "no.",
        "coffee",
        "espressos",
        "cof",
        "the best of times",
        "best of",
        "8",
        "18",
        "I have not seen that",
        "I don't",
    ),
    *(
        "unknown",
        "It was not mentioned",
        "0:32",
        "at 1:02:03",
        "33.9 s",
        "34.1 seconds",
        "30",
        "cannot tell",
        "\u2019tis",
        "-",
        "",
        "no evidence",
    ),
]


def shared() -> Any:
    """The module, run from its text: nothing is written beside it."""
    if not Path(SHARED).is_file():
        pytest.skip(f"{SHARED.name} is not there: the shared bench is not part of the project")
    module: dict[str, Any] = {"__name__": "grade"}
    exec(compile(SHARED.read_text(encoding="utf-8"), str(SHARED), "exec"), module)
    return SimpleNamespace(**module)


def replies(count: int) -> list[dict[str, Any]]:
    """Answers put together at random, each with evidence of none to three stretches."""
    chance = random.Random(11)
    made = []
    for _ in range(count):
        evidence: list[dict[str, Any]] = []
        for _ in range(chance.choice([0, 0, 1, 1, 2, 3])):
            start = chance.choice([0.0, 11.9, 12.0, 24.1, 30.0, 33.9, 34.1, 44.0, 60.0])
            evidence.append({"start": start, "end": start + chance.choice([0.0, 1.0, 12.0, 29.0, 60.0])})
            if chance.random() < 0.9:
                evidence[-1]["quote"] = " ".join(chance.choices(PIECES, k=chance.choice([1, 3, 50])))
        reply: dict[str, Any] = {
            "text": " ".join(chance.choices(PIECES, k=chance.choice([0, 1, 2, 4, 12, 30]))),
            "evidence": evidence,
        }
        if chance.random() < 0.3:
            reply["supported"] = chance.random() < 0.5
        if chance.random() < 0.5:
            reply["outcome"] = chance.choice(["answer", "closest", "declined"])
        made.append(reply)
    return made


def test_verdicts_citations_and_kinds_are_those_of_the_shared_grader() -> None:
    theirs, seen = shared(), set()
    for question in QUESTIONS:
        assert grade_answers.kind(question) == theirs.kind(question)
        for reply in replies(400):
            verdict = grade_answers.grade(question, reply)
            assert verdict == theirs.grade(question, reply), (question, reply)
            assert grade_answers.cited(question, reply) == theirs.cited(question, reply), (question, reply)
            seen.add(verdict)
    assert seen == {"right", "wrong", "refused", "pointed", "pointed wrong"}


@given(
    st.text(alphabet="ab '’-.8:0s1 \n", max_size=30), st.sampled_from(["a", "ab", "aba b", "8", "b-a", "abb"])
)
def test_words_phrases_and_times_are_found_as_the_shared_grader_finds_them(text: str, phrase: str) -> None:
    theirs = shared()
    assert grade_answers.words(text) == theirs.words(text)
    assert grade_answers.contains_phrase(phrase, text) == theirs.has(phrase, text)
    assert grade_answers.times(text) == theirs.times(text)


def test_affirming_what_never_was_is_a_hallucination() -> None:
    assert grade_answers.verdict(NEVER, {"text": "It was espresso."}) == "hallucinated"
    assert grade_answers.verdict(NO, {"text": "Yes, at 0:05."}) == "hallucinated"
    assert grade_answers.verdict(OPEN, {"text": "Tea."}) == "wrong"
    assert grade_answers.verdict(YES, {"text": "I cannot tell.", "supported": False}) == "declined"
    assert grade_answers.verdict(NO, {"text": "No."}) == "right"
    assert grade_answers.honest(NEVER, {"text": "I have not seen that.", "supported": False})
    assert not grade_answers.honest(NO, {"text": "Yes."})


def pointing(*quotes: str) -> dict[str, Any]:
    return {
        "text": "The closest I have:",
        "outcome": "closest",
        "evidence": [{"start": 0, "end": 1, "quote": quote} for quote in quotes],
    }


def test_what_only_points_claims_nothing_and_is_judged_by_its_first_passages() -> None:
    third = pointing("tea", "milk", "an espresso", "coffee")
    assert grade_answers.verdict(OPEN, pointing("an espresso")) == "pointed"
    assert grade_answers.verdict(OPEN, third) == "pointed wrong"
    assert grade_answers.among_first(OPEN, third)
    assert not grade_answers.among_first(OPEN, pointing("tea", "milk", "water", "coffee"))
    assert not grade_answers.among_first(OPEN, pointing())
    assert grade_answers.verdict(NO, pointing("coffee")) == "pointed wrong"
    assert grade_answers.verdict(NEVER, pointing("coffee")) == "right"
    assert not grade_answers.among_first(NEVER, pointing("coffee"))
    assert grade_answers.honest(OPEN, third)
    assert not grade_answers.is_told(third)
    assert grade_answers.among_first(OPEN, {"text": "Coffee."})
    assert not grade_answers.among_first(OPEN, {"text": "Tea."})


def test_of_a_list_the_share_of_its_points_is_told() -> None:
    listed = OPEN | {"points": [["coffee", "espresso"], ["tea"], ["milk"], ["water"]]}
    assert grade_answers.points_share(listed, {"text": "Espresso and milk."}) == 0.5
    assert grade_answers.points_share(listed, {"text": "I have not seen tea."}) == 0.0
    assert grade_answers.points_share(listed, pointing("coffee, tea, milk and water")) == 0.0
    assert grade_answers.points_share(OPEN, {"text": "Coffee."}) is None


@pytest.mark.parametrize(
    ("said", "same", "value"),
    [
        ("Blue.", 10, 1.0),
        ("blue", 4, 1.0),
        ("blue", 3, 0.9),
        ("blue", 2, 0.6),
        ("blue", 1, 0.3),
        ("red", 10, 0.0),
    ],
)
def test_vqa_accuracy_is_the_mean_over_leaving_each_person_out(said: str, same: int, value: float) -> None:
    assert grade_answers.vqa(said, ["the blue"] * same + ["green"] * (10 - same)) == pytest.approx(value)


@pytest.mark.parametrize(
    ("said", "truth"),
    [
        ("The two dogs!", "2 dogs"),
        ("1,000", "1000"),
        ("don't walk", "dont walk"),
        ("a cat/dog", "cat dog"),
        ("3.5", "3.5"),
        ("none", "0"),
    ],
)
def test_vqa_compares_without_articles_punctuation_and_number_words(said: str, truth: str) -> None:
    assert grade_answers.vqa_form(said) == grade_answers.vqa_form(truth)


def test_anls_is_one_minus_the_distance_and_nothing_below_a_half() -> None:
    assert grade_answers.anls("University of  California", ["university of california", "UC"]) == 1.0
    assert grade_answers.anls("abcx", ["abcd"]) == 0.75
    assert grade_answers.anls("abxy", ["abcd"]) == 0.0
    assert grade_answers.anls("", ["abcd"]) == 0.0


@pytest.mark.parametrize(
    ("said", "truth", "value"),
    [
        *(
            ("104", "100", 1.0),
            ("106", "100", 0.0),
            ("$1,040", "1000", 1.0),
            ("10%", "0.1", 1.0),
            ("0", "0", 1.0),
            ("0.01", "0", 0.0),
        ),
        *(("Germany", "germany", 1.0), ("France", "Germany", 0.0), ("-95", "-100", 1.0)),
    ],
)
def test_charts_are_read_within_five_percent(said: str, truth: str, value: float) -> None:
    assert grade_answers.relaxed(said, [truth]) == value


@pytest.mark.parametrize(
    ("text", "few"),
    [
        ("Yes, at 0:32.", "yes"),
        ("At 0:04: the screen reads “Total 12.50”.", "Total 12.50"),
        ("“He went home, for it was late.” In short: it was late.", "it was late"),
        ("A cat (0:32).", "A cat"),
    ],
)
def test_an_answer_in_a_sentence_has_its_few_words(text: str, few: str) -> None:
    assert grade_answers.short_answer(text) == few


def test_numbers_are_compared_as_they_are_said() -> None:
    assert grade_answers.spoken_form(["um", "in", "1984", "20", "dogs"]) == [
        "in",
        "one",
        "thousand",
        "nine",
        "hundred",
        "eighty",
        "four",
        "twenty",
        "dogs",
    ]
    assert grade_answers.number_words(999_999)[:3] == ["nine", "hundred", "ninety"]
