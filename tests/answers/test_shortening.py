"""What a small model may add to a passage: a run of the passage's own words."""

from __future__ import annotations

import pytest

from streamsvc.answers.shortening import copied, shortened
from streamsvc.core import clock
from streamsvc.core.errors import WorkerError
from tests.fakes.role import FakeRole, Piece

PASSAGE = "We fire the kiln on Thursdays, because the wood is delivered by cart on the evening before."
QUESTION = "Why is the kiln fired on Thursdays?"


@pytest.mark.parametrize(
    "text", ["because the wood is delivered", " Because the wood is delivered.\nQuestion:"]
)
def test_a_run_of_the_passage_passes(text: str) -> None:
    assert copied(text, PASSAGE, QUESTION).lower() == "because the wood is delivered"


@pytest.mark.parametrize(
    "text",
    [
        "because the wood is wet",
        "the wood before",  # its words, but no run of them
        "the kiln on Thursdays",  # says no more than the question
        PASSAGE,
        "",
    ],
)
def test_anything_else_does_not(text: str) -> None:
    assert copied(text, PASSAGE, QUESTION) == ""


async def short(*says: Piece, passage: str = PASSAGE, seconds: float = 3.0) -> tuple[str, FakeRole]:
    think = FakeRole(streams={"generate": says})
    return await shortened(think, "s", QUESTION, passage, clock.now() + seconds), think


async def test_the_model_is_shown_the_passage_and_keeps_nothing() -> None:
    text, think = await short("because the wood ", "is delivered")
    assert text == "because the wood is delivered"
    (payload,) = think.payloads("generate")
    assert payload["aside"]
    assert PASSAGE in payload["question"]


async def test_a_failure_costs_nothing() -> None:
    assert (await short("because the", WorkerError("gone")))[0] == ""


@pytest.mark.parametrize(("passage", "seconds"), [("It is Thursday.", 3.0), (PASSAGE, 0.3)])
async def test_it_is_not_asked_where_it_cannot_help(passage: str, seconds: float) -> None:
    _, think = await short("x", passage=passage, seconds=seconds)
    assert think.count("generate") == 0
