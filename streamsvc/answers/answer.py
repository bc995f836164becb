"""Answers: the time line first, by rule; a language model only adds a phrase that the found lines support.

An answer streams by checked clause: what was shown is never retracted, and the increments joined are the whole text.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Protocol

from streamsvc.answers.grounding import Clause
from streamsvc.answers.rules.finding import timestamp as timed
from streamsvc.answers.rules.follow_ups import followed
from streamsvc.answers.rules.image import answered
from streamsvc.answers.rules.parse import parse
from streamsvc.answers.rules.router import find
from streamsvc.answers.rules.visual_questions import first, way
from streamsvc.answers.structured_output import fill
from streamsvc.core import clock
from streamsvc.core.config import Think
from streamsvc.core.errors import StreamsvcError
from streamsvc.core.types import Answer, Delta, Evidence, Question, ScreenText, Sight
from streamsvc.timeline.text import QUESTION_WORDS, STOP, bag, stem, tokens
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision.scenes import scene
from streamsvc.vision.vlm import LEAST_SECONDS, VlmSession

__all__ = ["answer", "prompt", "scene", "shaped", "supported"]

MOST_WORDS = 40  # of an answer
SOURCE_WORDS = 7  # of them, for where they are from
PHRASE_TOKENS = 16  # of the model's phrase
WINDOW = 400  # tokens of the prompt, at most
CHARACTERS = 4  # of a token, about
Note = Callable[[str, str, float, int], None]
_EXAMPLES = (
    "Text: The ferry leaves the island at seven, because of the tide.\n"
    "Question: Why does it leave at seven?\nAnswer: because of the tide\n\n"
    "Text: Maria, who had sold her boat, walked to the old mill.\nQuestion: Where did Maria walk?\nAnswer: to the old mill\n\n"
)


class Asks(Protocol):
    """The part of `worker.Role` that is needed."""

    def stream(
        self, op: str, payload: dict[str, Any], *, deadline_in_s: float, affinity: str = ""
    ) -> AsyncIterator[dict[str, Any]]:
        """Payloads as they come."""
        ...


async def answer(
    question: Question,
    timeline: Timeline,
    think: Asks | None,
    settings: Think,
    sent: tuple[Sight, ScreenText] | None = None,
    seer: VlmSession | None = None,
    window: int = WINDOW,
    most: int = PHRASE_TOKENS,
    note: Note = lambda engine, unit, seconds, units: None,
) -> AsyncGenerator[Delta | Answer, None]:
    """Answer one question from what is known now: deltas, then the Answer.

    Args:
        question: `asked` in session seconds, `deadline` in monotonic seconds.
        timeline: all that was seen and heard so far.
        think: the language model, or None. Its failure or lateness costs only its phrase.
        settings: the room's settings.
        sent: what was seen and read in the picture that came with the question, if one did.
        seer: the model that sees: asked where the rules refuse, and first what somebody does in the picture.
        window: tokens that the model may be shown.
        most: tokens that it may write; 0: it is not asked.
        note: told what the model's work has cost: "think", "prompt" (tokens read) or "token" (written), seconds, how many.
    """
    began = clock.now()
    asked = max(question.asked, 0.0)
    of_image = answered(question.text, *sent, asked) if sent is not None else None
    found = of_image or followed(question, timeline, asked) or find(question.text, timeline, asked)
    told, values = "", found.values
    if seer is not None:
        stood: list[Evidence] = []
        async with aclosing(_seen(question, found.supported, seer)) as parts:
            async for part in parts:
                told += part.text
                stood += part.evidence
                yield Delta(question.id, part.text)
        if told:
            yield Answer(question.id, told, True, tuple(dict.fromkeys(stood)), {"sight": clock.now() - began})
            return
    for clause in found.clauses:
        told += clause
        yield Delta(question.id, clause)
    rules = clock.now() - began
    if think is not None and most and found.supported and found.lines and parse(question.text).form == "open":
        asked_of_it = {
            "prompt": prompt(question.text, found.lines, window),
            "max_tokens": min(most, PHRASE_TOKENS),
            "stop": ["\n"],
        }
        due = min(question.deadline, began + settings.deadline)
        phrase = supported(await _written(asked_of_it, think, due, note), question.text, found.lines)
        if (
            phrase is not None
            and len(tokens((told + phrase).replace("-", " ").replace(":", " "))) + 4 <= MOST_WORDS
        ):
            clause = f" In short: {phrase}."
            told += clause
            values = values or (phrase,)
            yield Delta(question.id, clause)
    stages = {"rules": rules, "think": clock.now() - began - rules}
    yield Answer(question.id, told, found.supported, found.evidence, stages, values)


async def shaped(
    question: Question, parts: AsyncGenerator[Delta | Answer, None]
) -> AsyncGenerator[Delta | Answer, None]:
    """The parts of an answer as they come; where the question names a form, all of it at once, as JSON text of that form.

    Raises:
        Unprocessable: nothing that is known fills the form ("response_format_unmet").
    """
    async with aclosing(parts):
        async for part in parts:
            if question.form is None:
                yield part
            elif isinstance(part, Answer):
                text = fill(question.form, question.text, part)
                yield Delta(question.id, text)
                yield replace(part, text=text)


async def _seen(question: Question, supported: bool, seer: VlmSession) -> AsyncGenerator[Clause, None]:
    """What the model that sees says, where it is to be asked; told as its own where only it knows.

    Of a picture that came along it is asked what it would be asked of the words, unless the question is about what was said.
    """
    ask = parse(question.text)
    asked_of = way(ask)
    if question.image is not None:
        asked_of = "look" if asked_of is not None and not ask.spoken else None
    if asked_of is None or (supported and (question.image is not None or not first(ask))):
        return
    before = ""
    clauses = seer.clauses(question, asked_of, words=MOST_WORDS - SOURCE_WORDS)
    async with aclosing(clauses):
        async for clause in clauses:
            before = " " if before else _source(clause.evidence[0])
            yield Clause(before + clause.text, clause.evidence)


def _source(line: Evidence) -> str:
    """Where a clause of the model is from: of a picture it is its own word, which nothing here can check."""
    if line.kind == "screen":
        return f"On the screen at {timed(line.start)}: "
    return f"From what was said at {timed(line.start)}: " if line.kind == "speech" else "It looks like this: "


async def _written(asked: dict[str, Any], think: Asks, due: float, note: Note) -> str:
    """What the model writes; "" where it fails, or would not be done when it is due (monotonic seconds)."""
    since = clock.now()
    if due - since < LEAST_SECONDS:
        return ""
    text, unit, units = "", "prompt", len(asked["prompt"]) // CHARACTERS
    try:
        pieces = think.stream("generate", asked, deadline_in_s=due - since - 0.1)
        async with aclosing(pieces) as stream:  # type: ignore[type-var]
            async for piece in stream:
                note("think", unit, clock.now() - since, units)
                since, unit, units = clock.now(), "token", 1
                text += str(piece.get("text", ""))
    except StreamsvcError:
        return ""
    return text


def prompt(question: str, lines: tuple[Evidence, ...], window: int = WINDOW) -> str:
    """A completion over the found lines, of at most about `window` tokens; with fewer than the usual ones it is shown no example."""
    full = window >= WINDOW
    told = " ".join(line.quote for line in lines)[: 600 if full else 2 * window]
    asked = " ".join(question.split())[: 200 if full else window // 2]
    return f"{_EXAMPLES if full else ''}Text: {told}\nQuestion: {asked}\nAnswer:"


def supported(text: str, question: str, lines: tuple[Evidence, ...]) -> str | None:
    """The model's phrase, if it says something new and the lines hold it word for word in a row; else None."""
    phrase = " ".join(text.split()).strip(" .,;:\"'")
    words = [word for word in tokens(phrase) if word not in ("a", "an", "the")]
    content = [stem(word) for word in words if word not in STOP]
    if not content or len(words) > 12:
        return None
    asked = set(bag(question)) | QUESTION_WORDS
    if all(term in asked for term in content):
        return None
    for line in lines:
        held = " ".join(word for word in tokens(line.quote) if word not in ("a", "an", "the"))
        if re.search(rf"(?:^| ){re.escape(' '.join(words))}(?: |$)", held):
            return phrase
    return None
