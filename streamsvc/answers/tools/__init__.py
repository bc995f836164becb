"""The exact tools: what can be counted, timed or read off, over the timeline.

In: a `Timeline`, the `Arguments` of a question, and the session second of it. Out: a `Finding` with its
evidence, or None where a tool found nothing. Pure; nothing here reads a question, and nothing is told that the
evidence does not hold. An answer has at most 40 words; of a yes/no question it begins with "Yes" or "No".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from streamsvc.answers.finding import Finding
from streamsvc.answers.route import Arguments
from streamsvc.answers.tools.occurrences import clock, occurrences
from streamsvc.answers.tools.order import order
from streamsvc.answers.tools.relation import relation
from streamsvc.answers.tools.screen import screen_text, slides, table
from streamsvc.answers.tools.sights import count, seen, sights
from streamsvc.answers.tools.speech import speaker, transcript
from streamsvc.answers.tools.summary import summary, topic
from streamsvc.timeline.timeline import Timeline

Tool = Callable[[Timeline, Arguments, float], Finding | None]

TOOLS: Mapping[str, Tool] = {
    "transcript": transcript,
    "topic": topic,
    "summary": summary,
    "slides": slides,
    "screen_text": screen_text,
    "table": table,
    "sights": sights,
    "seen": seen,
    "count": count,
    "relation": relation,
    "occurrences": occurrences,
    "order": order,
    "speaker": speaker,
    "clock": clock,
}


def call(name: str, timeline: Timeline, arguments: Arguments, now: float) -> Finding | None:
    """What a tool finds at session second `now`.

    Args:
        name: of `TOOLS`; another raises KeyError.
        timeline: of the session.
        arguments: what the question names.
        now: session seconds.
    """
    return TOOLS[name](timeline, arguments, now)


__all__ = ["TOOLS", "Tool", "call"]
