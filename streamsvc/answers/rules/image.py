"""A question that came with a picture: answered from that picture, or declined. Pure."""

from __future__ import annotations

import re

from streamsvc.answers.rules import screen_text
from streamsvc.answers.rules.finding import Finding, timestamp
from streamsvc.answers.rules.parse import Ask
from streamsvc.answers.rules.router import find
from streamsvc.core.types import Evidence, ScreenText, Sight
from streamsvc.timeline.timeline import Timeline

_MEANT = re.compile(
    rf"\b(this|these|photo\w*|screenshot|attach\w*|sent|{screen_text.DOCUMENT}|{screen_text.SURFACE})\b"
)


def answered(ask: Ask, sight: Sight, text: ScreenText, asked: float) -> Finding | None:
    """What a picture alone tells about a question; None where the question is about the stream, which no picture answers.

    Args:
        ask: the parsed question.
        sight: what was seen in the picture, `at` session second `asked`.
        text: what was read in it, at the same second.
        asked: session seconds.
    """
    alone = Timeline()
    alone.add(sight)
    alone.add(text)
    timed = ask.form in ("when", "how long") or bool(ask.times) or ask.last is not None or ask.ago is not None
    found = screen_text.read(
        ask, alone, asked
    )  # "when" is a time of the stream, unless a document tells a date
    if found is None and not timed:
        found = find(ask, alone, asked)
    if (
        found is not None
        and found.supported
        and not any(item.kind in ("speech", "timeline") for item in found.evidence)
    ):
        evidence = tuple(Evidence(asked, asked, "image", item.quote) for item in found.evidence)
        return Finding((_timeless(found.text, asked),), evidence, values=found.values)
    if (timed or ask.spoken) and not _MEANT.search(ask.text):
        return None
    return Finding(("I cannot tell that from the image.",), (), supported=False)


def _timeless(text: str, asked: float) -> str:
    """An answer of the timeline as one about a picture; what stands between double quotes is left alone."""
    when = re.escape(timestamp(asked))
    parts = re.split(r'("[^"]*")', text)
    for n in range(0, len(parts), 2):
        parts[n] = re.sub(rf",? (?:at|since|from) {when}(?: to {when})?(?!\d)", "", parts[n])
        for ours, theirs in (
            ("On the screen", "In the image"),
            ("on the screen", "in the image"),
            ("A screen with", "An image with"),
        ):
            parts[n] = parts[n].replace(ours, theirs)
    return "".join(parts)
