"""Counts of what a publisher sends, by track: frames, bytes, rate, gaps and the age of the last one."""

from __future__ import annotations

from collections import deque
from typing import Any

from streamsvc.core.types import EncodedFrame, MediaTrack

_RATE_SECONDS = 5  # behind a rate; the second under way is left out


class TrackStats:
    """Counts the encoded frames of one track, before anything is decoded or dropped."""

    def __init__(self, track: MediaTrack) -> None:
        self._track = track
        self._frames = 0
        self._bytes = 0
        self._keyframes = 0
        self._gaps = 0
        self._gap_seconds = 0.0
        self._last: EncodedFrame | None = None
        self._first_arrived = 0.0  # monotonic seconds
        # Of the last whole seconds and the one under way: monotonic second, frames, bytes.
        self._seconds: deque[tuple[int, int, int]] = deque(maxlen=_RATE_SECONDS + 1)

    def count(self, frame: EncodedFrame) -> None:
        """Count a frame. Non-blocking."""
        size = len(frame.payload)
        if self._last is None:
            self._first_arrived = frame.arrived
        self._last = frame
        self._frames += 1
        self._bytes += size
        self._keyframes += frame.keyframe
        if frame.gap > 0:
            self._gaps += 1
            self._gap_seconds += frame.gap
        second = int(frame.arrived)
        if self._seconds and self._seconds[-1][0] == second:
            _, frames, before = self._seconds[-1]
            self._seconds[-1] = (second, frames + 1, before + size)
        else:
            self._seconds.append((second, 1, size))

    def body(self, now: float, dropped: int) -> dict[str, Any]:
        """The counts at monotonic second `now`; rates are of the last whole seconds.

        Args:
            now: monotonic seconds.
            dropped: frames that came in and were dropped undecoded.
        """
        body: dict[str, Any] = {
            "codec": self._track.codec,
            "frames": self._frames,
            "bytes": self._bytes,
            "gaps": self._gaps,
            "gap_seconds": round(self._gap_seconds, 3),
            "dropped": dropped,
            **self._rates(now),
        }
        if self._track.kind == "video":
            body["keyframes"] = self._keyframes
        if self._last is not None:
            body["at"] = round(self._last.at, 3)
            body["last_packet_age_seconds"] = round(max(0.0, now - self._last.arrived), 3)
        return body

    def _rates(self, now: float) -> dict[str, float]:
        end = int(now)
        start = max(end - _RATE_SECONDS, self._first_arrived)
        whole = [row for row in self._seconds if end - _RATE_SECONDS <= row[0] < end]
        seconds = end - start
        if seconds < 1:  # too new: what came so far, as if it were a second
            whole, seconds = list(self._seconds), 1.0
        return {
            "frames_per_second": round(sum(row[1] for row in whole) / seconds, 1),
            "kbit_per_second": round(sum(row[2] for row in whole) * 8 / 1000 / seconds, 1),
        }
