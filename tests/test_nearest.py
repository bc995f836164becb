"""A refusal points to the nearest line, stays a refusal, and keeps its time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from streamsvc import clock, nearest
from streamsvc.nearest import asks_for_words, pointed, told
from streamsvc.passages import refusal
from streamsvc.search import Hit
from streamsvc.types import Answer, Delta, Evidence, Question

HIT = Hit(65.0, 69.0, "speech", "Towns and villages were destroyed by the power of the rain.", 0.39)
ASKED = "What wiped out the settlements?"


class Near:
    """Gives a line and remembers what it was asked; takes all the seconds that it may."""

    def __init__(self, hit: Hit | None = HIT, slow: bool = False) -> None:
        self.hit, self.slow = hit, slow
        self.asked: list[tuple[str, float]] = []

    async def __call__(self, text: str, seconds: float) -> Hit | None:
        self.asked.append((text, seconds))
        if self.slow:
            await clock.sleep(seconds)
        return self.hit


async def answered(text: str, supported: bool) -> AsyncGenerator[Delta | Answer, None]:
    yield Delta("q", text)
    yield Answer("q", text, supported, (Evidence(1.0, 2.0, "speech", "so it is"),) if supported else ())


async def ask(
    text: str, near: Near, *, seconds: float = 3.0, answer: str = refusal().text, supported: bool = False
) -> list[Delta | Answer]:
    question = Question("q", text, 70.0, clock.now() + seconds)
    return [part async for part in pointed(question, answered(answer, supported), near)]


def test_a_refusal_is_followed_by_the_nearest_line_and_stays_one(virtual: asyncio.Runner) -> None:
    near = Near()
    parts = virtual.run(ask(ASKED, near))
    done = parts[-1]
    assert isinstance(done, Answer)
    assert done.text == f'{refusal().text} The nearest that was said, at 1:05: "{HIT.text}"'
    assert "".join(part.text for part in parts[:-1]) == done.text
    assert (done.supported, done.evidence) == (False, ())
    assert near.asked == [(ASKED, pytest.approx(nearest.PATIENCE))]


def test_where_nothing_is_near_the_refusal_stands_alone(virtual: asyncio.Runner) -> None:
    assert [part.text for part in virtual.run(ask(ASKED, Near(None)))] == [refusal().text] * 2


def test_an_answer_with_evidence_and_a_session_without_anything_point_nowhere(virtual: asyncio.Runner) -> None:
    near = Near()
    virtual.run(ask(ASKED, near, answer='At 0:01: "so it is"', supported=True))
    virtual.run(ask(ASKED, near, answer="I have not seen or heard anything yet."))
    assert near.asked == []


@pytest.mark.parametrize(
    "text",
    [
        "When was the village destroyed?",
        "How many villages were destroyed?",
        "Was a village destroyed?",
        "What colour is the house?",
        "What music was playing?",
        "What is in the picture?",
        "What is the title of slide 12?",
        "Who is speaking?",
        "What?",
    ],
)
def test_what_no_line_of_words_can_answer_points_nowhere(virtual: asyncio.Runner, text: str) -> None:
    near = Near()
    virtual.run(ask(text, near))
    assert near.asked == []


def test_a_picture_that_came_along_or_a_form_of_json_points_nowhere() -> None:
    assert asks_for_words(Question("q", ASKED, 1.0, 9.0))
    assert not asks_for_words(Question("q", ASKED, 1.0, 9.0, image=b"jpeg"))
    assert not asks_for_words(Question("q", ASKED, 1.0, 9.0, form={"type": "object"}))


def test_the_answer_is_whole_before_its_deadline_however_slow_the_vectors_are(virtual: asyncio.Runner) -> None:
    async def took(seconds: float) -> float:
        began = clock.now()
        await ask(ASKED, Near(slow=True), seconds=seconds)
        return clock.now() - began

    assert virtual.run(took(3.0)) == pytest.approx(nearest.PATIENCE)
    assert virtual.run(took(1.0)) == pytest.approx(1.0 - nearest.LEAST_SECONDS)
    assert virtual.run(took(0.3)) == 0.0


def test_a_line_of_a_screen_is_told_as_one_and_a_long_line_is_cut() -> None:
    long = Hit(7.0, 9.0, "screen", " ".join(f"word{number}" for number in range(60)), 0.5)
    assert told(long).startswith('The nearest on the screen, at 0:07: "word0 ')
    assert "word59" not in told(long)
    assert len(told(long).split()) < 40 - len(refusal().text.split())
