"""Which pictures are worth looking at. Pure: small gray pictures in, decisions out.

Two gates. `wants` is asked at the tap, before decoding: a payload that nobody will look at need not be decoded.
`Sampler` compares decoded pictures with the last **keyframe** (not with the last picture, so that slow changes add up),
block by block: a slide that changes a line counts, sensor noise and a mouse cursor do not.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from streamsvc.types import EncodedFrame

Gray = NDArray[np.uint8]  # shape (h, w)
Region = tuple[float, float, float, float]  # x, y, w, h as fractions of the picture
WHOLE: Region = (0.0, 0.0, 1.0, 1.0)

BLOCK = 5  # pixels of the thumbnail: 40 of a 1280-wide picture, about one line of text
CHANGED = 8.0  # gray levels, mean over a block: more is a change (coding noise stays below 3)
MOVING = 4.0  # gray levels between two probes: more is movement
EXPOSURE = 30.0  # gray levels: a shift of the whole picture up to this is the camera's exposure, not a change
SETTLE = 0.4  # seconds that a transition gets to end before it is looked at all the same
REST = 0.35  # seconds for which a small change must stand still
RUN = 3  # blocks side by side that make a small change a text and no cursor
ALIVE = 0.01  # share of the picture that must differ for the longest interval to fire
CUT = 3.0  # times the usual movement: a cut within a moving picture


class Settings(Protocol):
    """What is read of config.Sample."""

    @property
    def min_interval(self) -> float: ...  # noqa: D102
    @property
    def max_interval(self) -> float: ...  # noqa: D102
    @property
    def scene_threshold(self) -> float: ...  # noqa: D102


@dataclass(slots=True)
class Wants:
    """State of the tap's gate. `intra_only`: only keyframes are decoded (saves most of the decoding)."""

    intra_only: bool = False
    broken: bool = False  # an inter frame was left out: the decoder can go on only at a keyframe


def wants(frame: EncodedFrame, state: Wants) -> bool:
    """Whether a payload is to be decoded; keeps the chain of references whole when the gate opens again."""
    if frame.kind == "audio":
        return True
    if frame.keyframe:
        state.broken = False
        return True
    if state.intra_only or state.broken:
        state.broken = True
        return False
    return True


@dataclass(frozen=True, slots=True)
class Change:
    """Why a picture is a keyframe, "first", "scene", "text" or "interval", and what of it differs from the last one."""

    reason: str
    changed: Region = WHOLE


class Sampler:
    """Chooses keyframes among thumbnails that come a few times a second.

    Args:
        settings: shortest and longest interval in seconds, and the share of the picture that makes a scene.

    `min_interval` may be raised while running, to spend less.
    """

    def __init__(self, settings: Settings) -> None:
        self.min_interval = settings.min_interval
        self._longest = settings.max_interval
        self._scene = settings.scene_threshold
        self._key: Gray | None = None  # the last keyframe
        self._last: Gray | None = None  # the last picture
        self._fired = 0.0  # session seconds of the last keyframe
        self._moved = np.zeros((0, 0))  # per block, session seconds of its last movement
        self._pending: float | None = None  # since when the picture has been another scene
        self._pace = self.min_interval  # between looks at a picture that never stands still
        self._usual: deque[float] = deque(maxlen=15)  # movement of the last pictures, mean gray levels

    def look(self, gray: Gray, at: float) -> Change | None:
        """Decide on one picture, shape (h, w), of session second `at`; None: nothing new to see."""
        if self._key is None or self._last is None:
            return self._fire(gray, at, Change("first"))
        if gray.shape != self._key.shape:
            return self._fire(gray, at, Change("scene"))
        moved = difference(gray, self._last)
        self._moved[moved > MOVING] = at
        motion = float(np.abs(gray.astype(np.int16) - self._last).mean())
        cut = motion > 2.0 and motion > CUT * float(np.median(self._usual)) if self._usual else motion > 2.0
        self._usual.append(motion)
        self._last = gray
        mask = difference(gray, self._key) > CHANGED + 2 * float(np.median(moved) if np.median(moved) < MOVING else 0.0)
        return self._decide(gray, at, mask, cut)

    def _decide(self, gray: Gray, at: float, mask: NDArray[np.bool_], cut: bool) -> Change | None:
        share = float(mask.mean())
        since = at - self._fired
        change = None
        if share >= self._scene:
            if self._pending is None or cut:
                self._pending = at if self._pending is None else self._pending
                self._pace = self.min_interval if cut else self._pace
            still = float((at - self._moved[mask] > 0.0).mean()) > 0.7
            if since >= self.min_interval and (still or (at - self._pending >= SETTLE and since >= self._pace)):
                self._pace = self.min_interval if still else min(self._longest / 2, 2 * self._pace)
                change = Change("scene", region(mask))
        else:
            self._pending = None
            at_rest = mask & (at - self._moved >= REST)
            busy = float((self._moved == at).mean()) > ALIVE  # ground that a walker uncovers is at rest too
            if since >= (self._pace if busy else self.min_interval) and longest_run(at_rest) >= RUN:
                self._pace = min(self._longest / 2, 2 * self._pace) if busy else self.min_interval
                change = Change("text", region(mask))
            elif since >= self._longest and share >= ALIVE and longest_run(mask) >= RUN:
                change = Change("interval", region(mask))
        return None if change is None else self._fire(gray, at, change)

    def _fire(self, gray: Gray, at: float, change: Change) -> Change:
        if self._last is None or self._last.shape != gray.shape:
            self._moved = np.full(blocks(gray).shape, -1.0)
        self._key = self._last = gray
        self._fired, self._pending = at, None
        return change


def blocks(gray: NDArray[np.generic]) -> NDArray[np.float32]:
    """Means of the blocks of a picture, shape (h // BLOCK, w // BLOCK)."""
    rows, columns = gray.shape[0] // BLOCK, gray.shape[1] // BLOCK
    cut = gray[: rows * BLOCK, : columns * BLOCK].astype(np.float32)
    means: NDArray[np.float32] = cut.reshape(rows, BLOCK, columns, BLOCK).mean(axis=(1, 3))
    return means


def difference(gray: Gray, other: Gray) -> NDArray[np.float32]:
    """Mean absolute difference per block, less a small shift of the whole picture (exposure)."""
    signed = gray.astype(np.float32) - other
    shift = float(np.median(signed))
    return blocks(np.abs(signed - (shift if abs(shift) <= EXPOSURE else 0.0)))


def longest_run(mask: NDArray[np.bool_]) -> int:
    """Most blocks side by side in one row: text is wide, a cursor is not."""
    if not mask.any():
        return 0
    best, run = 0, np.zeros(mask.shape[0], dtype=np.int64)
    for column in mask.T:
        run = (run + 1) * column
        best = max(best, int(run.max()))
    return best


def region(mask: NDArray[np.bool_]) -> Region:
    """The box around all marked blocks, with one block of margin, as fractions; everything where nothing is marked."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return WHOLE
    top, bottom = max(0, rows[0] - 1), min(mask.shape[0], rows[-1] + 2)
    left, right = max(0, columns[0] - 1), min(mask.shape[1], columns[-1] + 2)
    height, width = mask.shape
    return (float(left / width), float(top / height), float((right - left) / width), float((bottom - top) / height))
