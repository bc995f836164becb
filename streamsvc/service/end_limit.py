"""The time that a task has from being told to end until it is cancelled."""

from __future__ import annotations

import asyncio

import structlog

log = structlog.get_logger()


class EndLimit:
    """Cancels a task that does not end in time, whatever it waits for.

    Args:
        session: for the log.
    """

    def __init__(self, session: str) -> None:
        self._session = session
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._over = False

    def begin(self) -> None:
        """The task that calls this is the one to be cancelled."""
        self._task = asyncio.current_task()

    def start(self, seconds: float) -> None:
        """Cancel the task after so many seconds. The first call holds; after `stop` none does."""
        if self._timer is None and not self._over:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._cancel, seconds)

    def _cancel(self, seconds: float) -> None:
        if self._task is not None:
            log.warning("session given up", session=self._session, seconds=seconds)
            self._task.cancel()

    def stop(self) -> None:
        """The task ends by itself."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
