"""Where a question goes: a tool with its arguments, or a reader. Pure data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Reader = Literal["text", "sight", "none"]
Form = Literal["open", "yes/no", "when", "how often", "how long", "list"]


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a question names, as far as tools use it.

    `span`: session seconds (start, end); one moment has start == end. `label`, `other`: names of labels of
    the detector or tagger, in the singular. `text`: words in quotation marks, or the title or words that the
    question is about. `ordinal`: 1 is the first, -1 the last. `number`: any other number. `form`: what kind
    of answer is asked for.
    """

    span: tuple[float, float] | None = None
    label: str = ""
    other: str = ""
    text: str = ""
    ordinal: int | None = None
    number: float | None = None
    form: Form = "open"


@dataclass(frozen=True, slots=True)
class Route:
    """Which tool or reader answers a question.

    `tool`: a name of `tools.TOOLS`; "": a reader. `reader`: of words or of pictures, also where the tool
    finds nothing; "none": no model here can tell such things. `present`: the question is about now.
    `margin`: by how much the examples of this route are ahead of those of the next; 0: unknown. `language`:
    ISO 639-1 code of the question.
    """

    tool: str = ""
    reader: Reader = "text"
    arguments: Arguments = field(default_factory=Arguments)
    present: bool = False
    margin: float = 0.0
    language: str = "en"
