"""Intra-only decoding: which encoded frames are decoded, and when a codec keyframe is requested. Pure.

A few pictures a second are compared with the last keyframe, yet decoding every picture of a video costs more
than all else of a publisher. A sender that answers PLI is asked for a codec keyframe about once a second, and
only those are decoded. Where keyframes do not come, or cost the sender too much, every frame is decoded.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from statistics import fmean
from typing import Literal

from streamsvc.core.types import EncodedFrame, MediaTrack
from streamsvc.ingest.decode import TrackFrame

Mode = Literal["auto", "full", "keyframes"]

EVERY_SECONDS = 1.0  # between codec keyframes
SLACK_SECONDS = 0.5  # by which a keyframe that comes by itself may be late
ANSWER_SECONDS = 2.0  # without a keyframe since the first of two requests: all frames are decoded
RETRY_SECONDS = 30.0  # after which that is tried again
REGULAR = 3  # keyframes in a row, EVERY_SECONDS apart or less, that came by themselves
JUDGED = 3  # requested keyframes whose mean size is their cost
SURGE = 6.0  # times the usual size of an inter frame: the picture has changed
SURGE_BYTES = 3000  # at least
SURGE_SECONDS = 0.3  # between a keyframe and a request for such a change
USUAL = 0.1  # weight of a frame in the usual size
# Frames since the last keyframe, which are decoded after all where keyframes fail to come:
KEPT_FRAMES = 256
KEPT_BYTES = 4 << 20


class IntraFilter:
    """Chooses the frames of one session that are decoded.

    All times are session seconds (`at`), so that files, replays and senders are treated alike.

    Args:
        mode: "auto"; "full": all frames; "keyframes": codec keyframes alone, however seldom they come.
        kbps: that requested keyframes may cost a sender, in "auto".
        lossless: the source waits for us; then "auto" decodes all frames.

    Attributes:
        alone: whether only codec keyframes are decoded now.
        left_out: frames that were not decoded, so far.
    """

    def __init__(self, mode: Mode = "auto", kbps: float = 300.0, *, lossless: bool = False) -> None:
        self.alone = False
        self.left_out = 0
        self._mode: Mode = "full" if mode == "auto" and lossless else mode
        self._kbps = kbps
        self._kept: deque[TrackFrame] = deque()
        self._kept_bytes = 0
        self._cut = False  # frames were left out of what is kept
        self._begin(None, 0.0)

    def _begin(self, track: MediaTrack | None, at: float) -> None:
        self._track = track
        self._on_request = track is not None and track.keyframes_on_request
        self.alone = self._mode == "keyframes" or (self._mode == "auto" and self._on_request)
        self._keyframe_at: float | None = None
        self._newest = at
        self._full_since = at
        self._regular = 0
        self._requests: list[float] = []  # that no keyframe has answered yet
        self._sizes: deque[int] = deque(maxlen=JUDGED)  # of requested keyframes, in bytes
        self._usual = 0.0  # bytes of an inter frame
        self._forget()

    def note_request(self) -> None:
        """A keyframe has been requested: somebody asks a question."""
        self._requests.append(self._newest)

    def take(self, item: TrackFrame) -> tuple[list[TrackFrame], bool]:
        """What to decode now that a frame has come, and whether to request a keyframe."""
        track, frame = item
        if self._mode == "full":
            return [item], False
        if track is not self._track or frame.at < self._newest - EVERY_SECONDS:  # stamps began again
            self._begin(track, frame.at)
        self._newest = frame.at
        return self._keyframe(item) if frame.keyframe else self._inter(item)

    # --- keyframes ---

    def _keyframe(self, item: TrackFrame) -> tuple[list[TrackFrame], bool]:
        track, frame = item
        between = float("inf") if self._keyframe_at is None else frame.at - self._keyframe_at
        self._keyframe_at = frame.at
        if self._requests:
            self._sizes.append(len(frame.payload))
        else:
            self._regular = self._regular + 1 if between <= EVERY_SECONDS + SLACK_SECONDS / 10 else 0
        answered = bool(self._requests)
        self._requests.clear()
        self._forget()
        if self._mode == "auto":
            self.alone = self._may_be_alone(answered, frame.at)
        if not self.alone:
            return [item], False
        if self._mode == "auto":
            self._keep(item)
        return [(track, replace(frame, alone=True))], False

    def _may_be_alone(self, answered: bool, at: float) -> bool:
        """Whether keyframes alone are decoded from this one on."""
        if self._regular >= REGULAR:
            return True
        if not self._on_request:
            return False
        if self._too_dear() and (self.alone or answered):
            self._go_full(at)
            return False
        return self.alone or answered

    def _too_dear(self) -> bool:
        enough = JUDGED if self.alone else 1  # after a time of full decoding one request tells
        if len(self._sizes) < enough:
            return False
        return fmean(self._sizes) * 8 / 1000 / EVERY_SECONDS > self._kbps

    def _go_full(self, at: float) -> None:
        self.alone = False
        self._full_since = at
        self._regular = 0
        self._sizes.clear()
        self._requests.clear()

    # --- frames that refer to others ---

    def _inter(self, item: TrackFrame) -> tuple[list[TrackFrame], bool]:
        if not self.alone:
            return [item], self._retry(item[1].at)
        request = self._request(item[1])
        if self._mode == "auto" and self._given_up(item[1].at):
            return self._caught_up(item), False
        self.left_out += 1
        if self._mode == "auto":
            self._keep(item)
        return [], request

    def _request(self, frame: EncodedFrame) -> bool:
        """Whether to request a keyframe, while they alone are decoded."""
        size, usual = len(frame.payload), self._usual
        self._usual += USUAL * (size - usual) if usual else size
        if not self._on_request:
            return False
        since = float("inf") if self._keyframe_at is None else frame.at - self._keyframe_at
        due = EVERY_SECONDS + (SLACK_SECONDS if self._regular >= REGULAR else 0.0)
        surge = since >= SURGE_SECONDS and usual > 0 and size > max(SURGE * usual, SURGE_BYTES)
        again = bool(self._requests) and frame.at - self._requests[-1] >= EVERY_SECONDS
        wanted = again if self._requests else since >= due or surge
        if wanted:
            self._requests.append(frame.at)
        return wanted

    def _given_up(self, at: float) -> bool:
        """Whether keyframes have failed to come."""
        if self._on_request:
            return len(self._requests) >= 2 and at - self._requests[0] >= ANSWER_SECONDS
        return self._keyframe_at is None or at - self._keyframe_at > EVERY_SECONDS + SLACK_SECONDS

    def _retry(self, at: float) -> bool:
        """Whether to request a keyframe while all frames are decoded, to see what it costs."""
        if not self._on_request or at - self._full_since < RETRY_SECONDS:
            return False
        if self._requests and at - self._requests[0] >= ANSWER_SECONDS:
            self._go_full(at)
            return False
        if not self._requests or at - self._requests[-1] >= EVERY_SECONDS:
            self._requests.append(at)
            return True
        return False

    # --- what may have to be decoded after all ---

    def _keep(self, item: TrackFrame) -> None:
        self._kept.append(item)
        self._kept_bytes += len(item[1].payload)
        if len(self._kept) > KEPT_FRAMES or self._kept_bytes > KEPT_BYTES:
            self._forget()
            self._cut = True

    def _forget(self) -> None:
        self._kept.clear()
        self._kept_bytes = 0
        self._cut = False

    def _caught_up(self, item: TrackFrame) -> list[TrackFrame]:
        """All frames are decoded from here on: first those since the last keyframe."""
        track, frame = item
        frames = [*self._kept, item]
        if self._cut or self._keyframe_at is None:  # what it refers to is gone
            frames = [(track, replace(frame, gap=max(frame.gap, 0.001)))]
        self._forget()
        self._go_full(frame.at)
        return frames
