"""The exact tools: what can be counted, timed or read off, over the timeline.

In: a `Timeline`, the `Arguments` of a question, and the session second of it. Out: a `Finding` with its
evidence, or None where a tool found nothing. Pure; nothing here reads a question, and nothing is told that
the evidence does not hold. An answer has at most 40 words; of a yes/no question it begins with "Yes" or "No".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from streamsvc.answers.finding import Finding
from streamsvc.answers.route import Arguments
from streamsvc.answers.tools import colour, occurrences, order, relation, screen, sights, speech, summary
from streamsvc.timeline.timeline import Timeline

Tool = Callable[[Timeline, Arguments, float], Finding | None]

TOOLS: Mapping[str, Tool] = {
    "transcript": speech.transcript,
    "topic": summary.topic,
    "summary": summary.summary,
    "slides": screen.slides,
    "screen_text": screen.screen_text,
    "table": screen.table,
    "sights": sights.sights,
    "seen": sights.seen,
    "count": sights.count,
    "relation": relation.relation,
    "colour": colour.colour,
    "occurrences": occurrences.occurrences,
    "order": order.order,
    "speaker": speech.speaker,
    "clock": occurrences.clock,
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
