"""Each profile has an engine for each role, and each engine is a module of ours."""

from __future__ import annotations

import importlib.util

import pytest

from streamsvc.service.engine_table import ENGINES, NICENESS


@pytest.mark.parametrize("profile", ["embedded", "gpu", "remote"])
def test_every_profile_names_an_existing_engine_for_every_role(profile: str) -> None:
    workers = ENGINES[profile]
    assert {role for roles in workers.values() for role in roles} == {"hear", "see", "think", "embed"}
    assert all(importlib.util.find_spec(engine) for roles in workers.values() for engine in roles.values())
    assert set(workers) == set(NICENESS)


def test_speech_has_the_highest_priority() -> None:
    assert min(NICENESS, key=lambda worker: NICENESS[worker]) == "hear"
