"""Questions are made by templates from what is true, the same ones every time, and a run over them is told by kind and half."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from load_tests import question_set
from load_tests.question_set import Said, good, halve, nouns, sheets, show, telling, words_of, write
from streamsvc.evaluation.scenario import found

TALK = "The miller carried a lantern to the harbour, and the miller slept. Nobody saw the lighthouse burn; it was dark."


def said(text: str) -> list[Said]:
    items = [{"w": word, "start": float(n), "end": n + 0.5} for n, word in enumerate(text.split())]
    return words_of({"words": items}, 100.0)


def test_sentences_end_with_their_marks_and_words_behind_the_end_are_not_said() -> None:
    words = said(TALK)
    assert [word.text for word in words if word.sentence == 1] == [
        "Nobody",
        "saw",
        "the",
        "lighthouse",
        "burn;",
    ]
    assert (
        len(words_of({"words": [{"w": "a", "start": 0, "end": 1}, {"w": "b", "start": 9, "end": 10}]}, 5.0))
        == 1
    )


def test_telling_words_are_said_once_and_nouns_stand_behind_an_article() -> None:
    words = said(TALK)
    assert [word.bare for word in telling(words)] == [
        "carried",
        "lantern",
        "harbour",
        "slept",
        "nobody",
        "lighthouse",
    ]
    assert [word.bare for word in nouns(words)] == ["lantern", "harbour"]


@pytest.fixture(scope="module")
def made(request: pytest.FixtureRequest) -> list[question_set.Sheet]:
    media: Path = request.getfixturevalue("media")
    return sheets(media)


@pytest.mark.media
def test_there_are_enough_of_every_kind_in_both_halves(made: list[question_set.Sheet]) -> None:
    counts = Counter((question["kind"], question["half"]) for sheet in made for question in sheet.asked)
    never = counts["never", "tune"] + counts["never", "held"]
    assert never >= 60
    assert counts.total() - never >= 120
    for kind in ("speech", "screen", "time", "object", "attribute", "sound", "unknown", "never"):
        assert abs(counts[kind, "tune"] - counts[kind, "held"]) <= 1
        assert counts[kind, "held"] >= 5


@pytest.mark.media
def test_the_same_questions_are_made_every_time_and_none_twice(
    made: list[question_set.Sheet], media: Path
) -> None:
    again = sheets(media)
    assert [sheet.asked for sheet in again] == [sheet.asked for sheet in made]
    texts = [(sheet.name, question["question"]) for sheet in made for question in sheet.asked]
    assert len(set(texts)) == len(texts)


@pytest.mark.media
def test_what_was_never_said_is_not_in_the_part_that_is_played(made: list[question_set.Sheet]) -> None:
    for sheet in made:
        stems = {word.bare[:5] for word in words_of(sheet.truth, sheet.seconds)}
        for question in sheet.asked:
            quoted = question["question"].split('"')
            if question["kind"] == "never" and len(quoted) == 3 and stems and " " not in quoted[1]:
                assert quoted[1][:5] not in stems


@pytest.mark.media
def test_what_is_written_is_read_as_scenarios(made: list[question_set.Sheet], tmp_path: Path) -> None:
    write(made, tmp_path)
    assert [scenario.name for scenario in found([tmp_path])] == sorted(sheet.name for sheet in made)


def row(kind: str, half: str, verdict: str, honest: bool = False) -> dict[str, Any]:
    return {
        "kind": kind,
        "half": half,
        "verdict": verdict,
        "honest": honest,
        "answerable": kind != "never",
        "cited": verdict == "right",
    }


def test_what_never_was_is_answered_well_by_no_and_by_declining() -> None:
    rows = [
        row("never", "tune", "declined", True),
        row("never", "held", "hallucinated"),
        row("speech", "held", "right", True),
    ]
    assert [good(each) for each in rows] == [True, False, True]
    told = show(rows)
    assert "| never  | 1 of 1     | 100 |" in told
    assert "right ones that are cited: 1 of 1" in told


def test_halves_are_told_apart_within_every_recording_and_kind() -> None:
    sheet = question_set.Sheet("a", Path("a.mp4"), 10.0, {})
    for number in range(6):
        sheet.ask("object", f"Is it {number}?", "yes")
    halve([sheet], random.Random(1))
    assert Counter(question["half"] for question in sheet.asked) == {"tune": 3, "held": 3}
