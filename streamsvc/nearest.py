"""Where a question that nothing answers may find its answer: the line of the session that is nearest to it in meaning.

It is told behind the refusal and as no more than that, for nearness cannot tell a paraphrase from a near miss: "Who stole the gravestone?"
is nearer to "the stone-cutter carried a gravestone" than most right lines are to their questions (load_tests/nearness.py). So the answer
stays unsupported, without evidence; the words are a quotation, with their time.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace

from streamsvc import clock
from streamsvc.fusion import way
from streamsvc.passages import clock as timed
from streamsvc.passages import quote_of, refusal
from streamsvc.questions import parse
from streamsvc.search import Hit
from streamsvc.types import Answer, Delta, Question

Near = Callable[[str, float], Awaitable[Hit | None]]  # (text, seconds) -> the nearest line, if one is near; it ends within the seconds

PATIENCE = 1.5  # seconds at most: of an hour of talk all vectors are made by then
LEAST_SECONDS = 0.5  # before the deadline: with less left nothing is looked for
WORDS = 24  # of the line


async def pointed(question: Question, parts: AsyncGenerator[Delta | Answer, None], near: Near) -> AsyncGenerator[Delta | Answer, None]:
    """The parts of an answer as they come; a plain refusal of an open question is followed by the nearest line.

    Args:
        question: as answered.
        parts: see `reason.answer`.
        near: see Near.
    """
    async with aclosing(parts):
        async for part in parts:
            if isinstance(part, Answer) and not part.supported and part.text == refusal().text and asks_for_words(question):
                left = question.deadline - clock.now() - LEAST_SECONDS
                hit = await near(question.text, min(PATIENCE, left)) if left > 0 else None
                if hit is not None:
                    clause = f" {told(hit)}"
                    yield Delta(question.id, clause)
                    part = replace(part, text=part.text + clause)
            yield part


def asks_for_words(question: Question) -> bool:
    """Whether something that was said or written could answer: not looks, sounds, times or counts, nor what is wanted as JSON."""
    ask = parse(question.text)
    return question.image is None and question.form is None and ask.form == "open" and bool(ask.about) and way(ask) == "text"


def told(hit: Hit) -> str:
    """A line as it is pointed to."""
    where = "on the screen" if hit.kind == "screen" else "that was said"
    return f'The nearest {where}, at {timed(hit.start)}: "{quote_of(hit.text, WORDS)}"'
