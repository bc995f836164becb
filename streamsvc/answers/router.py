"""Where a question goes: to an exact tool, or to a reader of words or of pictures.

    question -> vector -> vote of the examples -> [model, where it is close] -> Route

A tool is chosen only where the examples are sure; the default is the reader of words: to look something up
never harms. The vectors of the examples are computed once a process.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from streamsvc.answers import intents, language
from streamsvc.answers.arguments import arguments_of
from streamsvc.answers.example_vectors import EMBED_SECONDS, ExampleVectors, vectors_of
from streamsvc.answers.example_votes import Vector
from streamsvc.answers.intents import Electorate, Vote
from streamsvc.answers.route import Route
from streamsvc.core.errors import StreamsvcError
from streamsvc.core.roles import Role
from streamsvc.core.types import Question
from streamsvc.timeline.timeline import Timeline

# Margin of shares below which a route is in doubt. Chosen by leaving out one example at a time: 19 % go to a
# wrong tool or reader of pictures at 0, 13 % at 0.05, 10 % at 0.08, and 71, 69 and 67 % to the right one.
DOUBT = 0.08
DOUBT_NONE = 0.15  # of "no model here can tell": taken wrongly it costs an answer, missed it costs a look-up
PREPARE_SECONDS = 0.5  # that a question may spend on what is not there yet: the language identifier, vectors
THINK_SECONDS = 0.4  # for the model's choice
_CHOICES = 4  # routes that the model chooses from
_TOKENS = 16  # of its choice
_INSTRUCTION = "Say which kind of question about a live stream this is.\n{kinds}"
TEXT = "text"  # the name of the default


_examples = ExampleVectors("intents", intents.examples, Electorate)


async def prepare(embed: Role, seconds: float | None = None, folder: Path | None = None) -> bool:
    """Load the language identifier, and the vectors of the examples; as `ExampleVectors.prepare`."""
    if seconds is None:  # a question waits for it once, in `route`
        await asyncio.to_thread(language.prepare)
    return await _examples.prepare(embed, seconds, folder)


def example_vectors(embed: Role) -> list[Vector]:
    """The examples' vectors by a role, in their order; empty where they are not ready."""
    return _examples.all(embed)


def adopt(embed: Role, vectors: Sequence[Vector]) -> None:
    """Take all examples' vectors from elsewhere, in their order."""
    _examples.adopt(embed, vectors)


async def route(
    question: Question, timeline: Timeline, embed: Role | None, now: float, think: Role | None = None
) -> Route:
    """Choose what answers a question. Never fails: without vectors it is looked up, with margin 0.

    Args:
        question: as it was asked.
        timeline: what is known; labels, titles and words of the question are looked for in it.
        embed: role with the op "texts"; None: there is none.
        now: session seconds at which it is asked.
        think: a generative model that reads (op "generate" with a schema), asked where the examples leave it
            open; None: there is none.
    """
    spoken = await _language(question.text)
    if spoken != language.ENGLISH:  # the examples and the encoder are English
        return Route(arguments=arguments_of(question.text, "open", timeline, now), language=spoken)
    vote = await _vote(question.text, embed) if embed is not None else None
    if vote is None:
        return Route(arguments=arguments_of(question.text, "open", timeline, now))
    name = vote.names[0]
    if in_doubt(vote):
        name = (await _chosen(think, question.text, vote.names) if think is not None else None) or TEXT
    chosen = intents.by_name()[name]
    arguments = arguments_of(question.text, vote.form_of(name), timeline, now)
    present = vote.present_of(name) and arguments.span is None
    return Route(chosen.tool, chosen.reader, arguments, present, vote.margin)


async def _language(text: str) -> str:
    """The language of a question; English where the identifier is not loaded in time."""
    try:
        async with asyncio.timeout(PREPARE_SECONDS):
            return await asyncio.to_thread(language.language_of, text)
    except TimeoutError:
        return language.ENGLISH


def in_doubt(vote: Vote) -> bool:
    """Whether the examples are too close to choose. Of two that look at pictures the better one is taken."""
    best, second = (intents.by_name()[name] for name in vote.names[:2])
    if best.name == TEXT or best.reader == second.reader == "sight":
        return False
    return vote.margin < (DOUBT_NONE if best.reader == "none" else DOUBT)


async def _vote(text: str, embed: Role) -> Vote | None:
    """How the examples vote; None: their vectors or the question's are not there in time."""
    electorate = await _examples.voters(embed, PREPARE_SECONDS)
    vectors = await vectors_of(embed, [text], EMBED_SECONDS) if electorate is not None else None
    return None if electorate is None or vectors is None else electorate.vote(text, vectors[0])


async def _chosen(think: Role, text: str, names: Sequence[str]) -> str | None:
    """The model's choice among the first routes and the default; None: it made none in time."""
    choices = list(dict.fromkeys([*names[:_CHOICES], TEXT]))
    kinds = "\n".join(f"{name}: {intents.about()[name]}" for name in choices)
    payload = {
        "session": "router",
        "items": [],
        "instruction": _INSTRUCTION.format(kinds=kinds),
        "question": text,
        "max_tokens": _TOKENS,
        "schema": {
            "type": "object",
            "properties": {"kind": {"enum": choices}},
            "required": ["kind"],
            "additionalProperties": False,
        },
        "aside": True,
    }
    said = ""
    try:
        async with asyncio.timeout(THINK_SECONDS):
            async for piece in think.stream("generate", payload, deadline_in_s=THINK_SECONDS):
                said += str(piece.get("text", ""))
        kind = json.loads(said)["kind"]
    except (TimeoutError, StreamsvcError, ValueError, KeyError, TypeError):
        return None  # the examples' default stands
    return kind if kind in choices else None
