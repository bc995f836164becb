"""Embed roles whose vectors a test can predict."""

from __future__ import annotations

import asyncio
import re
import zlib

import numpy as np

from streamsvc.answers import intents, watch_intents
from streamsvc.core.errors import WorkerError
from streamsvc.core.roles import Payload
from tests.fakes.role import FakeRole

NO_RANKER = WorkerError("there is no cross-encoder")


def letter_vectors(payload: Payload) -> Payload:
    """Op `texts`: how often each letter of "abcdefghij" occurs, normalised."""
    rows = np.array(
        [[text.count(letter) for letter in "abcdefghij"] for text in payload["texts"]], np.float32
    )
    return {"vectors": rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)}


def word_vectors(payload: Payload) -> Payload:
    """Op `texts`: which words occur; texts with many words in common are close."""
    rows = np.full((len(payload["texts"]), 512), 1e-3, np.float32)
    for row, text in zip(rows, payload["texts"], strict=True):
        for word in _words(text):
            row[zlib.crc32(word.encode()) % len(row)] += 1.0
    return {"vectors": rows / np.linalg.norm(rows, axis=1, keepdims=True)}


def word_scores(payload: Payload) -> Payload:
    """Op `rank`: how many words of the query a text has."""
    query = _words(payload["query"])
    return {"scores": np.array([len(query & _words(text)) for text in payload["texts"]], np.float32)}


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def letters_role(*failures: Exception, gate: asyncio.Event | None = None) -> FakeRole:
    """A role of `letter_vectors`. Its first calls fail with `failures`; each waits until `gate` is set."""
    return FakeRole(
        {"texts": [*failures, letter_vectors], "rank": NO_RANKER}, gates={"texts": gate} if gate else {}
    )


def routing_role(**intent_of: str) -> FakeRole:
    """A role whose vectors send questions where a test wants them; it ranks nothing.

    Args:
        intent_of: intents by the first word of a question, in lower case; "text" of all others.
    """
    known = {text: intent.name for intent in intents.intents() for text in intent.questions}
    names = sorted(set(known.values()))

    def texts(payload: Payload) -> Payload:
        kinds = [
            known.get(text) or intent_of.get(text.split()[0].lower(), "text") for text in payload["texts"]
        ]
        return {"vectors": np.eye(len(names), dtype=np.float32)[[names.index(kind) for kind in kinds]]}

    return FakeRole({"texts": texts, "rank": NO_RANKER})


def watching_role(**kind_of: str) -> FakeRole:
    """A role whose vectors make of conditions what a test wants; other texts have `letter_vectors`.

    Args:
        kind_of: kinds by a word of the condition; one without such a word is "seen".
    """
    known: dict[str, str] = {watch_intents.compared(text): kind for kind, text in watch_intents.labelled()}
    names = sorted(set(known.values()))

    def texts(payload: Payload) -> Payload:
        if not payload["texts"][0].startswith("when "):
            letters = letter_vectors(payload)["vectors"]
            return {"vectors": np.pad(letters, ((0, 0), (0, len(names) - letters.shape[1])))}
        kinds = [
            known.get(text) or next((kind_of[word] for word in text.split() if word in kind_of), "seen")
            for text in payload["texts"]
        ]
        return {"vectors": np.eye(len(names), dtype=np.float32)[[names.index(kind) for kind in kinds]]}

    return FakeRole({"texts": texts, "rank": NO_RANKER})
