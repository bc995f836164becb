"""The default of a route: look it up in what was said and written, in English, with no claim to be sure."""

from __future__ import annotations

import dataclasses

import pytest

from streamsvc.answers.route import Arguments, Route


def test_by_default_a_question_is_looked_up() -> None:
    found = Route()
    assert (found.tool, found.reader, found.margin) == ("", "text", 0.0)
    assert found.arguments == Arguments()


def test_a_route_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Route().tool = "summary"  # type: ignore[misc]
