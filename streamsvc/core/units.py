"""The union of all units that a session dispatches, and the units that only leave it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from streamsvc.core.errors import StreamsvcError
from streamsvc.core.types import (
    Answer,
    Cue,
    Delta,
    Evidence,
    Gap,
    Keyframe,
    Scene,
    ScreenText,
    Sight,
    Speech,
    Stages,
    Translation,
    Words,
)


@dataclass(frozen=True, slots=True)
class Flushed:
    """All audio that came in before a flush has been captioned.

    `audience`: the one subscriber that gets the event; None: all.
    """

    audience: str | None


@dataclass(frozen=True, slots=True)
class SceneDelta:
    """An increment of a scene caption that a VLM has not finished; unchecked, and kept nowhere.

    `scene_id`: of the `Scene` that takes its place. `index`: of the increment, from 0. `start`: of the scene.
    `withdrawn`: no `Scene` comes of it, and what was shown of it goes; `text` is "".
    """

    session: str
    track: str
    at: float
    arrived: float
    scene_id: str
    index: int
    text: str
    start: float
    stages: Stages = ()
    withdrawn: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """A part of the answer to one question: an increment, the whole answer, or why there is none.

    `at`: session seconds at which the question was asked; `arrived`: the same in monotonic seconds. `first`:
    the first part. `stages`: what the time since went to. `question`: its text; `asker`: who takes turns.
    `audience`: the one subscriber that gets it; None: all.
    """

    question_id: str
    at: float
    arrived: float
    part: Delta | Answer | StreamsvcError
    audience: str | None
    first: bool = False
    stages: Stages = ()
    question: str = ""
    asker: str = ""


@dataclass(frozen=True, slots=True)
class AlertFired:
    """A watch has fired. `at`: session seconds of the evidence.

    `arrived`: monotonic seconds of its last packet. `decided_by`: the rules, a model, or the rules because
    the model was late or failed.
    """

    watch_id: str
    at: float
    arrived: float
    text: str
    evidence: tuple[Evidence, ...]
    decided_by: Literal["rules", "model", "rules_late"] = "rules"
    stages: Stages = ()


Unit = (
    Words
    | Speech
    | Gap
    | Cue
    | Translation
    | Flushed
    | Keyframe
    | Sight
    | ScreenText
    | Scene
    | SceneDelta
    | Reply
    | AlertFired
)
