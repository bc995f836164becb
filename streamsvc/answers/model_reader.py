"""The generative reader: a language model's sentences on the window, as far as their citations hold them.

It reads the window's lines and, where the window has lost its head, the passages that retrieval found. A
sentence is passed on when it is complete and `grounding` finds its claims in the lines that it cites. Where a
model is shown pictures, what it says of them cannot be checked: that is passed on as its own word.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from streamsvc.answers import grounding
from streamsvc.answers.deadline import KEYFRAME_WAIT
from streamsvc.answers.extractive_reader import Rank
from streamsvc.answers.finding import MAX_WORDS, timestamp
from streamsvc.answers.grounding import Claim, ClaimReader
from streamsvc.answers.route import Route
from streamsvc.core import clock, metrics
from streamsvc.core.context import SessionContext
from streamsvc.core.errors import DeadlineMissed, StreamsvcError
from streamsvc.core.roles import Payload, Role
from streamsvc.core.types import Evidence, Question
from streamsvc.timeline.lines import Line, LineKind, new_line, one_line
from streamsvc.timeline.passages import Passage
from streamsvc.timeline.timeline import Timeline
from streamsvc.timeline.window import Window
from streamsvc.vision.vlm import VlmSession

log = structlog.get_logger()
MAX_TOKENS = 96  # of an answer: 40 words with their citations
PUBLISH_SECONDS = 0.1  # kept back from the deadline: what the model says must still be published
MIN_SECONDS = 0.4  # before the deadline: with less left the model is not asked
MAX_PICTURES = 4  # keyframes that an answer of pictures cites, the newest
ATTACHMENT = "the image that came with the question"
_UNSETTLED = 4  # sentences, the newest, that may not stand in the window yet
_PARALLEL = 4  # questions of one session at an endpoint
_RANK_SECONDS = 0.3  # for the score of one sentence; without it the other checks decide


class WindowSource(Protocol):
    """What keeps the window that the model has read (`reading.Reading`)."""

    async def window(self, now: float) -> tuple[str, Window]:
        """The key of the model's context and the window that a question at session second `now` uses."""
        ...

    def request(self, key: str, window: Window) -> Payload:
        """What `generate` is given of them."""
        ...


@dataclass(frozen=True, slots=True)
class Clause:
    """A sentence that may be shown, with its evidence. `checked`: the evidence holds it."""

    text: str
    evidence: tuple[Evidence, ...]
    checked: bool = True


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked: `queries` are the question with and without what it follows up.

    `picture`: the engine's key of an image that came with the question, which then is all that is asked of.
    """

    question: Question
    route: Route
    queries: tuple[str, ...]
    picture: str = ""


class ModelReader:
    """Asks the language model the questions of one session.

    Args:
        context: of the session.
        timeline: what is known, the words of the newest sentence too.
        reading: the window that the model has read; None: that model reads nothing.
        rank: scores texts for a query (`Index.rank`).
        vlm: the session's pictures, where the model can be shown them.
        sight: the window of pictures, where another model sees than reads; None: `reading`.
    """

    def __init__(
        self,
        context: SessionContext,
        timeline: Timeline,
        reading: WindowSource | None,
        rank: Rank,
        vlm: VlmSession | None = None,
        *,
        sight: WindowSource | None = None,
    ) -> None:
        self._context = context
        self._timeline = timeline
        self._reading = reading
        self._sight = sight
        self._rank = rank
        self._vlm = vlm
        # What an engine keeps of a session serves one question at a time; an endpoint keeps nothing here, and
        # refuses what is aside of questions where few images are left.
        self._keeps = context.settings.models.profile != "remote"
        self._turn = asyncio.Semaphore(1 if self._keeps else _PARALLEL)

    @property
    def reads(self) -> bool:
        """Whether it answers from words too, not from pictures alone."""
        return self._reading is not None

    def can(self, route: Route, picture: str) -> bool:
        """Whether a question of this route, or of a picture with this key, can be asked."""
        return self._source(route, picture)[1] is not None

    def _source(self, route: Route, picture: str) -> tuple[Role, WindowSource | None]:
        """Who is asked, and the window that it has read."""
        roles = self._context.roles
        if roles.sight is not None and (picture or route.reader == "sight"):
            return roles.sight, self._sight
        return roles.think, self._reading

    async def clauses(
        self, prompt: Prompt, passages: Awaitable[Sequence[Passage]]
    ) -> AsyncGenerator[Clause, None]:
        """Stream the sentences of an answer that may be shown.

        There are none where the model fails, is late or cannot tell.

        Args:
            prompt: the question.
            passages: of retrieval; waited for only where lines have left the window.
        """
        try:
            async with asyncio.timeout_at(prompt.question.deadline - MIN_SECONDS):
                await self._turn.acquire()
        except TimeoutError:
            metrics.deadline_missed.labels("answer", "not_asked").inc()
            return
        try:
            async with aclosing(self._checked(prompt, passages)) as clauses:
                async for clause in clauses:
                    yield clause
        except StreamsvcError as error:
            action = "cut" if isinstance(error, DeadlineMissed) else "failed"
            metrics.deadline_missed.labels("answer", action).inc()
            log.warning("the language model did not answer", session=self._context.session, reason=error.code)
        finally:
            self._turn.release()

    async def _checked(
        self, prompt: Prompt, passages: Awaitable[Sequence[Passage]]
    ) -> AsyncGenerator[Clause, None]:
        """The sentences that may be shown. Raises StreamsvcError: the model fails or is late."""
        question = prompt.question
        if self._vlm is not None and prompt.route.reader == "sight" and not prompt.picture:
            idle_by = min(clock.now() + KEYFRAME_WAIT - question.waited, question.deadline - MIN_SECONDS)
            await self._vlm.refresh(idle_by, question.deadline - PUBLISH_SECONDS)
        role, reading = self._source(prompt.route, prompt.picture)
        if reading is None:
            return
        key, window = await reading.window(max(question.asked, 0.0))
        lines = {line.number: line for line in window.lines}
        is_whole = not window.generation and (not window.lines or window.lines[-1].number == window.numbered)
        is_whole = is_whole or reading is self._sight  # retrieval finds words
        # Shielded: where this takes too long, the reader beside still needs what retrieval finds.
        past = [] if is_whole else await asyncio.shield(asyncio.ensure_future(passages))
        parts = [part for passage in past for part in passage.parts]
        newest = [] if reading is self._sight else self._newest(window, question.asked)
        found = _numbered([*parts, *newest], window)
        with_pictures = prompt.route.reader == "sight" or self._context.settings.models.profile == "gpu"
        lines |= {line.number: line for line in found}
        payload = reading.request(key, window if with_pictures else _words_alone(window))
        payload |= {"question": _asked(question, found), "max_tokens": MAX_TOKENS}
        if prompt.picture:
            at = question.asked
            image = Line(1, at, at, "picture", ATTACHMENT, None, prompt.picture)
            payload |= {"session": f"{key} image", "items": [image.payload()]}
            if self._keeps:
                payload["aside"] = True
            lines = {1: image}
        words = 0
        shown: set[int] = set()
        async with aclosing(self._claims(role, question, payload, shown)) as claims:
            async for claim in claims:
                pictures = [line for number, line in lines.items() if number in shown and line.picture]
                clause = await self._clause(claim, lines, pictures[-MAX_PICTURES:], prompt)
                if clause is None:
                    continue
                words += len(claim.text.split())
                if words > MAX_WORDS:
                    return
                yield clause

    def _newest(self, window: Window, now: float) -> list[Evidence]:
        """What was said since the newest sentence of the window: its words are known, its end is not."""
        since = window.known.speech_until
        spoken = [sentence.evidence() for sentence in self._timeline.sentences[-_UNSETTLED:]]
        return [part for part in spoken if part.end > since and part.start <= now]

    async def _claims(
        self, role: Role, question: Question, payload: Payload, shown: set[int]
    ) -> AsyncGenerator[Claim, None]:
        """The model's sentences.

        Numbers of the lines whose pictures it is shown are put into `shown` before. Raises StreamsvcError.
        """
        reader = ClaimReader()
        record = self._context.roles.cost_tracker.record
        since, unit = clock.now(), "first"
        pieces = role.stream(
            "generate",
            payload,
            deadline_in_s=question.deadline - since - PUBLISH_SECONDS,
            affinity=self._context.session,
        )
        async with aclosing(pieces) as stream:  # type: ignore[type-var]
            async for piece in stream:
                shown.update(piece.get("shown", ()))
                if not (text := str(piece.get("text", ""))):
                    continue
                record("think", unit, clock.now() - since)
                since, unit = clock.now(), "token"
                for claim in reader.take(text):
                    yield claim
        for claim in reader.rest():
            yield claim

    async def _clause(
        self, claim: Claim, lines: dict[int, Line], pictures: Sequence[Line], prompt: Prompt
    ) -> Clause | None:
        """A sentence with its evidence; None: it may not be shown. `pictures`: that the model was shown."""
        if grounding.is_none(claim.text) or not all(number in lines for number in claim.lines):
            return None
        cited = [lines[number] for number in claim.lines]
        if prompt.picture:
            at = prompt.question.asked
            return Clause(claim.text, (Evidence(at, at, "image", ATTACHMENT),), False) if pictures else None
        if prompt.route.reader == "sight" and all(line.kind in ("picture", "sight") for line in cited):
            evidence = tuple(line.evidence() for line in pictures)
            return Clause(claim.text, evidence, False) if evidence else None
        texts = [line.rendered for line in cited]
        if not grounding.held(claim.text, texts, " ".join(prompt.queries), prompt.route.language):
            return None
        if prompt.route.language == "en" and not await self._is_relevant(claim, cited, prompt.queries):
            return None
        return Clause(claim.text, tuple(line.evidence() for line in cited))

    async def _is_relevant(self, claim: Claim, cited: Sequence[Line], queries: Sequence[str]) -> bool:
        """Whether the sentence with its lines fits the question; True where the cross-encoder is away."""
        text = " ".join([claim.text, *(line.text for line in cited)])
        best = None
        for query in queries:
            scores = await self._rank(query, [text], _RANK_SECONDS)
            if scores is not None:
                best = max(scores[0], best) if best is not None else scores[0]
        return best is None or best >= grounding.MIN_RELEVANCE


def _words_alone(window: Window) -> Window:
    """The window without pictures: who asks of words is not sent them."""
    return replace(window, lines=tuple(replace(line, picture="") for line in window.lines))


def _numbered(parts: Sequence[Evidence], window: Window) -> list[Line]:
    """Parts of the stream that are not in the window, as lines with numbers behind its last."""
    starts = {(line.kind, line.start) for line in window.lines}
    fresh = dict.fromkeys(part for part in parts if (part.kind, round(part.start, 3)) not in starts)
    missing = sorted(fresh, key=lambda part: part.start)
    kinds: list[LineKind] = ["screen" if part.kind == "screen" else "speech" for part in missing]
    lines = [
        new_line(kind, part.start, part.end, part.quote, part.frame)
        for kind, part in zip(kinds, missing, strict=True)
    ]
    return [replace(line, number=number) for number, line in enumerate(lines, window.numbered + 1)]


def _asked(question: Question, found: Sequence[Line]) -> str:
    """The question as the model reads it, behind the window's lines."""
    parts = [line.rendered for line in found]
    parts += [
        f"Asked before: {one_line(exchange.question)} Answer: {one_line(exchange.answer_text)}"
        for exchange in question.history
    ]
    parts.append(f"It is {timestamp(question.asked)} now. Question: {one_line(question.text)}")
    return "\n".join(parts)
