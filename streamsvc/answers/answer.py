"""Answers: the timeline first, by rule; a language model only adds a phrase that the cited lines support.

An answer streams by checked clause: what was shown is never retracted, and the increments joined are the
whole text.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from streamsvc.answers.deadline import Plan
from streamsvc.answers.grounding import Clause
from streamsvc.answers.rules.finding import Finding, timestamp
from streamsvc.answers.rules.follow_ups import followed
from streamsvc.answers.rules.image import answered
from streamsvc.answers.rules.parse import ParsedQuestion
from streamsvc.answers.rules.router import find
from streamsvc.answers.rules.visual_questions import ask_target, asks_about_action
from streamsvc.answers.structured_output import fill
from streamsvc.answers.vlm_reader import MIN_SECONDS, VlmReader
from streamsvc.core import clock
from streamsvc.core.config import Think
from streamsvc.core.errors import StreamsvcError
from streamsvc.core.roles import Payload, Role
from streamsvc.core.types import Answer, Delta, Evidence, ScreenText, Sight
from streamsvc.timeline.text import QUESTION_WORDS, STOP, bag, stem, tokens
from streamsvc.timeline.timeline import Timeline

MAX_WORDS = 40  # of an answer
SOURCE_WORDS = 7  # of them, for where a clause of the VLM is from
PHRASE_TOKENS = 16  # of the language model's phrase
WINDOW_TOKENS = 400  # of the prompt, at most
CHARACTERS_PER_TOKEN = 4  # about
NoteCost = Callable[[str, str, float, int], None]
Attachment = tuple[Sight, ScreenText]  # what was seen and read in the image that came with a question
_EXAMPLES = (
    "Text: The ferry leaves the island at seven, because of the tide.\n"
    "Question: Why does it leave at seven?\nAnswer: because of the tide\n\n"
    "Text: Maria, who had sold her boat, walked to the old mill.\n"
    "Question: Where did Maria walk?\nAnswer: to the old mill\n\n"
)


@dataclass(frozen=True, slots=True)
class Answerer:
    """Answers questions about one session from what is known at the moment.

    `think`: the language model, or None; its failure or lateness costs only its phrase. `vlm`: the vision
    language model, or None; it is asked where the rules refuse, and first about what a person does in the
    picture. `note_cost`: called with the cost of the language model's work: "think", "prompt" (tokens read)
    or "token" (written), seconds, units.
    """

    timeline: Timeline
    settings: Think
    think: Role | None = None
    vlm: VlmReader | None = None
    note_cost: NoteCost = lambda engine, unit, seconds, units: None

    async def answer(
        self, parsed: ParsedQuestion, plan: Plan, attachment: Attachment | None = None
    ) -> AsyncGenerator[Delta | Answer, None]:
        """Stream the answer to one question: deltas, then the Answer.

        Args:
            parsed: the question; `asked` in session seconds, `deadline` in monotonic seconds.
            plan: tokens that the language model may read and write; where it may write none, it is not asked.
            attachment: what was seen and read in the question's image, if it has one.
        """
        began = clock.now()
        question_id = parsed.question.id
        finding = self._by_rule(parsed, attachment)
        text = ""
        if self.vlm is not None:
            cited: list[Evidence] = []
            async with aclosing(self._by_vlm(parsed, finding.supported, self.vlm)) as clauses:
                async for clause in clauses:
                    text += clause.text
                    cited += clause.evidence
                    yield Delta(question_id, clause.text)
            if text:
                yield Answer(
                    question_id, text, True, tuple(dict.fromkeys(cited)), {"sight": clock.now() - began}
                )
                return
        for part in finding.clauses:
            text += part
            yield Delta(question_id, part)
        rules_seconds = clock.now() - began
        phrase = await self._phrase(
            parsed, finding, plan, min(parsed.question.deadline, began + self.settings.deadline)
        )
        values = finding.values
        if phrase is not None and _count_words(text + phrase) + 4 <= MAX_WORDS:
            part = f" In short: {phrase}."
            text += part
            values = values or (phrase,)
            yield Delta(question_id, part)
        stages = {"rules": rules_seconds, "think": clock.now() - began - rules_seconds}
        yield Answer(question_id, text, finding.supported, finding.evidence, stages, values)

    def _by_rule(self, parsed: ParsedQuestion, attachment: Attachment | None) -> Finding:
        """What the rules find: in the attachment, in the last answer's evidence, or on the timeline."""
        asked = max(parsed.question.asked, 0.0)
        in_image = answered(parsed.ask, *attachment, asked) if attachment is not None else None
        return in_image or followed(parsed, self.timeline, asked) or find(parsed.ask, self.timeline, asked)

    async def _by_vlm(
        self, parsed: ParsedQuestion, supported: bool, vlm: VlmReader
    ) -> AsyncGenerator[Clause, None]:
        """The VLM's clauses, where it is to be asked, each answer with its source.

        About an image that came along, the VLM is asked of the picture, unless the question is about what was
        said.
        """
        ask = parsed.ask
        has_image = parsed.question.image is not None
        asked_of = ask_target(ask)
        if has_image:
            asked_of = "look" if asked_of is not None and not ask.spoken else None
        if asked_of is None or (supported and (has_image or not asks_about_action(ask))):
            return
        lead = ""
        async with aclosing(vlm.clauses(parsed, asked_of, MAX_WORDS - SOURCE_WORDS)) as clauses:
            async for clause in clauses:
                lead = " " if lead else _source(clause.evidence[0])
                yield Clause(lead + clause.text, clause.evidence)

    async def _phrase(self, parsed: ParsedQuestion, finding: Finding, plan: Plan, due: float) -> str | None:
        """The language model's phrase on what the rules found, if the cited lines support it."""
        if self.think is None or not plan.phrase_tokens or not finding.supported or not finding.lines:
            return None
        if parsed.ask.form != "open":
            return None
        question = parsed.question.text
        payload: Payload = {
            "prompt": prompt(question, finding.lines, plan.window_tokens),
            "max_tokens": min(plan.phrase_tokens, PHRASE_TOKENS),
            "stop": ["\n"],
        }
        return supported_phrase(await self._generated(payload, self.think, due), question, finding.lines)

    async def _generated(self, payload: Payload, think: Role, due: float) -> str:
        """The language model's text; "" where it fails, or would not be done at monotonic second `due`."""
        since = clock.now()
        if due - since < MIN_SECONDS:
            return ""
        text = ""
        unit = "prompt"
        units = len(payload["prompt"]) // CHARACTERS_PER_TOKEN
        try:
            pieces = think.stream("generate", payload, deadline_in_s=due - since - 0.1)
            async with aclosing(pieces) as stream:  # type: ignore[type-var]
                async for piece in stream:
                    self.note_cost("think", unit, clock.now() - since, units)
                    since = clock.now()
                    unit = "token"
                    units = 1
                    text += str(piece.get("text", ""))
        except StreamsvcError:
            return ""
        return text


async def shaped(
    parsed: ParsedQuestion, parts: AsyncGenerator[Delta | Answer, None]
) -> AsyncGenerator[Delta | Answer, None]:
    """The parts of an answer as they come; with a response format, the whole answer at once, as JSON text.

    Raises:
        Unprocessable: nothing that is known fills the format ("response_format_unmet").
    """
    question = parsed.question
    async with aclosing(parts):
        async for part in parts:
            if question.form is None:
                yield part
            elif isinstance(part, Answer):
                text = fill(question.form, question.text, part)
                yield Delta(question.id, text)
                yield replace(part, text=text)


def _source(evidence: Evidence) -> str:
    """The lead of a VLM's answer: where it is from.

    Of a picture it is the model's own word, which nothing here can check.
    """
    if evidence.kind == "screen":
        return f"On the screen at {timestamp(evidence.start)}: "
    if evidence.kind == "speech":
        return f"From what was said at {timestamp(evidence.start)}: "
    return "It looks like this: "


def _count_words(text: str) -> int:
    return len(tokens(text.replace("-", " ").replace(":", " ")))


def prompt(question: str, lines: tuple[Evidence, ...], window: int = WINDOW_TOKENS) -> str:
    """A completion prompt over the cited lines, of about `window` tokens.

    Below the usual size it has no examples.
    """
    full = window >= WINDOW_TOKENS
    text = " ".join(line.quote for line in lines)[: 600 if full else 2 * window]
    asked = " ".join(question.split())[: 200 if full else window // 2]
    return f"{_EXAMPLES if full else ''}Text: {text}\nQuestion: {asked}\nAnswer:"


def supported_phrase(text: str, question: str, lines: tuple[Evidence, ...]) -> str | None:
    """The model's phrase, if it says something new and a line holds it word for word; else None."""
    phrase = " ".join(text.split()).strip(" .,;:\"'")
    words = [word for word in tokens(phrase) if word not in ("a", "an", "the")]
    content = [stem(word) for word in words if word not in STOP]
    if not content or len(words) > 12:
        return None
    asked = set(bag(question)) | QUESTION_WORDS
    if all(term in asked for term in content):
        return None
    pattern = re.compile(rf"(?:^| ){re.escape(' '.join(words))}(?: |$)")
    for line in lines:
        held = " ".join(word for word in tokens(line.quote) if word not in ("a", "an", "the"))
        if pattern.search(held):
            return phrase
    return None
