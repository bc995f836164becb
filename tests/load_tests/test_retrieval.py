"""The bench of retrieval: what a timeline holds at a second, and what its tables count."""

from __future__ import annotations

from typing import Any

import pytest

from load_tests import retrieval
from load_tests.retrieval import Row, curve, from_truth, from_units, reach
from streamsvc.core.types import Cue, Evidence, Scene, Word
from streamsvc.timeline.passages import Passage

TRUTH: dict[str, Any] = {
    "words": [
        {"w": "Lanterns", "start": 1.0, "end": 1.4},
        {"w": "glow.", "start": 1.4, "end": 2.0},
        {"w": "Later.", "start": 5.0, "end": 5.5},
    ],
    "intervals": [{"start": 4.0, "end": 9.0, "title": "Harbour", "text": "Harbour\nOpen at nine"}],
}


def cue(text: str, at: float, *, final: bool = True) -> Cue:
    words = tuple(Word(word, at, at + 0.5) for word in text.split())
    return Cue("s", "main", at + 0.5, 0.0, text, words, len(words), final)


def row(text: str, score: float, *keywords: str, margin: float = 9.0, answerable: bool = True) -> Row:
    question = {
        "question": "what?",
        "type": "open",
        "kind": "fact",
        "modality": ["speech"],
        "keywords": keywords,
        "answerable": answerable,
        "half": "develop",
    }
    return Row(question, (Passage((Evidence(1.0, 2.0, "speech", text, None),), score, margin),))


@pytest.mark.parametrize(
    ("second", "said", "screens"), [(1.5, "Lanterns", 0), (4.5, "Lanterns glow.", 0), (6.0, "Later.", 1)]
)
def test_a_timeline_of_the_truth_holds_what_was_over(second: float, said: str, screens: int) -> None:
    timeline = from_truth(TRUTH, second)
    assert said in " ".join(sentence.evidence().quote for sentence in timeline.sentences)
    assert len(list(timeline.screens)) == screens
    assert timeline.latest == pytest.approx(max(second, 0.0))


def test_a_timeline_of_units_ends_at_the_second_and_leaves_out_a_models_scenes() -> None:
    units = [
        (2.0, cue("Lanterns glow.", 1.0)),
        (3.0, Scene("s", "main", 3.0, 0.0, "A harbour at night.", 3.0, 3.0, (), by="model")),
        (6.0, cue("Later.", 5.0)),
    ]
    timeline = from_units(units, 4.0)
    assert [sentence.evidence().quote for sentence in timeline.sentences] == ["Lanterns glow."]
    assert list(timeline.scenes) == []


def test_a_keyword_far_down_a_passage_does_not_count() -> None:
    assert row("the lanterns glow", 1.0, "lanterns").held_in(1)
    assert not row("word " * retrieval.QUOTE + "lanterns", 1.0, "lanterns").held_in(1)


def test_the_tables_count_what_is_told_and_what_of_it_is_right() -> None:
    rows = [
        row("the lanterns glow", 5.0, "lanterns"),
        row("the boats leave", 5.0, "lanterns"),
        row("the lanterns glow", 5.0, "lanterns", margin=0.0),
        row("the boats leave", -9.0, "boats"),
        row("the boats leave", 5.0, answerable=False),
    ]
    assert curve(rows, 0.0, apart=True) == ["1", "2", "1"]
    assert curve(rows, 0.0, apart=False) == ["2", "3", "1"]
    assert reach(rows)[:4] == ("5", "4", "3 (75%)", "3 (75%)")
    assert reach(rows)[-3:] == ("1", "2", "1 of 1")
