"""What a token has started goes on without a request, and ends with the token all the same.

Publications, caption pushes and the webhooks of watches. Requests, sockets and streams: `token_lifetime`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from streamsvc.core import clock
from streamsvc.core.errors import Unauthorized
from streamsvc.core.types import Grants

SECONDS = 5.0  # between two sweeps


@dataclass(frozen=True, slots=True)
class _Started:
    grants: Grants
    goes_on: Callable[[], bool]
    stop: Callable[[Unauthorized], object]


class StartedBy:
    """What goes on of what tokens have started.

    Args:
        over: why grants are valid no longer; None: they are.
    """

    def __init__(self, over: Callable[[Grants], Unauthorized | None]) -> None:
        self._over = over
        self._started: list[_Started] = []

    def add(
        self, grants: Grants, goes_on: Callable[[], bool], stop: Callable[[Unauthorized], object]
    ) -> None:
        """Call `stop` with the reason once `grants` are over, if it goes on then."""
        if grants.expires is not None:  # others can neither expire nor be revoked
            self._started.append(_Started(grants, goes_on, stop))

    async def run(self) -> None:
        """Sweep from time to time, until cancelled."""
        while True:
            await clock.sleep(SECONDS)
            self.sweep()

    def sweep(self) -> None:
        """Forget what has ended, and stop what was started by a token that is valid no longer."""
        started, self._started = self._started, []
        for one in started:
            if not one.goes_on():
                continue
            if (why := self._over(one.grants)) is not None:
                one.stop(why)
            else:
                self._started.append(one)
