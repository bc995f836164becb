"""Fake engines for session runs: the models of builders/session.py, for any module name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engines import Engine, Op, each
from streamsvc.core.config import Models as Places
from streamsvc.core.config import Settings
from tests.builders.session import Models
from tests.fakes.embed_role import word_scores, word_vectors


def load(module: str, options: Mapping[str, Any]) -> Engine:
    """An engine with the ops of all roles (see builders.session.Models, fakes.embed_role)."""
    roles: Any = Models().roles()
    embed = {"texts": Op(each(word_vectors)), "rank": Op(each(word_scores))}
    return Engine({**roles.hear.ops, **roles.see.ops, **roles.think.ops, **embed})


def settings(folder: Path) -> Settings:
    """Settings with `folder` as the model folder; nothing is read from it."""
    return Settings(models=Places(dir=folder))
