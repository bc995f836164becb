"""Stand-ins for a model that decides whether the condition of a watch holds, behind an endpoint.

`AnswerEndpoint.questions` are conditions with the spans of session seconds in which they hold ("holds");
what the model is shown last tells it the time. `truthful` says what is true, `inventing` one thing as often
as the other, whatever is shown, `affirming` yes to everything.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Sequence
from typing import Any

from tests.fakes.answer_endpoint import Asked, Say

Spans = Sequence[tuple[float, float]]


def condition(when: str, holds: Spans) -> dict[str, Any]:
    """A condition, as an endpoint knows it."""
    return {"id": when, "question": f"Condition: {when}", "ask_at_s": 0.0, "holds": [*holds]}


def truthful(asked: Asked) -> str:
    """Whether it holds at the newest line."""
    known = asked.question
    now = max((line.at for line in asked.lines), default=-1.0)
    return _said(known is not None and any(start <= now < end for start, end in known["holds"]))


def inventing(asked: Asked) -> str:
    """Yes or no, without regard to the truth; the same for the same condition and lines."""
    about = str(asked.question and asked.question["id"]) + "".join(line.text for line in asked.lines)
    return _said(zlib.crc32(about.encode()) % 2 == 0)


def affirming(asked: Asked) -> str:
    """Yes."""
    return _said(True)


def slowly(say: Say, shortest: float, longest: float) -> Say:
    """The same, after some seconds, the same for the same condition and lines."""

    def said(asked: Asked) -> str:
        about = f"{asked.question and asked.question['id']} {len(asked.lines)}"
        time.sleep(shortest + (longest - shortest) * (zlib.crc32(about.encode()) % 100) / 99)
        return say(asked)

    return said


def _said(holds: bool) -> str:
    return json.dumps({"holds": holds})
