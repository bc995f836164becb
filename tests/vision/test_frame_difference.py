"""Differences of thumbnails: exposure, components, and the changed region."""

from __future__ import annotations

import numpy as np
import pytest

from streamsvc.vision.frame_difference import (
    PATCH,
    WHOLE,
    components,
    dense_areas,
    difference,
    exposure,
    region,
    windows,
)


def test_a_window_is_the_mean_of_its_pixels() -> None:
    gray = np.zeros((8, 12), np.uint8)
    gray[0:4, 0:4] = 160
    cells = windows(gray)
    assert cells.shape == (3, 5)
    assert (cells[0, 0], cells[0, 1], cells[1, 1], cells[2, 4]) == (160.0, 80.0, 40.0, 0.0)


def test_the_difference_ignores_the_exposure_of_a_camera_and_keeps_a_change() -> None:
    before = np.random.default_rng(1).integers(60, 180, (90, 160)).astype(np.uint8)
    brighter = (before * 1.2 + 5).astype(np.uint8)
    assert difference(brighter, before).max() < 2.0
    brighter[40:48, 40:48] = 0
    assert difference(brighter, before)[20, 20] > 50.0


def test_exposure_of_a_camera_is_fitted_and_a_new_page_is_not_taken_for_it() -> None:
    before = np.linspace(10, 200, 400, dtype=np.float32).reshape(20, 20)
    gain, shift = exposure(before, before * 1.2 + 5)
    assert gain == pytest.approx(1.2, abs=0.01)
    assert shift == pytest.approx(5, abs=1)
    gain, shift = exposure(before, np.full((20, 20), 240, np.float32))
    assert np.abs(before * gain + shift - 240).max() > 20


def test_adjacent_windows_are_one_component() -> None:
    mask = np.zeros((40, 60), np.bool_)
    mask[3:5, 2:9] = mask[30, 50] = True
    boxes = sorted((rows.start, rows.stop, columns.start, columns.stop) for rows, columns in components(mask))
    assert boxes == [(3, 5, 2, 9), (30, 31, 50, 51)]


def test_only_dense_areas_are_a_video() -> None:
    mask = np.zeros((40, 60), np.bool_)
    mask[8:20, 8:32] = mask[30, 50] = True
    dense = dense_areas(mask)
    assert dense[8 - PATCH : 20 + PATCH, 8 - PATCH : 32 + PATCH].all()
    assert not dense[30, 50]
    assert not dense[: 8 - PATCH].any()


def test_the_region_surrounds_all_marked_windows_and_is_whole_without_any() -> None:
    mask = np.zeros((44, 79), np.bool_)
    assert region(mask) == WHOLE
    mask[10:12, 20:24] = True
    assert region(mask) == pytest.approx((18 / 80, 8 / 45, 9 / 80, 7 / 45))
