"""A see engine without a model: every picture shows a cat, and the text that a test sets."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from engines import Engine, Op, Payload
from streamsvc.core.errors import WorkerError
from tests.fakes.local_role import LocalRole

SETTINGS = SimpleNamespace(ocr=True)


class Eyes:
    """A stand-in engine: says what it was told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Payload] = []
        self.texts: list[str] = []
        self.fail = False

    def role(self) -> LocalRole:
        return LocalRole(Engine({"look": Op(self.look), "read": Op(self.read)}))

    def look(self, batch: list[Payload]) -> list[Payload | Exception]:
        answer: Payload = {
            "embedding": np.ones(4, np.float32) / 2,
            "tags": ["cat"],
            "tag_scores": [0.9],
            "boxes": ["cat"],
            "box_scores": [0.8],
            "corners": np.array([[0.1, 0.2, 0.3, 0.4]], np.float32),
            "blank": False,
        }
        return [answer for _ in batch]

    def read(self, batch: list[Payload]) -> list[Payload | Exception]:
        self.asked += batch
        if self.fail:
            return [WorkerError("died")]
        corners = np.array(
            [[0.05, 0.1 + 0.17 * n, 0.5, 0.07] for n in range(len(self.texts))], np.float32
        ).reshape(-1, 4)
        return [{"texts": self.texts, "scores": [0.99] * len(self.texts), "corners": corners}]
