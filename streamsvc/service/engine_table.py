"""Which engine serves which role, by profile, which model answers questions, and which models are needed."""

from __future__ import annotations

import importlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from streamsvc.core.config import Settings
from streamsvc.workers.process import Job

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
NICENESS = {"hear": 0, "see": 5, "think": 10, "sight": 15}
NO_SIGHT = "none"


@dataclass(frozen=True, slots=True)
class ThinkModel:
    """The model behind the think role.

    reads: it finds an answer in a window (a generative reader); else it only shortens a passage.
    sees: it is given pictures.
    """

    name: str
    reads: bool
    sees: bool


def engines_of(settings: Settings) -> dict[str, dict[str, str]]:
    """The engine of each role by worker; a model of this machine that sees has a worker of its own."""
    if settings.models.profile == "embedded" and settings.think.sees != NO_SIGHT:
        return {**_EMBEDDED, "sight": {"sight": "engines.sight"}}
    return ENGINES[settings.models.profile]


def jobs_of(settings: Settings, think: ThinkModel) -> dict[str, Job]:
    """What each worker's process, or replica, loads, by worker. The options hold the endpoint's key."""
    options: dict[str, Any] = {
        "models": str(settings.models.dir / "models"),
        "hear": settings.hear.model_dump(),
        "see": settings.see.model_dump(),
        "think": settings.think.model_dump() | {"model": think.name, "remote": settings.remote.options()},
        "embed": settings.embed.model_dump(),
        "sight": settings.think.model_dump(),
    }
    return {
        name: Job(name, engines, {**options, **options[name]}, NICENESS[name])
        for name, engines in engines_of(settings).items()
    }


def machine_cores() -> int:
    """The cores that this process may use, by affinity and cgroup."""
    chat_models: Any = importlib.import_module("engines.chat_models")
    return int(chat_models.machine_cores())


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


def wrong_models(settings: Settings, workers: Collection[str] = tuple(NICENESS)) -> dict[str, str]:
    """The models that these workers need and that are not whole: what is wrong and what to do, by name.

    Models that no registry knows, such as a GGUF of the user, are not checked. Fast, but a file that has
    changed since it was last checked is hashed, which takes seconds: call it on a thread.
    """
    needed: dict[str, list[str]] = {
        "hear": [settings.hear.model],
        "see": [settings.see.tagger, settings.see.detector, settings.embed.model, _ranker()],
        "think": [think_model(settings).name] if settings.models.profile == "embedded" else [],
        "sight": [settings.think.sees] if "sight" in engines_of(settings) else [],
    }
    command: Any = importlib.import_module("engines.models_command")
    names = [name for worker in workers for name in needed[worker]]
    found: dict[str, str] = command.wrong(names, settings.models.dir / "models")
    return found


def vision_runtime(settings: Settings) -> str:
    """Which runtime computes the vectors of keyframes on this machine; "" where that is not measured yet."""
    tagger: Any = importlib.import_module("engines.tagger")
    choice = tagger.choice_of(settings.models.dir / "models", settings.see.tagger)
    return "" if choice is None else str(choice)


def _ranker() -> str:
    return str(importlib.import_module("engines.embed").RANKER)
