"""Which pictures are worth looking at. Pure: small gray pictures in, decisions out.

`Sampler` compares decoded pictures with the last **keyframe** (not with the last picture, so that slow changes add up),
window by window: one digit of a slide counts; camera noise, exposure, a caret and a mouse pointer do not. What passes must
also find room in the `Budget`s of the session and of the service.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Gray = NDArray[np.uint8]  # shape (h, w), best 320 wide: one digit of a slide is then some pixels
Cells = NDArray[np.float32]  # one value per window
Mask = NDArray[np.bool_]  # one per window
Region = tuple[float, float, float, float]  # x, y, w, h as fractions of the picture
WHOLE: Region = (0.0, 0.0, 1.0, 1.0)

STEP = (
    2  # pixels of the thumbnail between windows, which are twice as wide: a digit lies whole in at least one
)
CHANGED = 8.0  # gray levels, mean over a window: more is a change (coding noise stays below 5)
MOVING = 4.0  # gray levels between two probes: more is movement
NOISE = 3.0  # times the usual difference of windows: what camera noise reaches
GAIN, SHIFT = (
    1.5,
    40.0,
)  # the camera's exposure may change all grays by this factor and these levels, and it is no change
SETTLE = 0.4  # seconds that a transition gets to end before it is looked at all the same
REST = 0.55  # seconds for which a small change must stand still: longer than a caret stays
RESTLESS = (
    0.45  # share of the last probes (about two seconds) in which a window moved: more is a caret or a video
)
RISE, FALL = 0.1, 0.05  # weight of a probe with and without movement in that share
LIVELY = 0.006  # share of the picture, pointers and carets are smaller: where more moves in most probes, it is no page
INSET = 0.5  # share of the picture that a video within a page takes at most
QUIET = 0.002  # share of the picture that moves at most where nothing does
ALIVE = 0.01  # share of the picture that must differ for the longest interval to fire
CUT = 3.0  # times the usual movement: a cut within a moving picture
PATCH = 4  # windows: what differs within so many belongs together
POINTER = 9  # windows: no pointer is wider or higher
FLAT = 10.0  # gray levels, standard deviation: ground without ink
LEAST = 3  # windows that a pointer changes at least
LINGER = 3.0  # seconds after which ink that changed to other ink is looked at, be it a pointer or not
PASSING = 1.0  # seconds in which a pointer that rests here has been seen elsewhere
ASKED = 10.0  # seconds after a question in which more is looked at


class Settings(Protocol):
    """What is read of config.Sample."""

    @property
    def min_interval(self) -> float: ...  # noqa: D102
    @property
    def max_interval(self) -> float: ...  # noqa: D102
    @property
    def scene_threshold(self) -> float: ...  # noqa: D102


class Budget:
    """Keyframes a second, on the mean; seldom ones may come in a bunch.

    Rule for full: the keyframe is refused and counted. Its change is no loss while it stands: the next probe differs from the
    last keyframe just as much, and asks again. What has gone by then is never seen.

    Args:
        rate: keyframes a second; may be lowered while running, to spend less.
        burst: keyframes at once after a pause.
        refused: is called once per refused keyframe.
    """

    def __init__(self, rate: float, burst: int, refused: Callable[[], None] = lambda: None) -> None:
        self.rate, self._burst, self._refused = rate, float(burst), refused
        self._left, self._then = float(burst), 0.0

    def has(self, now: float) -> bool:
        """Whether there is room at second `now` of the clock that all askers share; a no is counted."""
        self._refill(now)
        if self._left >= 1.0:
            return True
        self._refused()
        return False

    def spend(self, now: float) -> None:
        """Take the room of one keyframe at second `now`, whether there is any or not."""
        self._refill(now)
        self._left -= 1.0

    def _refill(self, now: float) -> None:
        self._left = min(self._burst, self._left + max(0.0, now - self._then) * self.rate)
        self._then = max(self._then, now)


@dataclass(frozen=True, slots=True)
class Change:
    """Why a picture is a keyframe, and what of it differs from the last one.

    `reason`: "first", "scene" (much is new), "text" (little is new, and it stands still), "motion" (much moves, and goes on),
    "interval" (little moves, and goes on) or "question" (somebody asks, and something is new).
    """

    reason: str
    changed: Region = WHOLE


class Sampler:
    """Chooses keyframes among thumbnails that come a few times a second.

    Args:
        settings: shortest and longest interval in seconds, and the share of the picture that makes a scene.
        session: the session's own budget; its clock is the session's.
        everyone: the budget of all sessions; its clock is the arrival of packets. The first picture of a session is never refused.

    `speaking`: set while somebody speaks. Then, and for some seconds after a question, both intervals are halved.
    """

    def __init__(
        self, settings: Settings, session: Budget | None = None, everyone: Budget | None = None
    ) -> None:
        self.speaking = False
        self._settings, self._session, self._everyone = settings, session, everyone
        self._asked: float | None = None  # until when a question counts; inf: nobody has looked since it came
        self._key: Gray | None = None  # the last keyframe, as far as a pointer has not moved in it
        self._last: Gray | None = None  # the last picture
        self._fired = 0.0  # session seconds of the last keyframe
        self._moved: NDArray[np.float64] = np.zeros(
            (0, 0)
        )  # per window, session seconds of its last movement
        self._leapt: NDArray[np.float64] = np.zeros(
            (0, 0)
        )  # ... and of its last large one, which noise is not
        self._restless: Cells = np.zeros((0, 0), np.float32)  # per window, how often it moved lately
        self._pending: float | None = None  # since when the picture has been another scene
        self._pace = 0.0  # seconds between looks at a picture that never stands still
        self._lively = 0.0  # share of the last probes in which something large moved, a video in a page aside
        self._usual: deque[float] = deque(maxlen=15)  # movement of the last pictures, mean gray levels

    def ask(self) -> None:
        """Somebody asks: look at the next picture if anything is new in it, and more often for a while."""
        self._asked = float("inf")

    @property
    def owes(self) -> bool:
        """Whether somebody has asked since the last picture that was compared."""
        return self._asked == float("inf")

    def look(self, gray: Gray, at: float, arrived: float = 0.0) -> Change | None:
        """Decide on one picture, shape (h, w), of session second `at` that came at monotonic second `arrived`; None: nothing new."""
        if self._key is None or self._last is None or gray.shape != self._key.shape:
            first = self._key is None
            change: Change | None = Change("first" if first else "scene")
        else:
            first, change = False, self._compared(self._key, self._last, gray, at)
        self._last = gray
        budgets = [
            (budget, now)
            for budget, now in ((self._session, at), (self._everyone, arrived))
            if budget is not None
        ]
        if change is None or not (first or all(budget.has(now) for budget, now in budgets)):
            return None
        for budget, now in budgets:
            budget.spend(now)
        if self._key is None or self._key.shape != gray.shape:
            self._moved = np.full(windows(gray).shape, -1.0)
            self._leapt = self._moved.copy()
            self._restless = np.zeros(self._moved.shape, np.float32)
        self._key, self._fired, self._pending = gray, at, None
        self._asked = at + ASKED if self._asked == float("inf") else self._asked
        return change

    def _compared(self, key: Gray, last: Gray, gray: Gray, at: float) -> Change | None:
        moved = difference(gray, last)
        jitter = float(
            np.median(moved[::3, ::3])
        )  # of the camera and the coding; a whole picture that moves has none to tell
        moves = moved > max(MOVING, NOISE * jitter if jitter < MOVING else 0.0)
        self._moved[moves] = at
        self._leapt[moved > max(CHANGED, NOISE * jitter)] = at
        motion = float(moved.mean())
        cut = motion > 2.0 and motion > CUT * (float(np.median(self._usual)) if self._usual else 0.0)
        self._usual.append(motion)
        if cut and motion > 10:
            self._restless[:] = 0.0
        self._restless += np.where(moves, RISE * (1 - self._restless), -FALL * self._restless)
        calm = self._restless < RESTLESS
        lively = float((moves & calm).mean()) > LIVELY or float(moves.mean()) > 0.5
        self._lively += RISE * (lively - self._lively)
        apart = difference(gray, key)
        mask = apart > max(CHANGED, NOISE * jitter if jitter < MOVING else 0.0)
        return self._decided(gray, at, mask, moves, cut)

    def _decided(self, gray: Gray, at: float, mask: Mask, moves: Mask, cut: bool) -> Change | None:
        attentive = self.speaking or (self._asked is not None and at < self._asked)
        shortest, longest = (
            value / (2 if attentive else 1)
            for value in (self._settings.min_interval, self._settings.max_interval)
        )
        since = at - self._fired
        if since < shortest:
            if cut:
                self._pending, self._pace = at, 0.0
            return None
        if self._asked == float("inf"):
            if mask.any():
                return Change("question", region(mask))
            self._asked = at + ASKED
        calm = mask & (self._restless < RESTLESS)
        if self._lively < 0.5 or (self._lively < 0.7 and float(moves.mean()) < QUIET):
            self._pace = 0.0
        large = float(calm.mean()) >= self._settings.scene_threshold
        if large and since >= self._pace and float((calm & ~moves).sum()) > 0.7 * float(calm.sum()):
            self._pace = min(longest / 2, max(1.0, 2 * self._pace))
            return Change("scene", region(mask))
        inset = (
            float((self._restless >= RESTLESS).mean()) < INSET
        )  # a video within a page, if there is one, and not the page
        if float((calm if inset else mask).mean()) >= self._settings.scene_threshold:
            if self._pending is None or cut:
                self._pending = at if self._pending is None else self._pending
                self._pace = 0.0 if cut else self._pace
            if at - self._pending >= SETTLE and since >= self._pace:
                self._pace = min(longest / 2, max(1.0, 2 * self._pace))
                return Change("motion", region(mask))
            return None
        self._pending = None
        rest = calm & (at - self._moved >= REST)
        if since >= self._pace and rest.any() and (change := self._small(gray, at, calm, rest)):
            self._pace = min(longest / 2, max(1.0, 2 * self._pace))
            return change
        if since >= longest and float(mask.mean()) >= ALIVE:
            return Change("interval", region(mask))
        return None

    def _small(self, gray: Gray, at: float, calm: Mask, rest: Mask) -> Change | None:
        """Tell changes that stand still from a pointer that rests; where it rests is taken into the keyframe, silently."""
        video = surroundings(self._restless >= RESTLESS)
        fired = np.zeros_like(calm)
        for box in parts(calm & ~video):
            part, still = calm[box] & ~video[box], rest[box] & ~video[box]
            if still.sum() * 2 < part.sum():
                continue
            if max(part.shape) > POINTER or not (elsewhere := self._elsewhere(box, video)):
                fired[box] |= still
            elif not self._replaced(gray, box):
                self._absorb(gray, box)
            elif elsewhere > self._moved[box].max() + SETTLE or at - self._moved[box].max() >= LINGER:
                fired[box] |= (
                    still  # the pointer is there and not here, or may be here for long: ink has changed to other ink
                )
        return Change("text", region(fired)) if fired.any() else None

    def _elsewhere(self, box: tuple[slice, slice], video: Mask) -> float | None:
        """When something else that is small leapt last, if it did when this moved: a pointer came from there, or has gone there."""
        others = self._leapt.copy()
        others[video] = others[tuple(slice(max(0, side.start - 3), side.stop + 3) for side in box)] = -1.0
        together = np.abs(others - self._moved[box].max()) <= PASSING
        return float(others.max()) if np.count_nonzero(together) >= LEAST else None

    def _replaced(self, gray: Gray, box: tuple[slice, slice]) -> bool:
        """Whether there was ink before, and is now."""
        assert self._key is not None
        pixels = tuple(slice(side.start * STEP, (side.stop + 1) * STEP) for side in box)
        return bool(min(self._key[pixels].std(), gray[pixels].std()) > FLAT)

    def _absorb(self, gray: Gray, box: tuple[slice, slice]) -> None:
        assert self._key is not None
        self._key = self._key.copy()
        pixels = tuple(slice(side.start * STEP, (side.stop + 1) * STEP) for side in box)
        self._key[pixels] = gray[pixels]


def windows(gray: Gray) -> Cells:
    """Means of windows of 2 STEP x 2 STEP pixels that begin every STEP pixels, shape (h // STEP - 1, w // STEP - 1)."""
    rows, columns = gray.shape[0] // STEP, gray.shape[1] // STEP
    cut = gray[: rows * STEP, : columns * STEP]
    down = np.add(cut[0::2], cut[1::2], dtype=np.uint16)  # 16 pixels of 255 fit
    cells = down[:, 0::2] + down[:, 1::2]
    down = cells[:-1] + cells[1:]
    means: Cells = (down[:, :-1] + down[:, 1:]) * np.float32(1 / (2 * STEP) ** 2)
    return means


def difference(gray: Gray, other: Gray) -> Cells:
    """Mean absolute difference per window, less what the exposure of a camera does to all of the picture."""
    gain, shift = exposure(sparse(other), sparse(gray))
    grays = np.clip(np.arange(256) * gain + shift, 0, 255).astype(np.uint8)  # what each gray level has become
    expected = grays[other]
    return windows(np.maximum(gray, expected) - np.minimum(gray, expected))


def sparse(gray: Gray) -> Cells:
    """Means of some windows all over the picture: enough to know its light."""
    every = 4 * STEP
    rows, columns = gray.shape[0] // every, gray.shape[1] // every
    corners = gray[: rows * every, : columns * every].reshape(rows, every, columns, every)[:, :4, :, :4]
    means: Cells = corners.mean(axis=(1, 3), dtype=np.float32)
    return means


def exposure(before: Cells, after: Cells) -> tuple[float, float]:
    """Gain and shift in gray levels that explain most windows; (1, 0) where none within GAIN and SHIFT does."""
    gain = min(max(float(after.std()) / max(1.0, float(before.std())), 1 / GAIN), GAIN)
    shift = float(np.median(after - before * gain))
    for _ in range(2):
        off = np.abs(after - before * gain - shift)
        fits = off <= 2 * np.median(off) + 2
        x, y = before[fits], after[fits]
        spread = float(x.var())
        gain = float(((x - x.mean()) * (y - y.mean())).mean()) / spread if spread > 25 else 1.0
        if not 1 / GAIN <= gain <= GAIN:
            gain = 1.0
        shift = float(y.mean() - gain * x.mean())
    return (gain, shift) if abs(shift) <= SHIFT else (1.0, 0.0)


def surroundings(mask: Mask) -> Mask:
    """Where a mask is dense, and PATCH windows around: a video, and no caret."""
    rows, columns = -(-mask.shape[0] // PATCH), -(-mask.shape[1] // PATCH)
    whole = np.zeros((rows * PATCH, columns * PATCH), np.bool_)
    whole[: mask.shape[0], : mask.shape[1]] = mask
    dense = np.zeros((rows + 2, columns + 2), np.bool_)
    dense[1:-1, 1:-1] = whole.reshape(rows, PATCH, columns, PATCH).mean(axis=(1, 3)) > 0.6
    dense[1:-1] |= dense[:-2] | dense[2:]
    dense[:, 1:-1] |= dense[:, :-2] | dense[:, 2:]
    return dense[1:-1, 1:-1].repeat(PATCH, axis=0).repeat(PATCH, axis=1)[: mask.shape[0], : mask.shape[1]]


def parts(mask: Mask) -> Iterator[tuple[slice, slice]]:
    """The boxes, tight, of what lies together in a mask."""
    ys, xs = np.nonzero(mask)
    places = set(zip((ys // PATCH).tolist(), (xs // PATCH).tolist(), strict=True))
    while places:
        waiting = [places.pop()]
        top, left = waiting[0]
        bottom, right = top, left
        while waiting:
            y, x = waiting.pop()
            top, bottom, left, right = min(top, y), max(bottom, y), min(left, x), max(right, x)
            near = {(y + down, x + over) for down in (-1, 0, 1) for over in (-1, 0, 1)} & places
            places -= near
            waiting += near
        inside = mask[top * PATCH : (bottom + 1) * PATCH, left * PATCH : (right + 1) * PATCH]
        down, over = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        yield (
            slice(top * PATCH + int(down[0]), top * PATCH + int(down[-1]) + 1),
            slice(left * PATCH + int(over[0]), left * PATCH + int(over[-1]) + 1),
        )


def region(mask: Mask) -> Region:
    """The box around all marked windows, with two windows of margin, as fractions; everything where nothing is marked."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return WHOLE
    height, width = mask.shape[0] + 1, mask.shape[1] + 1
    top, bottom = max(0, int(rows[0]) - 2), min(height, int(rows[-1]) + 4)
    left, right = max(0, int(columns[0]) - 2), min(width, int(columns[-1]) + 4)
    return (left / width, top / height, (right - left) / width, (bottom - top) / height)
