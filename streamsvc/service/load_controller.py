"""Keeps the latency budget of one process: looks at all sessions, climbs the ladder of budget.py, and tells them what to spend.

One ladder for all, for they share the machine. Sessions whose source can wait (a file read as fast as possible) neither strain it nor
spend anything: they are late by design, and what comes of them does not depend on the machine.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Protocol

import psutil

from streamsvc.core import clock, degradation, metrics
from streamsvc.core.errors import CapacityError
from streamsvc.service import load_policy
from streamsvc.service.load_policy import Load, LoadState

TICK = 0.5  # seconds between looks at the load
WEIGH = 5.0  # ... at the processor time of this service's processes
SETTLED = 10.0  # seconds that a session must have been live to count with what it costs


class Settings(Protocol):
    """What is read of config.Budget."""

    @property
    def ladder(self) -> bool: ...  # noqa: D102
    @property
    def admission(self) -> bool: ...  # noqa: D102


class LoadSource(Protocol):
    """What is asked of a session."""

    def load(self, now: float) -> Load:
        """What waits in it, at monotonic second `now`; `cpu` is left out."""
        ...

    def apply_level(self, level: int, reason: str) -> None:
        """Live with what a level of the ladder leaves. Told again and again: what is the same is no news."""
        ...


class LoadController:
    """The owner of the ladder.

    Args:
        governed: the live sessions that cannot wait, each with the monotonic second at which it began.
        ready: whether a worker ("hear", "see", "think") is up: what waits for one that is starting is no strain that a level relieves.
        settings: whether the ladder is climbed, and whether anybody is refused.
    """

    def __init__(
        self,
        governed: Callable[[], Sequence[tuple[LoadSource, float]]],
        ready: Callable[[str], bool],
        settings: Settings,
    ) -> None:
        self.ladder = LoadState()
        self.cpu = 0.0  # share of all cores that this service's processes use; 0 to 1
        self._governed, self._ready, self._settings = governed, ready, settings
        self._forced: int | None = None
        self._weighed, self._spent = clock.now(), _spent()
        psutil.cpu_percent()  # the next call tells the share since this one

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await clock.sleep(TICK)
            self.look(psutil.cpu_percent() / 100)

    def look(self, cpu: float) -> None:
        """One look. `cpu`: share of all cores in use since the last one, whoever uses them, 0 to 1."""
        now = clock.now()
        if now - self._weighed >= WEIGH:
            spent = _spent()
            share = (spent - self._spent) / (now - self._weighed) / (os.cpu_count() or 1)
            self.cpu = (self.cpu + max(0.0, share)) / 2
            self._weighed, self._spent = now, spent
        governed = [session for session, _ in self._governed()]
        loads = [session.load(now) for session in governed]
        metrics.asr_backlog.set(sum(load.backlog for load in loads))
        if self._settings.ladder and self._forced is None:
            self.ladder = load_policy.step(self.ladder, self._sum(loads, cpu), now)
        metrics.degradation_level.set(self.ladder.level)
        for session in governed:
            session.apply_level(self.ladder.level, self.ladder.reason)

    def _sum(self, loads: Sequence[Load], cpu: float) -> Load:
        """The worst of all sessions, without what waits for a worker that is not up."""

        def worst(name: str, role: str) -> float:
            return max((getattr(load, name) for load in loads), default=0.0) if self._ready(role) else 0.0

        return Load(worst("backlog", "hear"), worst("see_wait", "see"), worst("think_wait", "think"), cpu)

    def force(self, level: int | None) -> None:
        """Stay at a level, to measure what it saves; None: go on from there by what is observed.

        Raises:
            ValueError: there is no such level.
        """
        if level is not None:
            degradation.fidelity(level)
            self.ladder = LoadState(level, "forced" if level else "")
        self._forced = level

    def admit(self) -> None:
        """Raises CapacityError: one more session would make those that are live late."""
        now = clock.now()
        settled = sum(now - began >= SETTLED for _, began in self._governed())
        if self._settings.admission and not load_policy.admits(self.ladder, self.cpu, settled):
            metrics.sessions_rejected.labels("budget").inc()
            busy = f"; {self.ladder.reason}" if self.ladder.level else ""
            raise CapacityError(
                f"one more session would make the captions of the others late{busy}; try again later",
                retry_after=10.0,
            )


def _spent() -> float:
    """Processor seconds of this process and its children so far, dead ones left out."""
    total = 0.0
    with contextlib.suppress(psutil.Error):
        own = psutil.Process()
        for process in [own, *own.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
    return total
