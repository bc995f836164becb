"""The extractive reader tells the best passage, points at it, or says nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from streamsvc.answers.extractive_reader import POINTED, Extract, read
from streamsvc.answers.route import Arguments, Route
from streamsvc.core.types import Evidence
from streamsvc.timeline.passages import ANSWER, FLOOR, MAX_WORDS, Passage

ROUTE = Route()
VERDICT = Route(arguments=Arguments(form="yes/no"))


def passage(score: float, *texts: str, at: float = 75.0, kind: str = "speech") -> Passage:
    """One sentence each 2 s."""
    texts = texts or ("The kiln is fired on Thursdays.",)
    parts = tuple(Evidence(at + 2 * n, at + 2 * n + 2, kind, text) for n, text in enumerate(texts))
    return Passage(parts, score, margin=9.0)


async def told(passages: Sequence[Passage], route: Route = ROUTE, best: str = "") -> Extract:
    """What is read; the cross-encoder likes texts with the words `best`."""

    async def rank(query: str, texts: Sequence[str], seconds: float) -> Sequence[float] | None:
        return [float(best in text) for text in texts] if best else None

    return await read("When is the kiln fired?", route, passages, rank)


async def test_a_passage_above_the_threshold_is_the_answer() -> None:
    found = await told([passage(ANSWER), passage(FLOOR)])
    assert found.outcome == "answer"
    assert found.finding.text == "At 1:15: “The kiln is fired on Thursdays.”"
    assert [item.start for item in found.finding.evidence] == [75.0]


async def test_below_it_the_nearest_passages_are_pointed_at() -> None:
    near = [passage(ANSWER - 0.1), *(passage(FLOOR + 0.1, at=n) for n in (10.0, 20.0, 30.0))]
    found = await told(near)
    assert found.outcome == "closest"
    assert found.finding.text.startswith("I found no answer. Nearest, at 1:15: “The kiln")
    assert len(found.finding.evidence) == POINTED


async def test_below_the_floor_nothing_is() -> None:
    assert (await told([passage(FLOOR - 0.1)])).outcome == "declined"
    assert (await told([])).outcome == "declined"


@pytest.mark.parametrize("route", [VERDICT, Route(reader="sight"), Route(reader="none")])
async def test_a_passage_affirms_nothing_and_does_not_tell_of_pictures(route: Any) -> None:
    assert (await told([passage(ANSWER + 9)], route)).outcome == "closest"


async def test_a_sentence_that_fits_and_denies_is_a_no() -> None:
    texts = ("The wood is dry.", "But we never fire the kiln on Fridays.")
    found = await told([passage(ANSWER + 9, *texts)], VERDICT, best="Fridays")
    assert found.outcome == "answer"
    assert found.finding.text == "No, at 1:17: “But we never fire the kiln on Fridays.”"
    assert (await told([passage(ANSWER + 9, *texts)], VERDICT, best="dry")).outcome == "closest"


async def test_markup_and_quotes_of_the_stream_stay_text() -> None:
    found = await told([passage(ANSWER + 9, 'He said "stop" <b>now</b>.', kind="screen")])
    assert found.finding.text == "On the screen at 1:15: “He said 'stop' <b>now</b>.”"


async def test_of_a_long_passage_the_part_that_fits_best_is_told() -> None:
    long = " ".join(["clay"] * (MAX_WORDS - 5))
    sentences = passage(ANSWER, f"First {long}.", f"Then {long} on Thursdays.")
    found = await told([sentences], best="Thursdays")
    assert found.finding.text.startswith("At 1:17: “Then clay")
    clauses = passage(ANSWER, f"First {long}, then the {long} on Thursdays, and that is all.")
    found = await told([clauses], best="Thursdays")
    assert "on Thursdays" in found.finding.text
    assert "…" not in found.finding.text
    assert len(found.finding.text.split()) <= 40


async def test_without_the_cross_encoder_the_beginning_is_told() -> None:
    long = " ".join(["clay"] * MAX_WORDS)
    found = await told([passage(ANSWER, f"First {long}.", "On Thursdays.")])
    assert found.finding.text.startswith("At 1:15: “First clay")
    assert found.finding.text.endswith("…”")
