"""Stand-in engines for rehearsals: the stage's models, whatever module is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engines import Engine
from streamsvc.core.config import Models as Places
from streamsvc.core.config import Settings
from tests.builders.session import Models


def load(module: str, options: Mapping[str, Any]) -> Engine:
    """An engine with the ops of all roles: a tone is speech of one word each 0.4 s, every picture shows a cat."""
    roles: Any = Models().roles()
    return Engine({**roles.hear.ops, **roles.see.ops, **roles.think.ops})


def settings(folder: Path) -> Settings:
    """Settings whose models lie nowhere."""
    return Settings(models=Places(dir=folder))
