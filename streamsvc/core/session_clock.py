"""The time of one session: the one owner of its zero, from which all session seconds count."""

from __future__ import annotations

from datetime import datetime, timedelta

from streamsvc.core import clock


class SessionClock:
    """Maps monotonic time to session seconds.

    `started_utc`: wall-clock time of the session's creation. `zero`: monotonic seconds (`clock.now()`) of
    session second 0. `media_paced`: see `restart`.
    """

    def __init__(self) -> None:
        self.started_utc: datetime = clock.utc()
        self.zero = self._created = clock.now()
        self._newest = 0.0  # session seconds of the newest media
        self.media_paced = False
        self._ended = False

    def restart(self, *, media_paced: bool = False) -> None:
        """Make this instant session second 0, before the first media.

        Args:
            media_paced: media does not come at the speed of time (a file read fast), so the present is its
                newest time.
        """
        self.zero = clock.now()
        self.media_paced = media_paced

    @property
    def zero_utc(self) -> datetime:
        """Wall-clock time of session second 0; of an earlier run's session that of its creation."""
        return self.started_utc + timedelta(seconds=self.zero - self._created)

    def advance(self, at: float) -> None:
        """Note that media of session second `at` has come in."""
        self._newest = max(self._newest, at)

    def end(self) -> None:
        """Stop: from now on the present is the last moment of the media."""
        self._ended = True

    def position(self) -> float:
        """Session seconds of the present."""
        return self._newest if self.media_paced or self._ended else clock.now() - self.zero

    def restore(self, started_utc: datetime, seconds: float) -> None:
        """Stand where a session of an earlier run has ended, `seconds` long."""
        self.started_utc = started_utc
        self.zero = clock.now() - max(seconds, (clock.utc() - started_utc).total_seconds())
        self._created = self.zero
        self._newest = seconds
        self.end()

    def resume(self, started_utc: datetime) -> None:
        """Go on with a session that another node has begun: by the wall clocks, which must agree."""
        self.started_utc = started_utc
        self.zero = clock.now() - max(0.0, (clock.utc() - started_utc).total_seconds())
        self._created = self.zero
