"""Fake engines for session runs: the models of builders/session.py, for any module name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engines import Engine
from streamsvc.core.config import Models as Places
from streamsvc.core.config import Settings
from tests.builders.session import Models


def load(module: str, options: Mapping[str, Any]) -> Engine:
    """An engine with the ops of all roles (see builders.session.Models)."""
    roles: Any = Models().roles()
    return Engine({**roles.hear.ops, **roles.see.ops, **roles.think.ops})


def settings(folder: Path) -> Settings:
    """Settings with `folder` as the model folder; nothing is read from it."""
    return Settings(models=Places(dir=folder))
