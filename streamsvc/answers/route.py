"""Where a question goes: a tool with its arguments, or a reader. Pure data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Reader = Literal["text", "sight", "none"]


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a question names, as far as tools use it.

    `span`: session seconds (start, end); one moment has start == end. `label`, `other`: labels of the
    detector or tagger. `text`: words in quotation marks. `ordinal`: 1 is the first, -1 the last. `number`:
    any other number. `form`: what kind of answer is asked for.
    """

    span: tuple[float, float] | None = None
    label: str = ""
    other: str = ""
    text: str = ""
    ordinal: int | None = None
    number: float | None = None
    form: Literal["open", "yes/no", "when", "how often", "how long", "list"] = "open"


@dataclass(frozen=True, slots=True)
class Route:
    """Which tool or reader answers a question.

    `tool`: a name of `tools.TOOLS`; "": a reader. `reader`: of words or of pictures, also where the tool
    finds nothing; "none": no model here can tell such things. `present`: the question is about now. `margin`:
    by how much the nearest examples beat those of the next route; cosine.
    """

    tool: str = ""
    reader: Reader = "text"
    arguments: Arguments = field(default_factory=Arguments)
    present: bool = False
    margin: float = 0.0
    language: str = "en"
