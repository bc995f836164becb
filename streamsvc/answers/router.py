"""Where a question goes: to an exact tool, or to a reader of words or of pictures.

    question -> vector -> vote of the examples -> [model, where it is close] -> Route

A tool is chosen only where the examples are sure; the default is the reader of words: to look something up
never harms. The vectors of the examples are computed once a process.
"""

from __future__ import annotations

import asyncio
import json
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import structlog

from streamsvc.answers import example_vectors, intents, language
from streamsvc.answers.arguments import arguments_of
from streamsvc.answers.intents import Electorate, Vector, Vote
from streamsvc.answers.route import Route
from streamsvc.core import clock
from streamsvc.core.errors import StreamsvcError
from streamsvc.core.roles import Role, innermost
from streamsvc.core.types import Question
from streamsvc.timeline.timeline import Timeline

log = structlog.get_logger()
# Margin of shares below which a route is in doubt. Chosen by leaving out one example at a time: 19 % go to a
# wrong tool or reader of pictures at 0, 13 % at 0.05, 10 % at 0.08, and 71, 69 and 67 % to the right one.
DOUBT = 0.08
DOUBT_NONE = 0.15  # of "no model here can tell": taken wrongly it costs an answer, missed it costs a look-up
EMBED_SECONDS = 0.4  # for the vector of a question
PREPARE_SECONDS = 0.5  # that a question may spend on what is not there yet: the language identifier, vectors
THINK_SECONDS = 0.4  # for the model's choice
BATCH = 16  # examples a call: another caller waits for one batch at most, about 0.1 s
BATCH_SECONDS = 10.0  # the first batch may load the model
_CHOICES = 4  # routes that the model chooses from
_TOKENS = 16  # of its choice
_INSTRUCTION = "Say which kind of question about a live stream this is.\n{kinds}"
TEXT = "text"  # the name of the default


@dataclass
class _Examples:
    """The examples' vectors by one embed role: a cache that can be made again at any time."""

    role: weakref.ref[Role]
    vectors: dict[str, Vector] = field(default_factory=dict)
    electorate: Electorate | None = None

    def missing(self) -> list[str]:
        """Examples without a vector."""
        return [text for text in intents.examples() if text not in self.vectors]


_caches: list[_Examples] = []  # of the role that was used last


async def prepare(embed: Role, seconds: float | None = None, kept: Path | None = None) -> bool:
    """Load the language identifier, and compute what is missing of the examples' vectors: 5 s of one core.

    Args:
        embed: role with the op "texts".
        seconds: after which no further batch is begun; None: all are computed.
        kept: file that the vectors are read from, where they are this model's, and kept in; None: none.

    Returns whether all are there. Never fails: without a model there are none.
    """
    embed = innermost(embed)  # the vectors are of all sessions: no session's recording is to hold the calls
    cache = _cache_of(embed)
    if cache.electorate is not None:
        return True
    deadline = None if seconds is None else clock.now() + seconds
    if seconds is None:  # a question waits for it once, in `route`
        await asyncio.to_thread(language.prepare)
    is_kept = kept is not None and await _take_kept(cache, embed, kept)
    while batch := cache.missing()[:BATCH]:
        left = BATCH_SECONDS if deadline is None else deadline - clock.now()
        if left <= 0 or (vectors := await _vectors(embed, batch, left)) is None:
            return False
        cache.vectors.update(zip(batch, vectors, strict=True))
    if cache.electorate is None:
        vectors = np.stack([cache.vectors[text] for text in intents.examples()])
        if kept is not None and not is_kept:
            await asyncio.to_thread(example_vectors.save, kept, vectors)
        cache.electorate = await asyncio.to_thread(Electorate, vectors)
    return True


async def _take_kept(cache: _Examples, embed: Role, kept: Path) -> bool:
    """Take the kept vectors, if the model gives the same for two of the examples."""
    vectors = await asyncio.to_thread(example_vectors.load, kept)
    if vectors is None:
        return False
    probe = await _vectors(embed, intents.examples()[:2], BATCH_SECONDS)
    if probe is None or probe.shape != vectors[:2].shape or not np.allclose(probe, vectors[:2], atol=0.01):
        return False
    cache.vectors.update(zip(intents.examples(), vectors, strict=True))
    return True


def _cache_of(embed: Role) -> _Examples:
    embed = innermost(embed)
    if not _caches or _caches[0].role() is not embed:
        _caches[:] = [_Examples(weakref.ref(embed))]
    return _caches[0]


def vectors_of(embed: Role) -> list[Vector]:
    """The examples' vectors by a role, in their order; empty where they are not ready."""
    cache = _cache_of(embed)
    return [] if cache.electorate is None else [cache.vectors[text] for text in intents.examples()]


def adopt(embed: Role, vectors: Sequence[Vector]) -> None:
    """Take all examples' vectors from elsewhere, in their order."""
    cache = _cache_of(embed)
    cache.vectors.update(zip(intents.examples(), vectors, strict=True))
    cache.electorate = Electorate(np.stack(vectors))


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
    if not await prepare(embed, PREPARE_SECONDS) or (electorate := _cache_of(embed).electorate) is None:
        return None
    vectors = await _vectors(embed, [text], EMBED_SECONDS)
    return None if vectors is None else electorate.vote(text, vectors[0])


async def _vectors(embed: Role, texts: Sequence[str], seconds: float) -> Vector | None:
    try:
        payload = {"texts": list(texts), "kind": "query"}
        result = await embed.call("texts", payload, deadline_in_s=seconds)
    except StreamsvcError as error:
        log.warning("questions are routed without examples", reason=error.code)
        return None
    vectors: Vector = np.asarray(result["vectors"], dtype=np.float32)
    return vectors


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
