"""A scene that comes back is told by its first picture; the next slide of a design is another scene."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from streamsvc.core.types import Sight
from streamsvc.vision import scene_memory
from streamsvc.vision.scene_memory import SceneMemory

WIDTH, HEIGHT = 320, 180


def sight(at: float, *direction: float, blank: bool = False) -> Sight:
    vector = np.array(direction, np.float32)
    return Sight("s", "video", at, at, vector / np.linalg.norm(vector), (), (), blank)


def picture(seed: int) -> Any:
    cells = np.random.default_rng(seed).integers(0, 256, (HEIGHT // 5, WIDTH // 5), dtype=np.uint8)
    return np.kron(cells, np.ones((5, 5), np.uint8))


def test_a_scene_that_comes_back_is_told_once_by_its_first_picture() -> None:
    memory = SceneMemory()
    told = [
        memory.returned(sight(1.0, 1, 0), picture(1)),
        memory.returned(sight(2.0, 0, 1), picture(2)),
        memory.returned(sight(3.0, 1, 0.1), picture(1)),
        memory.returned(sight(4.0, 1, 0), picture(1)),
        memory.returned(sight(5.0, 0, 1), picture(2)),
    ]
    assert told == [None, None, 1.0, None, 2.0]


def test_a_picture_that_stays_has_not_come_back() -> None:
    memory = SceneMemory()
    assert [memory.returned(sight(at, 1, 0), picture(1)) for at in (1.0, 2.0, 3.0)] == [None] * 3


def test_the_same_look_with_other_content_is_another_scene() -> None:
    memory = SceneMemory()
    slide = picture(1)
    other = slide.copy()
    other[50:80, 20:300] ^= 0x80  # two lines of text
    assert memory.returned(sight(1.0, 1, 0), slide) is None
    assert memory.returned(sight(2.0, 1, 0.01), other) is None
    assert memory.returned(sight(3.0, 1, 0), slide) == 1.0
    assert memory.returned(sight(4.0, 1, 0.01), other) == 2.0


def test_like_thumbnails_of_other_content_are_another_scene() -> None:
    memory = SceneMemory()
    memory.returned(sight(1.0, 1, 0), picture(1))
    memory.returned(sight(2.0, 0, 1), picture(2))
    assert memory.returned(sight(3.0, 0, 1), picture(1)) is None


def test_small_changes_do_not_make_another_scene() -> None:
    memory = SceneMemory()
    memory.returned(sight(1.0, 1, 0), picture(1))
    memory.returned(sight(2.0, 0, 1), picture(2))
    clock = picture(1)
    clock[:10, :20] ^= 0x80
    assert memory.returned(sight(3.0, 1, 0.2), clock) == 1.0


def test_after_a_blank_picture_the_scene_has_come_back_and_the_blank_is_none() -> None:
    memory = SceneMemory()
    memory.returned(sight(1.0, 1, 0), picture(1))
    black = np.zeros((HEIGHT, WIDTH), np.uint8)
    assert memory.returned(sight(2.0, 0, 1, blank=True), black) is None
    assert memory.returned(sight(3.0, 1, 0), picture(1)) == 1.0
    assert memory.returned(sight(4.0, 0, 1, blank=True), black) is None


def test_the_nearest_of_several_scenes_is_the_one() -> None:
    memory = SceneMemory()
    memory.returned(sight(1.0, 1, 0.6), picture(1))
    memory.returned(sight(2.0, 1, -0.6), picture(1))
    memory.returned(sight(3.0, 0, 1), picture(3))
    assert memory.returned(sight(4.0, 1, -0.1), picture(1)) == 2.0


def test_another_size_of_picture_is_another_scene() -> None:
    memory = SceneMemory()
    memory.returned(sight(1.0, 1, 0), picture(1))
    memory.returned(sight(2.0, 0, 1), picture(2))
    assert memory.returned(sight(3.0, 1, 0), picture(1)[:90]) is None


def test_the_oldest_scene_is_forgotten_first_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene_memory, "MOST", 2)
    memory = SceneMemory()
    for number in range(3):
        memory.returned(sight(float(number), 1, number), picture(number))
    assert memory.forgotten == 1
    assert memory.returned(sight(5.0, 1, 1), picture(1)) == 1.0
    assert memory.returned(sight(6.0, 1, 0), picture(0)) is None
