"""Differences between gray thumbnails, window by window. Pure.

Windows are 2 STEP x 2 STEP pixels and begin every STEP pixels, so that one digit of a slide lies completely
in at least one. A thumbnail of h x w pixels has (h // STEP - 1) x (w // STEP - 1) windows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Gray = NDArray[np.uint8]  # shape (h, w), best 320 wide: one digit of a slide is then some pixels
Cells = NDArray[np.float32]  # one value per window
Mask = NDArray[np.bool_]  # one value per window
WindowBox = tuple[slice, slice]  # rows and columns of windows
Region = tuple[float, float, float, float]  # x, y, w, h as fractions of the picture
WHOLE: Region = (0.0, 0.0, 1.0, 1.0)

STEP = 2  # pixels
# A camera's exposure may change all gray levels by this factor and shift, which is no change of the picture.
GAIN_MAX = 1.5
SHIFT_MAX = 40.0  # gray levels
PATCH = 4  # windows; differences within so many belong together


def windows(gray: Gray) -> Cells:
    """Mean gray level per window."""
    rows = gray.shape[0] // STEP
    columns = gray.shape[1] // STEP
    cut = gray[: rows * STEP, : columns * STEP]
    down = np.add(cut[0::2], cut[1::2], dtype=np.uint16)  # 16 pixels of 255 fit
    cells = down[:, 0::2] + down[:, 1::2]
    down = cells[:-1] + cells[1:]
    means: Cells = (down[:, :-1] + down[:, 1:]) * np.float32(1 / (2 * STEP) ** 2)
    return means


def difference(gray: Gray, other: Gray) -> Cells:
    """Mean absolute difference per window, without the effect of a camera's exposure."""
    gain, shift = exposure(sparse(other), sparse(gray))
    levels = np.clip(np.arange(256) * gain + shift, 0, 255).astype(np.uint8)  # what each gray level became
    expected = levels[other]
    return windows(np.maximum(gray, expected) - np.minimum(gray, expected))


def sparse(gray: Gray) -> Cells:
    """Means of some windows all over the picture, enough to fit the exposure."""
    every = 4 * STEP
    rows = gray.shape[0] // every
    columns = gray.shape[1] // every
    corners = gray[: rows * every, : columns * every].reshape(rows, every, columns, every)[:, :4, :, :4]
    means: Cells = corners.mean(axis=(1, 3), dtype=np.float32)
    return means


def exposure(before: Cells, after: Cells) -> tuple[float, float]:
    """Gain and shift that explain most windows; (1, 0) beyond GAIN_MAX or SHIFT_MAX."""
    gain = min(max(float(after.std()) / max(1.0, float(before.std())), 1 / GAIN_MAX), GAIN_MAX)
    shift = float(np.median(after - before * gain))
    for _ in range(2):
        residual = np.abs(after - before * gain - shift)
        fits = residual <= 2 * np.median(residual) + 2
        x = before[fits]
        y = after[fits]
        variance = float(x.var())
        gain = float(((x - x.mean()) * (y - y.mean())).mean()) / variance if variance > 25 else 1.0
        if not 1 / GAIN_MAX <= gain <= GAIN_MAX:
            gain = 1.0
        shift = float(y.mean() - gain * x.mean())
    return (gain, shift) if abs(shift) <= SHIFT_MAX else (1.0, 0.0)


def dense_areas(mask: Mask) -> Mask:
    """Where a mask is dense, and PATCH windows around: a video, but no caret."""
    rows = -(-mask.shape[0] // PATCH)
    columns = -(-mask.shape[1] // PATCH)
    padded = np.zeros((rows * PATCH, columns * PATCH), np.bool_)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    dense = np.zeros((rows + 2, columns + 2), np.bool_)
    dense[1:-1, 1:-1] = padded.reshape(rows, PATCH, columns, PATCH).mean(axis=(1, 3)) > 0.6
    dense[1:-1] |= dense[:-2] | dense[2:]
    dense[:, 1:-1] |= dense[:, :-2] | dense[:, 2:]
    return dense[1:-1, 1:-1].repeat(PATCH, axis=0).repeat(PATCH, axis=1)[: mask.shape[0], : mask.shape[1]]


def components(mask: Mask) -> Iterator[WindowBox]:
    """Tight boxes of the connected components of a mask; gaps below PATCH windows connect."""
    ys, xs = np.nonzero(mask)
    patches = set(zip((ys // PATCH).tolist(), (xs // PATCH).tolist(), strict=True))
    while patches:
        frontier = [patches.pop()]
        top, left = frontier[0]
        bottom, right = top, left
        while frontier:
            y, x = frontier.pop()
            top, bottom = min(top, y), max(bottom, y)
            left, right = min(left, x), max(right, x)
            near = {(y + down, x + across) for down in (-1, 0, 1) for across in (-1, 0, 1)} & patches
            patches -= near
            frontier += near
        inside = mask[top * PATCH : (bottom + 1) * PATCH, left * PATCH : (right + 1) * PATCH]
        rows = np.flatnonzero(inside.any(axis=1))
        columns = np.flatnonzero(inside.any(axis=0))
        yield (
            slice(top * PATCH + int(rows[0]), top * PATCH + int(rows[-1]) + 1),
            slice(left * PATCH + int(columns[0]), left * PATCH + int(columns[-1]) + 1),
        )


def pixels_of(box: WindowBox) -> WindowBox:
    """Rows and columns of the pixels that a box of windows covers."""
    rows, columns = (slice(side.start * STEP, (side.stop + 1) * STEP) for side in box)
    return rows, columns


def region(mask: Mask) -> Region:
    """The box around all marked windows, with two windows of margin; WHOLE if none is marked."""
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return WHOLE
    height = mask.shape[0] + 1
    width = mask.shape[1] + 1
    top, bottom = max(0, int(rows[0]) - 2), min(height, int(rows[-1]) + 4)
    left, right = max(0, int(columns[0]) - 2), min(width, int(columns[-1]) + 4)
    return (left / width, top / height, (right - left) / width, (bottom - top) / height)
