"""Tells a video that has stopped, while its publisher lives, from a picture that stands still. Pure.

A screen share sends nothing while nothing changes, and a camera that was taken away sends nothing either.
The first answers a request for a codec keyframe. Where it does, the next request waits longer: keyframes of a
still picture cost a publisher something.
"""

from __future__ import annotations

from typing import Literal

# "ask": request a codec keyframe; "frozen": video has stopped; "thawed": it comes again.
News = Literal["", "ask", "frozen", "thawed"]

ASK_SECONDS = (1.5, 24.0)  # of silence until a keyframe is requested: at first, and at most
AGAIN_SECONDS = 1.0  # between two requests
ANSWER_SECONDS = 2.0  # without video since the first request: it has stopped
FLOWS_SECONDS = 1.0  # since the last packet: video flows
CALM_SECONDS = 10.0  # of video that flows, after which silence is asked about as soon as at first


class FreezeDetector:
    """The detector of one publisher. All times are monotonic seconds.

    Attributes:
        frozen: whether the video has stopped.
    """

    def __init__(self) -> None:
        self.frozen = False
        self._wait = ASK_SECONDS[0]
        self._requests: list[float] = []
        self._flows_since: float | None = None

    def tick(self, now: float, video: float) -> News:
        """Look at the time of the last packet of video; return what to do, or to tell.

        Call it only while the publisher lives, and has sent video.
        """
        if now - video < FLOWS_SECONDS:
            frozen = self.frozen
            self._note_video(now, video)
            return "thawed" if frozen and not self.frozen else ""
        self._flows_since = None
        if self.frozen or now - video < self._wait:
            return ""
        if not self._requests or (len(self._requests) == 1 and now - self._requests[0] >= AGAIN_SECONDS):
            self._requests.append(now)
            return "ask"
        self.frozen = now - self._requests[0] >= ANSWER_SECONDS
        return "frozen" if self.frozen else ""

    def _note_video(self, now: float, video: float) -> None:
        if self._flows_since is None:
            self._flows_since = now
        if self._requests and video >= self._requests[0]:
            self._wait = min(2 * self._wait, ASK_SECONDS[1])
            self._requests.clear()
            self.frozen = False
        if now - self._flows_since >= CALM_SECONDS:
            self._wait = ASK_SECONDS[0]
