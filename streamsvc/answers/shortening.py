"""A small model shortens the passage that the extractive reader chose, and adds nothing to it.

A model that cannot read invents. What it writes is used only where it is a run of the passage's own words
that says more than the question did; the passage is told in full before it.
"""

from __future__ import annotations

import re
from contextlib import aclosing

from streamsvc.core import clock
from streamsvc.core.errors import StreamsvcError
from streamsvc.core.roles import Payload, Role
from streamsvc.timeline.lines import one_line

MAX_TOKENS = 16
MIN_WORDS = 12  # of a passage; a shorter one needs no shortening
MIN_SECONDS = 0.4  # before the deadline; with less left the model is not asked
_MAX_PHRASE = 12  # words
_INSTRUCTION = "Copy from the text the few words that answer the question, and nothing else."
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


async def shortened(think: Role, session: str, question: str, passage: str, due: float) -> str:
    """The words of a passage that answer a question, as far as the model finds them; "" where it does not.

    Args:
        think: the role of the model.
        session: id of the session; nothing of the call is kept for it.
        question: of the asker.
        passage: which is told as the answer.
        due: monotonic seconds at which it must be done.
    """
    left = due - clock.now()
    if left < MIN_SECONDS or len(passage.split()) < MIN_WORDS:
        return ""
    payload: Payload = {
        "session": f"{session} aside",
        "items": [],
        "instruction": _INSTRUCTION,
        "question": f"Text: {one_line(passage)}\nQuestion: {one_line(question)}",
        "max_tokens": MAX_TOKENS,
        "aside": True,
    }
    text = ""
    try:
        pieces = think.stream("generate", payload, deadline_in_s=left, affinity=session)
        async with aclosing(pieces) as stream:  # type: ignore[type-var]
            async for piece in stream:
                text += str(piece.get("text", ""))
    except StreamsvcError:
        return ""  # the passage has been told in full
    return copied(text, passage, question)


def copied(text: str, passage: str, question: str) -> str:
    """The model's phrase, where it is a run of the passage's words and not all of the question's; else ""."""
    phrase = " ".join(text.split("\n")[0].split()).strip(" .,;:\"'“”")
    words, given = _WORD.findall(phrase.lower()), _WORD.findall(passage.lower())
    asked = set(_WORD.findall(question.lower()))
    if not 0 < len(words) <= _MAX_PHRASE or len(words) * 2 > len(given) or asked.issuperset(words):
        return ""
    runs = (given[start : start + len(words)] for start in range(len(given) - len(words) + 1))
    return phrase if any(run == words for run in runs) else ""
