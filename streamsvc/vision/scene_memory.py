"""The scenes of one session, to tell when one comes back. Pure.

Two pictures are of one scene where their embeddings are near and most of their thumbnails is alike: to the
encoder all slides of one design look the same, so that it alone would take the next slide for the last.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamsvc.core.types import Sight
from streamsvc.vision.frame_difference import Gray
from streamsvc.vision.perception import CELL, CHANGE_THRESHOLD

SAME = 0.9  # cosine of two embeddings from which they may be of one scene
CHANGED = 0.03  # share of the thumbnail's cells that may have changed; the next slide changes 0.07 and more
MOST = 100  # scenes remembered; the oldest is forgotten first


@dataclass(frozen=True, slots=True)
class _Scene:
    """A scene by its first picture. `at`: session seconds of it."""

    at: float
    embedding: NDArray[np.float32]
    cells: NDArray[np.float32]  # gray levels, shape (rows, columns)


class SceneMemory:
    """Remembers the scenes of one session.

    Attributes:
        forgotten: scenes that had to make room.
    """

    def __init__(self) -> None:
        self.forgotten = 0
        self._scenes: deque[_Scene] = deque(maxlen=MOST)
        self._shown: float | None = None  # second of the first picture of the scene that is shown

    def returned(self, sight: Sight, gray: Gray) -> float | None:
        """Take in a picture: the second of the first picture of its scene, if that scene has come back.

        None: the scene is new, or is the one that was shown before, or the picture is blank.

        Args:
            sight: of the picture, with its embedding.
            gray: its thumbnail, shape (h, w).
        """
        if sight.blank:
            self._shown = None
            return None
        cells = _cells(gray)
        near = [scene for scene in self._scenes if _alike(scene, sight.embedding, cells)]
        if not near:
            self.forgotten += len(self._scenes) == MOST
            self._scenes.append(_Scene(sight.at, sight.embedding, cells))
            self._shown = sight.at
            return None
        best = max(near, key=lambda scene: float(scene.embedding @ sight.embedding))
        before, self._shown = self._shown, best.at
        return best.at if best.at != before else None


def _cells(gray: Gray) -> NDArray[np.float32]:
    """The mean gray level of each cell of a thumbnail."""
    rows, columns = gray.shape[0] // CELL, gray.shape[1] // CELL
    whole = gray[: rows * CELL, : columns * CELL].reshape(rows, CELL, columns, CELL)
    cells: NDArray[np.float32] = whole.mean(axis=(1, 3), dtype=np.float32)
    return cells


def _alike(scene: _Scene, embedding: NDArray[np.float32], cells: NDArray[np.float32]) -> bool:
    if scene.cells.shape != cells.shape or float(scene.embedding @ embedding) < SAME:
        return False
    return float((np.abs(scene.cells - cells) > CHANGE_THRESHOLD).mean()) <= CHANGED
