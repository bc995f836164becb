"""Which decoded picture is compared with the last keyframe, and when.

Of a video, some pictures a second are compared. A picture after which none comes for long (a slide, a screen
share, a cover) is shown all the same: it is compared again until everything in it is known.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamsvc.core import clock
from streamsvc.core.errors import SourceError
from streamsvc.core.types import VideoFrame
from streamsvc.vision.keyframes import Change, Sampler

STANDS_SECONDS = 0.6  # without another picture, after which the last one stands; more than STILL_SECONDS
OFTEN_SECONDS = 4.0  # for which a standing picture is compared as often as others
RARELY_SECONDS = 1.0  # between comparisons after that
BACK_SECONDS = 0.3  # by which pictures go back where stamps begin again, and the last part outlasts its sound
LONGEST_SECONDS = 30.0  # for which it is compared: what is refused until then stays unknown


class ProbeTimes:
    """When pictures are compared. Pure; all times are session seconds.

    Args:
        interval: seconds between comparisons, at least.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._next = float("-inf")
        self._shown: float | None = None  # when the present picture came
        self._settled = False  # nothing more is to be found in it

    def show(self, at: float) -> bool:
        """A picture comes at second `at`. Returns whether to compare it now."""
        if self._shown is not None and at < self._shown - BACK_SECONDS:
            self._next = at
        self._shown = at
        self._settled = False
        return at >= self._next

    def compared(self, at: float, *, settled: bool) -> None:
        """The present picture was compared. `settled`: it differs from the last keyframe in nothing."""
        stood = 0.0 if self._shown is None else at - self._shown
        self._next = at + (self._interval if stood < OFTEN_SECONDS else RARELY_SECONDS)
        self._settled = settled

    def due(self) -> float | None:
        """When to compare the present picture again if no other comes; None: never."""
        if self._shown is None or self._settled:
            return None
        due = max(self._next, self._shown + STANDS_SECONDS)
        return due if due <= self._shown + LONGEST_SECONDS else None


@dataclass(frozen=True, slots=True)
class Chosen:
    """A picture that becomes a keyframe.

    `seen`: monotonic second at which it was still shown. `taken`: at which its comparison began.
    """

    frame: VideoFrame
    gray: NDArray[np.uint8]  # the thumbnail, shape (h, w)
    change: Change
    seen: float
    taken: float


class Prober:
    """Compares the pictures of one session with its last keyframe.

    Args:
        sampler: decides.
        interval: seconds between comparisons, at least.
        thumbnail: of a picture.
    """

    def __init__(
        self,
        sampler: Sampler,
        interval: float,
        thumbnail: Callable[[VideoFrame], Awaitable[NDArray[np.uint8]]],
        publish: Callable[[Chosen | None], Awaitable[None]],
    ) -> None:
        self._sampler = sampler
        self._times = ProbeTimes(interval)
        self._thumbnail = thumbnail
        self._publish = publish
        self._frame: VideoFrame | None = None  # the picture that is shown
        self._gray: NDArray[np.uint8] | None = None  # its thumbnail, once it has been compared
        self._compared_at = 0.0  # seconds of the sampler, which never go back
        self._shift = 0.0  # from session seconds to those

    async def show(self, frame: VideoFrame) -> None:
        """Take a decoded picture. The one before was shown until now."""
        await self.pass_time(frame.at)
        if self._frame is not None and frame.at < self._frame.at - BACK_SECONDS:
            self._shift = self._compared_at - frame.at
        self._frame = frame
        self._gray = None
        if self._times.show(frame.at):
            await self._compare(frame, frame.at)

    async def pass_time(self, until: float) -> None:
        """Compare the present picture as often as is due before session second `until`."""
        while (due := self._times.due()) is not None and due < until and self._frame is not None:
            await self._compare(self._frame, due)

    async def stand(self) -> None:
        """Compare the present picture now: no other has come, in a stream that goes on."""
        if self._frame is not None:
            await self._compare(self._frame, self._frame.at + max(0.0, clock.now() - self._frame.arrived))

    def due_at(self) -> float | None:
        """Monotonic second at which to call `stand` if no picture comes before; None: never."""
        due = self._times.due()
        if due is None or self._frame is None:
            return None
        return self._frame.arrived + due - self._frame.at

    def stands(self) -> bool:
        """Whether no picture has come for so long that the last one is what is shown."""
        return self._frame is not None and clock.now() - self._frame.arrived > STANDS_SECONDS - 0.001

    async def _compare(self, frame: VideoFrame, at: float) -> None:
        """Compare a picture that is shown at session second `at`."""
        taken = clock.now()
        change: Change | None = None
        gray = self._gray
        if gray is None:
            try:
                gray = self._gray = await self._thumbnail(frame)
            except SourceError:  # the process that has the picture has failed: its source tells that
                self._times.compared(at, settled=True)
                return
            change = self._sampler.probe(gray, self._sampler_second(frame.at), frame.arrived)
        seen = frame.arrived + at - frame.at
        if change is None and at - frame.at > STANDS_SECONDS - 0.001:  # rounding
            change = self._sampler.hold(self._sampler_second(at), seen)
        self._times.compared(at, settled=not self._sampler.pending)
        await self._publish(None if change is None else Chosen(frame, gray, change, seen, taken))

    def _sampler_second(self, at: float) -> float:
        self._compared_at = max(self._compared_at, at + self._shift)
        return self._compared_at
