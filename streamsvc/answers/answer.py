"""Answers: by an exact tool, by a language model's grounded sentences, or by the extractive reader.

    route -> exact tool ---------------------------------------------> answer
          -> model reader: sentences with citations -> grounding ----> answer
          -> beside it: retrieval -> extractive reader, at the latest > answer | closest | declined

An answer streams by checked sentence: what was shown is never retracted, and the increments joined are the
whole text.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from streamsvc.answers import extractive_reader, tools
from streamsvc.answers.deadline import FALLBACK_SECONDS, Plan
from streamsvc.answers.exchanges import queries_of
from streamsvc.answers.finding import Finding
from streamsvc.answers.model_reader import Clause, ModelReader, Prompt
from streamsvc.answers.route import Route
from streamsvc.answers.shortening import shortened
from streamsvc.answers.structured_output import fill
from streamsvc.core import clock
from streamsvc.core.roles import Role
from streamsvc.core.types import Answer, By, Delta, Evidence, Question, Reason, ScreenText, Sight, Stages
from streamsvc.timeline.index import Index
from streamsvc.timeline.passages import Passage
from streamsvc.timeline.timeline import Timeline

RETRIEVAL_SECONDS = 1.0  # at most
MIN_RETRIEVAL = 0.05  # seconds, for words alone
# A question whose best passage scores SURE follows nothing up; else what may is searched with the one before
# it too, which must be better by FOLLOW_UP. Chosen on the develop half of ../shared/questions.
SURE = 2.0
FOLLOW_UP = 2.0
_MAX_TO_SHORTEN = 24  # words of a passage, so that it and its short form stay below 40
RETOLD_TOOLS = frozenset(["summary", "topic"])  # whose findings a model that reads tells better
_READ_WHOLE = frozenset(["table", "relation", "colour"])  # whose names lie apart in a question
_REFUSALS: dict[Reason, str] = {
    "nothing_yet": "I have not seen or heard anything yet.",
    "not_found": "I have not seen or heard that.",
    "cannot_tell": "I cannot tell: the models here do not know such things.",
    "late": "I cannot tell: the language model did not answer in time.",
}
_ENGLISH_ONLY = "I cannot tell: the models here understand questions in English only."


@dataclass(frozen=True, slots=True)
class Attachment:
    """What was seen and read in the image that came with a question.

    `picture`: a VLM's key of it; "": there is none.
    """

    sight: Sight
    text: ScreenText
    picture: str = ""


@dataclass(frozen=True, slots=True)
class Answerer:
    """Answers questions about one session from what is known at the moment.

    `model`: the generative reader; None: the profile has no model that reads. `shortener`: the language model
    that cannot read and only shortens a passage, or None. `session`: its id.
    """

    timeline: Timeline
    index: Index
    model: ModelReader | None = None
    shortener: Role | None = None
    session: str = ""

    async def answer(
        self, question: Question, route: Route, plan: Plan, attachment: Attachment | None = None
    ) -> AsyncGenerator[Delta | Answer, None]:
        """Stream the answer to one question: deltas, then the Answer.

        Args:
            question: `asked` in session seconds, `deadline` in monotonic seconds.
            route: which tool or reader answers it.
            plan: what fits before the deadline.
            attachment: what was seen and read in the question's image, if it has one.
        """
        timeline = self.timeline if attachment is None else _timeline_of(attachment)
        picture = "" if attachment is None else attachment.picture
        model = self.model if plan.asks_model and (attachment is None or picture) else None
        model = model if model is not None and model.can(route, picture) else None
        exact = _exact(question, route, timeline)
        answer = _without_reading(question, route, timeline, exact, self._reads, model is not None)
        if answer is None:
            prompt = Prompt(question, route, queries_of(question), picture)
            retrieval = asyncio.create_task(self._passages(prompt))
            try:
                if model is not None:
                    said = _Said()
                    clauses = model.clauses(prompt, retrieval)
                    async with aclosing(_begun_by(plan.fallback_at, clauses)) as begun:
                        async for clause in begun:
                            yield Delta(question.id, said.add(clause))
                    if said.text:
                        yield said.answer(question.id)
                        return
                answer = await self._extracted(question, route, exact, await retrieval)
            finally:
                retrieval.cancel()
        yield Delta(question.id, answer.text)
        stages: Stages = ((answer.by, clock.now()),)
        if phrase := await self._short(question, answer):
            part = f" In short: {phrase}."
            yield Delta(question.id, part)
            answer = replace(answer, text=answer.text + part, values=(phrase,))
            stages = (*stages, ("model", clock.now()))
        yield replace(answer, stages=stages)

    @property
    def _reads(self) -> bool:
        return self.model is not None and self.model.reads

    async def _short(self, question: Question, answer: Answer) -> str:
        """The extractive reader's answer in few words, by a model that cannot read; "": it has none."""
        if self.shortener is None or answer.by != "reader" or answer.outcome != "answer":
            return ""
        quote = answer.evidence[0].quote
        if len(quote.split()) > _MAX_TO_SHORTEN:
            return ""
        return await shortened(self.shortener, self.session, question.text, quote, question.deadline - 0.1)

    async def _extracted(
        self, question: Question, route: Route, exact: Finding | None, passages: Sequence[Passage]
    ) -> Answer:
        """The answer beside a model's: a tool's finding, what the extractive reader found, or a refusal."""
        if exact is not None:
            return _stated(question, exact, "tool")
        if route.language != "en":  # only the model knows it, and nothing was searched
            return refusal(question.id, "late")
        found = await extractive_reader.read(question.text, route, passages, self.index.rank)
        if found.outcome == "declined":
            return refusal(question.id, "not_found" if route.reader == "text" else "cannot_tell")
        answer = _stated(question, found.finding, "reader")
        return replace(answer, outcome=found.outcome, supported=found.outcome == "answer")

    async def _passages(self, prompt: Prompt) -> list[Passage]:
        """What retrieval finds, best first; nothing for languages that its models do not know."""
        if prompt.picture or prompt.route.language != "en":
            return []
        question = prompt.question
        alone = await self._search(question, prompt.route)
        if len(prompt.queries) == 1 or _top(alone) >= SURE:
            return alone
        together = await self._search(question, prompt.route, question.history[-1].question)
        return together if _top(together) - FOLLOW_UP > _top(alone) else alone

    async def _search(self, question: Question, route: Route, before: str = "") -> list[Passage]:
        """Passages for a question, behind the one before it where it may be a follow-up."""
        return await self.index.passages(
            question.text,
            seconds=max(
                MIN_RETRIEVAL, min(RETRIEVAL_SECONDS, question.deadline - clock.now() - FALLBACK_SECONDS)
            ),
            until=max(question.asked, 0.0),
            span=route.arguments.span,
            before=before,
        )


def _top(passages: Sequence[Passage]) -> float:
    return passages[0].score if passages else -math.inf


class _Said:
    """What a model has said so far."""

    def __init__(self) -> None:
        self.text = ""
        self._evidence: list[Evidence] = []
        self._checked = True

    def add(self, clause: Clause) -> str:
        """Take a sentence; returns the increment that it is."""
        part = f" {clause.text}" if self.text else clause.text
        self.text += part
        self._evidence += clause.evidence
        self._checked = self._checked and clause.checked
        return part

    def answer(self, question_id: str) -> Answer:
        """The whole of it."""
        evidence = tuple(dict.fromkeys(self._evidence))
        return Answer(question_id, self.text, self._checked, evidence, (("model", clock.now()),), by="model")


async def _begun_by(latest: float, clauses: AsyncGenerator[Clause, None]) -> AsyncGenerator[Clause, None]:
    """The clauses, if the first comes before monotonic second `latest`."""
    async with aclosing(clauses):
        try:
            async with asyncio.timeout_at(latest):
                first = await anext(clauses, None)
        except TimeoutError:
            return
        if first is not None:
            yield first
            async for clause in clauses:
                yield clause


def _exact(question: Question, route: Route, timeline: Timeline) -> Finding | None:
    """What the route's tool finds; None: it has none, or that finds nothing."""
    if not route.tool:
        return None
    arguments = route.arguments
    if route.tool in _READ_WHOLE:
        arguments = replace(arguments, text=question.text)
    return tools.call(route.tool, timeline, arguments, question.asked)


def _without_reading(
    question: Question, route: Route, timeline: Timeline, exact: Finding | None, reads: bool, asks: bool
) -> Answer | None:
    """The answer where no reader is needed: nothing is known, a tool knows, or no reader could; else None.

    `reads`: there is a model that reads. `asks`: it is asked.
    """
    image = question.image is not None
    if timeline.empty and not (image and asks):
        return refusal(question.id, "not_found" if image else "nothing_yet")
    if exact is not None and not (asks and route.tool in RETOLD_TOOLS):
        return _stated(question, exact, "tool")
    if asks:
        return None
    if route.language != "en":
        return (
            refusal(question.id, "late")
            if reads
            else replace(refusal(question.id, "cannot_tell"), text=_ENGLISH_ONLY)
        )
    if image:
        return refusal(question.id, "not_found" if route.reader == "text" else "cannot_tell")
    return None


def refusal(question_id: str, reason: Reason) -> Answer:
    """An answer that declines, with its true reason."""
    return Answer(question_id, _REFUSALS[reason], False, outcome="declined", reason=reason)


def _stated(question: Question, finding: Finding, by: By) -> Answer:
    evidence = finding.evidence
    if question.image is not None:
        evidence = tuple(Evidence(question.asked, question.asked, "image", item.quote) for item in evidence)
    return Answer(question.id, finding.text, True, evidence, values=finding.values, by=by)


def _timeline_of(attachment: Attachment) -> Timeline:
    """A timeline that holds the question's image alone."""
    timeline = Timeline()
    timeline.add(attachment.sight)
    timeline.add(attachment.text)
    return timeline


async def shaped(
    question: Question, route: Route, parts: AsyncGenerator[Delta | Answer, None]
) -> AsyncGenerator[Delta | Answer, None]:
    """The parts of an answer as they come; with a response format, the whole answer at once, as JSON text.

    Raises:
        Unprocessable: nothing that is known fills the format ("response_format_unmet").
    """
    async with aclosing(parts):
        async for part in parts:
            if question.form is None:
                yield part
            elif isinstance(part, Answer):
                text = fill(question.form, question.text, part, route.arguments)
                yield Delta(question.id, text)
                yield replace(part, text=text)
