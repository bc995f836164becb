"""Which engine serves which role, by profile, and which model answers questions."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from streamsvc.core.config import Settings

# worker -> role -> engine
_EMBEDDED = {
    "hear": {"hear": "engines.asr"},
    "see": {"see": "engines.vision", "embed": "engines.embed"},
    "think": {"think": "engines.chat"},
}
ENGINES = {
    "embedded": _EMBEDDED,
    "gpu": {**_EMBEDDED, "think": {"think": "engines.vlm"}},
    "remote": {**_EMBEDDED, "think": {"think": "engines.remote"}},
}
NICENESS = {"hear": 0, "see": 5, "think": 10}


@dataclass(frozen=True, slots=True)
class ThinkModel:
    """The model behind the think role.

    reads: it finds an answer in a window (a generative reader); else it only shortens a passage.
    sees: it is given pictures.
    """

    name: str
    reads: bool
    sees: bool


def think_model(settings: Settings) -> ThinkModel:
    """The model that answers questions under these settings; "auto" is resolved by what is on the disk.

    May hash a model's file once, for seconds: call it at start.
    """
    match settings.models.profile:
        case "embedded":
            chat_models = importlib.import_module("engines.chat_models")  # by dotted name, as workers do
            found = chat_models.chat_model(settings.models.dir / "models", settings.think.model)
            return ThinkModel(found.name, found.reads, sees=False)
        case "gpu":
            return ThinkModel(settings.think.model, reads=True, sees=True)
        case _:
            return ThinkModel(settings.remote.model, reads=True, sees=settings.remote.images > 0)
