"""Keyframe selection: gray thumbnails in, decisions out. Pure.

`Sampler` compares decoded pictures with the last keyframe (not with the last picture, so that slow changes
add up), window by window: one digit of a slide counts; camera noise, exposure, a caret and a mouse pointer do
not. Keyframes are rate-limited by the `TokenBucket`s of the session and of the service.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from streamsvc.vision.frame_difference import (
    WHOLE,
    Cells,
    Gray,
    Mask,
    Region,
    WindowBox,
    components,
    dense_areas,
    difference,
    pixels_of,
    region,
    windows,
)

CHANGE_THRESHOLD = 8.0  # gray levels, mean over a window: more is a change (coding noise stays below 5)
MOTION_THRESHOLD = 4.0  # gray levels between two probes: more is motion
NOISE_FACTOR = 3.0  # times the median difference of windows: the range of camera noise
CUT_FACTOR = 3.0  # times the usual motion: a cut within a moving picture
TRANSITION_SECONDS = 0.4  # after which a transition that goes on is sampled
STILL_SECONDS = 0.55  # for which a small change must stand still: longer than a caret is shown
# Share of recent probes (about two seconds) in which a window moved; from RESTLESS on, a caret or a video.
RESTLESS = 0.45
RESTLESS_RISE = 0.1  # weight of a probe with motion in that share
RESTLESS_FALL = 0.05  # weight of a probe without
# A picture that stood longer before the next one came stood still in all probes that there would have been:
PAUSE_SECONDS = 1.5
PROBE_SECONDS = 0.2  # between probes, usually
# Shares of the picture:
MOTION_AREA = 0.006  # more motion than of pointers and carets; if it lasts, the picture is no page
STILL_AREA = 0.002  # motion of a still picture at most
VIDEO_AREA = 0.5  # of a video within a page at most
INTERVAL_AREA = 0.01  # that must differ for the longest interval to apply
# Pointers:
POINTER_SIZE = 9  # windows; no pointer is wider or higher
POINTER_WINDOWS = 3  # windows that a pointer changes at least
POINTER_MOVE_SECONDS = 1.0  # in which a pointer that stops here was elsewhere
POINTER_REST_SECONDS = 3.0  # after which replaced ink is sampled, pointer or not
INK_DEVIATION = 10.0  # gray levels, standard deviation; below it an area is without ink
QUESTION_SECONDS = 10.0  # after a question with shorter intervals


class SamplerSettings(Protocol):
    """The part of config.Sample that is read."""

    @property
    def min_interval(self) -> float: ...  # noqa: D102
    @property
    def max_interval(self) -> float: ...  # noqa: D102
    @property
    def scene_threshold(self) -> float: ...  # noqa: D102


class TokenBucket:
    """Rate limit of keyframes, with bursts after pauses.

    Rule for full: the keyframe is refused and counted. Its change is not lost while it is shown: the next
    probe differs from the last keyframe as much and tries again. What has disappeared by then is never
    sampled.

    Args:
        rate: keyframes a second; may be changed at any time.
        burst: keyframes at once after a pause.
        refused: called once per refused keyframe.
    """

    def __init__(self, rate: float, burst: int, refused: Callable[[], None] = lambda: None) -> None:
        self.rate = rate
        self._burst = float(burst)
        self._refused = refused
        self._tokens = float(burst)
        self._refilled_at = 0.0  # seconds

    def has_token(self, now: float) -> bool:
        """Whether a keyframe is allowed at second `now` of the callers' clock; counts a refusal."""
        self._refill(now)
        if self._tokens >= 1.0:
            return True
        self._refused()
        return False

    def take(self, now: float) -> None:
        """Take the token of one keyframe at second `now`, even if there is none."""
        self._refill(now)
        self._tokens -= 1.0

    def _refill(self, now: float) -> None:
        elapsed = max(0.0, now - self._refilled_at)
        self._tokens = min(self._burst, self._tokens + elapsed * self.rate)
        self._refilled_at = max(self._refilled_at, now)


@dataclass(frozen=True, slots=True)
class Change:
    """Why a picture is a keyframe, and which part of it differs from the last one.

    Attributes:
        reason: "first", "scene" (a large change), "text" (a small change that stands still), "motion" (a
            large change that goes on), "interval" (a small change that goes on) or "question" (any change,
            after a question).
        changed: the part that differs.
    """

    reason: str
    changed: Region = WHOLE


@dataclass(frozen=True, slots=True)
class _Probe:
    """One picture, compared with the last keyframe and the last picture."""

    gray: Gray
    at: float  # session seconds
    changed: Mask  # since the last keyframe
    moving: Mask  # since the last picture
    cut: bool


class Sampler:
    """Selects keyframes among thumbnails that come a few times a second.

    Args:
        settings: shortest and longest interval in seconds, and the share of the picture that makes a scene.
        session: rate limit of the session, on session seconds.
        everyone: rate limit of all sessions, on the arrival of packets. It never refuses the first picture of
            a session.

    Attributes:
        speaking: may be set at any time. During speech, and for QUESTION_SECONDS after a question, both
            intervals are halved.
        pending: whether the last picture differs from the last keyframe: if it stays, `hold` tells more.
    """

    def __init__(
        self,
        settings: SamplerSettings,
        session: TokenBucket | None = None,
        everyone: TokenBucket | None = None,
    ) -> None:
        self.speaking = False
        self.pending = False
        self._settings = settings
        self._session = session
        self._everyone = everyone
        self._question_until: float | None = (
            None  # session seconds; inf: no picture compared since the question
        )
        self._keyframe: Gray | None = None  # the last keyframe; areas where a pointer rests are updated
        self._last: Gray | None = None  # the last picture
        self._sampled_at = 0.0  # session seconds of the last keyframe
        self._probed_at = 0.0  # session seconds of the last picture
        self._noise = 0.0  # gray levels; range of camera noise in the last picture
        # Per window, session seconds of the last motion, and of the last motion beyond noise:
        self._moved_at: NDArray[np.float64] = np.zeros((0, 0))
        self._changed_at: NDArray[np.float64] = np.zeros((0, 0))
        self._restless: Cells = np.zeros((0, 0), np.float32)  # per window, share of recent probes with motion
        self._transition_since: float | None = None  # session seconds
        self._pace = 0.0  # seconds between keyframes of a picture that never stands still
        self._moving_share = 0.0  # of the last probes in which something large moved, videos in a page aside
        self._motion: deque[float] = deque(maxlen=15)  # of the last pictures, mean gray levels

    def ask(self) -> None:
        """A question was asked: sample the next picture with any change; shorten the intervals."""
        self._question_until = float("inf")

    @property
    def question_pending(self) -> bool:
        """Whether no picture has been compared since the last question."""
        return self._question_until == float("inf")

    def probe(self, gray: Gray, at: float, arrived: float = 0.0) -> Change | None:
        """Decide on one picture; None: no keyframe.

        Args:
            gray: thumbnail, shape (h, w).
            at: session seconds.
            arrived: monotonic seconds.
        """
        if self._keyframe is None:
            change: Change | None = Change("first")
        elif self._last is None or gray.shape != self._keyframe.shape:
            change = Change("scene")
        else:
            change = self._decide(self._compare(self._keyframe, self._last, gray, at))
        self._last = gray
        self._probed_at = at
        return self._sample(change, gray, at, arrived)

    def hold(self, at: float, arrived: float = 0.0) -> Change | None:
        """Decide on the last picture once more: it is still shown at `at`, so nothing in it moves.

        Args:
            at: session seconds.
            arrived: monotonic seconds.
        """
        if self._keyframe is None or self._last is None:
            return None
        if self._last.shape != self._keyframe.shape:
            return self._sample(Change("scene"), self._last, at, arrived)
        changed = difference(self._last, self._keyframe) > max(CHANGE_THRESHOLD, self._noise)
        self.pending = bool(changed.any())
        still = np.zeros_like(changed)
        change = self._decide(_Probe(self._last, at, changed, still, cut=False))
        return self._sample(change, self._last, at, arrived)

    def _sample(self, change: Change | None, gray: Gray, at: float, arrived: float) -> Change | None:
        """Make a picture the keyframe, where there is a reason and the budgets allow it."""
        if change is None:
            return None
        self.pending = not self._allowed(at, arrived, first=self._keyframe is None)
        if self.pending:
            return None
        if self._keyframe is None or self._keyframe.shape != gray.shape:
            self._reset(gray)
        self._keyframe = gray
        self._sampled_at = at
        self._transition_since = None
        if self.question_pending:
            self._question_until = at + QUESTION_SECONDS
        return change

    def _allowed(self, at: float, arrived: float, *, first: bool) -> bool:
        limits = [(self._session, at), (self._everyone, arrived)]
        buckets = [(bucket, now) for bucket, now in limits if bucket is not None]
        if not first and not all(bucket.has_token(now) for bucket, now in buckets):
            return False
        for bucket, now in buckets:
            bucket.take(now)
        return True

    def _reset(self, gray: Gray) -> None:
        shape = windows(gray).shape
        self._moved_at = np.full(shape, -1.0)
        self._changed_at = np.full(shape, -1.0)
        self._restless = np.zeros(shape, np.float32)

    def _compare(self, keyframe: Gray, last: Gray, gray: Gray, at: float) -> _Probe:
        """Compare a picture, and update the statistics of motion."""
        self._pass_pause(at - self._probed_at - PAUSE_SECONDS)
        moved = difference(gray, last)
        jitter = float(np.median(moved[::3, ::3]))  # of the camera and the coding
        noise = NOISE_FACTOR * jitter
        known_noise = noise if jitter < MOTION_THRESHOLD else 0.0  # unknown where the whole picture moves
        moving = moved > max(MOTION_THRESHOLD, known_noise)
        self._moved_at[moving] = at
        self._changed_at[moved > max(CHANGE_THRESHOLD, noise)] = at
        motion = float(moved.mean())
        usual = float(np.median(self._motion)) if self._motion else 0.0
        cut = motion > 2.0 and motion > CUT_FACTOR * usual
        self._motion.append(motion)
        if cut and motion > 10:
            self._restless[:] = 0.0
        rise = RESTLESS_RISE * (1 - self._restless)
        self._restless += np.where(moving, rise, -RESTLESS_FALL * self._restless)
        calm = self._restless < RESTLESS
        large = float((moving & calm).mean()) > MOTION_AREA or float(moving.mean()) > 0.5
        self._moving_share += RESTLESS_RISE * (large - self._moving_share)
        changed = difference(gray, keyframe) > max(CHANGE_THRESHOLD, known_noise)
        self._noise = known_noise
        self.pending = bool(changed.any())
        return _Probe(gray, at, changed, moving, cut)

    def _pass_pause(self, seconds: float) -> None:
        """Count a time without motion, in which no picture came, in the statistics of motion."""
        missed = max(0, round(seconds / PROBE_SECONDS))
        self._restless *= (1 - RESTLESS_FALL) ** missed
        self._moving_share *= (1 - RESTLESS_RISE) ** missed
        self._motion.extend([0.0] * min(missed, self._motion.maxlen or 0))

    def _decide(self, probe: _Probe) -> Change | None:
        attentive = self.speaking or (self._question_until is not None and probe.at < self._question_until)
        factor = 2 if attentive else 1
        longest = self._settings.max_interval / factor
        since = probe.at - self._sampled_at
        if since < self._settings.min_interval / factor:
            if probe.cut:
                self._transition_since = probe.at
                self._pace = 0.0
            return None
        if self.question_pending:
            if probe.changed.any():
                return Change("question", region(probe.changed))
            self._question_until = probe.at + QUESTION_SECONDS
        still = float(probe.moving.mean()) < STILL_AREA
        if self._moving_share < 0.5 or (self._moving_share < 0.7 and still):
            self._pace = 0.0
        change = self._paced_change(probe, since)
        if change is not None:
            self._pace = min(longest / 2, max(1.0, 2 * self._pace))
            return change
        interval = self._transition_since is None and since >= longest
        if interval and float(probe.changed.mean()) >= INTERVAL_AREA:
            return Change("interval", region(probe.changed))
        return None

    def _paced_change(self, probe: _Probe, since: float) -> Change | None:
        """A large change, or a small one that stands still. `since`: seconds from the last keyframe."""
        calm = probe.changed & (self._restless < RESTLESS)
        threshold = self._settings.scene_threshold
        large = float(calm.mean()) >= threshold
        settled = float((calm & ~probe.moving).sum()) > 0.7 * float(calm.sum())
        if large and settled and since >= self._pace:
            return Change("scene", region(probe.changed))
        has_video = float((self._restless >= RESTLESS).mean()) < VIDEO_AREA  # if any, within a page
        if float((calm if has_video else probe.changed).mean()) >= threshold:
            return self._transition(probe, since)
        self._transition_since = None
        resting = calm & (probe.at - self._moved_at >= STILL_SECONDS)
        if since >= self._pace and resting.any():
            return self._text_change(probe, calm, resting)
        return None

    def _transition(self, probe: _Probe, since: float) -> Change | None:
        """A large change that goes on, once it has lasted for TRANSITION_SECONDS."""
        if self._transition_since is None:
            self._transition_since = probe.at
        if probe.cut:
            self._pace = 0.0
        lasted = probe.at - self._transition_since
        if lasted >= TRANSITION_SECONDS and since >= self._pace:
            return Change("motion", region(probe.changed))
        return None

    def _text_change(self, probe: _Probe, calm: Mask, resting: Mask) -> Change | None:
        """Small changes that stand still; pointers that rest become part of the keyframe instead."""
        video = dense_areas(self._restless >= RESTLESS)
        text = np.zeros_like(calm)
        for box in components(calm & ~video):
            part = calm[box] & ~video[box]
            still = resting[box] & ~video[box]
            if still.sum() * 2 < part.sum():
                continue
            elsewhere = None if max(part.shape) > POINTER_SIZE else self._pointer_elsewhere(box, video)
            if not elsewhere:
                text[box] |= still
                continue
            if not self._ink_replaced(probe.gray, box):
                self._absorb(probe.gray, box)
                continue
            moved_at = self._moved_at[box].max()
            if elsewhere > moved_at + TRANSITION_SECONDS or probe.at - moved_at >= POINTER_REST_SECONDS:
                text[box] |= still  # the pointer is elsewhere, or rests for long: other ink is shown
        return Change("text", region(text)) if text.any() else None

    def _pointer_elsewhere(self, box: WindowBox, video: Mask) -> float | None:
        """When a small change elsewhere came last, if it came with this one: a pointer was there."""
        others = self._changed_at.copy()
        around = tuple(slice(max(0, side.start - 3), side.stop + 3) for side in box)
        others[video] = others[around] = -1.0
        simultaneous = np.abs(others - self._moved_at[box].max()) <= POINTER_MOVE_SECONDS
        return float(others.max()) if np.count_nonzero(simultaneous) >= POINTER_WINDOWS else None

    def _ink_replaced(self, gray: Gray, box: WindowBox) -> bool:
        """Whether there was ink before, and is now."""
        assert self._keyframe is not None
        pixels = pixels_of(box)
        return bool(min(self._keyframe[pixels].std(), gray[pixels].std()) > INK_DEVIATION)

    def _absorb(self, gray: Gray, box: WindowBox) -> None:
        """Copy a box of the picture into the keyframe."""
        assert self._keyframe is not None
        self._keyframe = self._keyframe.copy()
        pixels = pixels_of(box)
        self._keyframe[pixels] = gray[pixels]
