"""Lines of the window: one thing said or shown each, numbered and timed. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from streamsvc.core.printable import printable
from streamsvc.core.roles import Payload
from streamsvc.core.types import Evidence

LineKind = Literal["speech", "screen", "sight", "picture", "note"]
_OVERRIDES = re.compile("[\u202a-\u202e\u2066-\u2069]")  # Unicode's explicit directions
MAX_CHARACTERS = 600  # of the text of one line
_SAID: Mapping[str, str] = {"speech": "said", "screen": "screen", "sight": "seen", "picture": "picture"}


@dataclass(frozen=True, slots=True)
class Line:
    """One thing said or shown, from session second `start` to `end`. Never edited once it stands.

    `number`: counts by one over the session; a citation names it. `frame`: `at` of its keyframe. `picture`: a
    VLM's key of that keyframe, else "". A "note" stands for older lines that have left, `covers` (first and
    last number); `parts`: what it quotes of them.
    """

    number: int
    start: float
    end: float
    kind: LineKind
    text: str
    frame: float | None = None
    picture: str = ""
    covers: tuple[int, int] | None = None
    parts: tuple[Evidence, ...] = ()

    @property
    def rendered(self) -> str:
        """The line as a model reads it, without a line break."""
        if self.kind == "note":
            told = _SAID[self.parts[0].kind] if self.parts else "told"
            return f"[{self.number}] {timestamp(self.start)}-{timestamp(self.end)} note, {told}: {self.text}"
        return f"[{self.number}] {timestamp(self.start)} {_SAID[self.kind]}: {self.text}"

    def payload(self) -> Payload:
        """The line as the think engines take it."""
        payload: Payload = {"number": self.number, "at": self.start, "text": self.rendered}
        return payload | {"picture": self.picture} if self.picture else payload

    def evidence(self) -> Evidence:
        """The line as evidence; of a note its whole text, as the kind of what it quotes."""
        if self.kind == "note":
            kind = self.parts[0].kind if self.parts else "timeline"
            return Evidence(self.start, self.end, kind, self.text, self.frame)
        kind = "sight" if self.kind == "picture" else self.kind
        return Evidence(self.start, self.end, kind, self.text, self.frame)

    @property
    def quotes(self) -> tuple[Evidence, ...]:
        """What the line stands on: of a note each line that it quotes, else the line."""
        return self.parts or (self.evidence(),)


def timestamp(seconds: float) -> str:
    """Session seconds as m:ss, or h:mm:ss."""
    whole = max(0, int(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def one_line(text: str) -> str:
    """A text in one line without control characters: none can pass for structure of a prompt.

    Nor can its order be turned round: direction overrides go, joiners and marks stay.
    """
    return " ".join(_OVERRIDES.sub(" ", printable(text)).split())


def clipped(text: str) -> str:
    """A text of at most MAX_CHARACTERS."""
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"


def new_line(
    kind: LineKind, start: float, end: float, text: str, frame: float | None, picture: str = ""
) -> Line:
    """A line without a number. Times are rounded as they are in events."""
    rounded = None if frame is None else round(frame, 3)
    return Line(0, round(start, 3), round(end, 3), kind, clipped(one_line(text)), rounded, picture)
