from __future__ import annotations

import itertools

import numpy as np
import pytest

from streamsvc.core.orientation import Orientation

PIXELS = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)


@pytest.mark.parametrize(
    ("orientation", "shown"),
    [
        (Orientation(), [[1, 2, 3], [4, 5, 6]]),
        (Orientation(right_to_left=True), [[3, 2, 1], [6, 5, 4]]),
        (Orientation(bottom_up=True), [[4, 5, 6], [1, 2, 3]]),
        (Orientation(swapped=True), [[1, 4], [2, 5], [3, 6]]),
        (Orientation(swapped=True, right_to_left=True), [[4, 1], [5, 2], [6, 3]]),
        (Orientation(swapped=True, bottom_up=True), [[3, 6], [2, 5], [1, 4]]),
    ],
)
def test_rows_and_columns_are_swapped_first_then_reversed(
    orientation: Orientation, shown: list[list[int]]
) -> None:
    assert orientation.apply(PIXELS).tolist() == shown


def test_the_eight_orientations_keep_every_pixel_with_its_colours_and_tell_their_size() -> None:
    picture = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    for flags in itertools.product((False, True), repeat=3):
        turned = Orientation(*flags).apply(picture)
        assert turned.flags.c_contiguous
        assert sorted(map(tuple, turned.reshape(-1, 3))) == sorted(map(tuple, picture.reshape(-1, 3)))
        assert Orientation(*flags).size(3, 2) == (turned.shape[1], turned.shape[0])
