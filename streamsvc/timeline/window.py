"""The window: what a language model is shown of a session, as numbered, timed lines. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from streamsvc.core.roles import Payload
from streamsvc.core.types import Evidence

LineKind = Literal["speech", "screen", "sight", "picture", "note"]


@dataclass(frozen=True, slots=True)
class Line:
    """One thing said or shown, from session second `start` to `end`. Never edited once it stands.

    `number`: counts by one over the session; a citation names it. `frame`: `at` of its keyframe. `picture`: a
    VLM's key of that keyframe, else "". A "note" stands for older lines that have left.
    """

    number: int
    start: float
    end: float
    kind: LineKind
    text: str
    frame: float | None = None
    picture: str = ""

    @property
    def rendered(self) -> str:
        """The line as a model reads it, without a line break."""
        raise NotImplementedError

    def payload(self) -> Payload:
        """The line as the think engines take it."""
        payload: Payload = {"number": self.number, "at": self.start, "text": self.rendered}
        return payload | {"picture": self.picture} if self.picture else payload

    def evidence(self) -> Evidence:
        """The line as evidence."""
        kind = "sight" if self.kind == "picture" else self.kind
        return Evidence(self.start, self.end, kind, self.text, self.frame)


@dataclass(frozen=True, slots=True)
class Window:
    """The lines in the order in which they became known.

    `generation`: counts the folds; within one, lines are only appended. `tokens`: of all lines.
    """

    generation: int = 0
    lines: tuple[Line, ...] = ()
    tokens: int = 0
