"""How much longer decoding steps are while the worker has a queue. Pure."""

from __future__ import annotations

WAIT_GOAL = 0.06  # seconds that a decode may wait in the worker's queue
RISE = 0.3  # share of the wait beyond it that is added to the step
FALL = 0.02  # seconds taken off the step by a decode that waited less
LONGER_MAX = 1.2  # seconds


class StepPacer:
    """Steps of one track: longer while its decodes wait for those of other tracks, then shorter again.

    A wait in the queue makes words as late as a longer step does, and spares no work. With longer steps less
    is asked for, the queue is empty, and a decode begins with the newest audio.

    Attributes:
        longer: seconds to add to the step.
    """

    def __init__(self) -> None:
        self.longer = 0.0

    def note(self, waited: float) -> None:
        """Add a decode that waited so many seconds in the worker's queue."""
        change = RISE * (waited - WAIT_GOAL) if waited > WAIT_GOAL else -FALL
        self.longer = min(max(0.0, self.longer + change), LONGER_MAX)
