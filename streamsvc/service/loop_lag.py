"""How late the event loop runs what is due, as far as our own work makes it late. Pure.

Of a delay only as much counts as this process has computed meanwhile: while other programs have the cores,
the loop is late too, and yet has nothing to do.
"""

from __future__ import annotations

from collections import deque

_SAMPLES = 50  # of `load_controller.OUTAGE_TICK` each: five seconds
_SHARE = 0.9  # of them are at most this late


class LoopLag:
    """Collects how late a timer was. `seconds`: nine in ten of the last samples were at most so late."""

    def __init__(self) -> None:
        self._late: deque[float] = deque(maxlen=_SAMPLES)

    def add(self, late: float, computed: float) -> None:
        """Add one sample.

        Args:
            late: seconds by which a timer was late.
            computed: CPU seconds of this process since it was set.
        """
        self._late.append(max(0.0, min(late, computed)))

    @property
    def seconds(self) -> float:
        """See the class; 0 until the samples are complete."""
        if len(self._late) < _SAMPLES:
            return 0.0
        return sorted(self._late)[int(_SHARE * (_SAMPLES - 1))]
