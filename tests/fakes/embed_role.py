"""Embed roles whose vectors a test can predict."""

from __future__ import annotations

import asyncio

import numpy as np

from streamsvc.core.roles import Payload
from tests.fakes.role import FakeRole


def letter_vectors(payload: Payload) -> Payload:
    """Op `texts`: how often each letter of "abcdefghij" occurs, normalised."""
    rows = np.array(
        [[text.count(letter) for letter in "abcdefghij"] for text in payload["texts"]], np.float32
    )
    return {"vectors": rows / np.linalg.norm(rows, axis=1, keepdims=True)}


def letters_role(*failures: Exception, gate: asyncio.Event | None = None) -> FakeRole:
    """A role of `letter_vectors`. Its first calls fail with `failures`; each waits until `gate` is set."""
    return FakeRole({"texts": [*failures, letter_vectors]}, gates={"texts": gate} if gate else {})
