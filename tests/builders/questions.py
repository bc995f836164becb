"""Questions as text, asked of the rules directly."""

from __future__ import annotations

from streamsvc.answers.rules import router
from streamsvc.answers.rules.finding import Finding
from streamsvc.answers.rules.parse import ParsedQuestion, parse, parsed
from streamsvc.core.types import Question
from streamsvc.timeline.timeline import Timeline


def find(text: str, timeline: Timeline, now: float) -> Finding:
    """What the rules find for a question at session second `now`."""
    return router.find(parse(text), timeline, now)


def question(text: str, now: float = 1.0) -> ParsedQuestion:
    """A parsed question with a distant deadline."""
    return parsed(Question("q", text, now, 1e12))
