"""Load controller: keeps the latency budget of one process by degradation and admission control.

One level applies to all sessions, since they share the machine. Sessions that are not real time (a file
read as fast as possible) are left out: they are late by design, and what they publish must not depend on
the machine.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Protocol

import psutil

from streamsvc.core import clock, degradation, metrics
from streamsvc.core.config import Budget
from streamsvc.core.errors import CapacityError
from streamsvc.service import load_policy
from streamsvc.service.load_policy import Load, LoadState

TICK = 0.5  # seconds between measurements of the load
CPU_INTERVAL = 5.0  # seconds between measurements of the CPU time of our processes
WARMUP = 10.0  # seconds after which the CPU time of a session is representative


class LoadSource(Protocol):
    """What the load controller needs of a session."""

    def load(self, now: float) -> Load:
        """The waits of the session at monotonic second `now`, without `cpu`."""
        ...

    def apply_level(self, level: int, reason: str) -> None:
        """Apply degradation `level`. Called every tick; idempotent."""
        ...


class LoadController:
    """Measures the load, decides the level, applies it to the sessions, and admits new ones.

    Args:
        sessions: the live real-time sessions, each with the monotonic second at which it began.
        ready: whether the worker "hear", "see" or "think" is up. The wait for one that is starting is not
            counted, since no level shortens it.
        settings: whether levels change (`ladder`), and whether sessions may be rejected (`admission`).
    """

    def __init__(
        self,
        sessions: Callable[[], Sequence[tuple[LoadSource, float]]],
        ready: Callable[[str], bool],
        settings: Budget,
    ) -> None:
        self.state = LoadState()
        self.cpu = 0.0  # share of all cores that our processes use, smoothed; 0 to 1
        self._sessions = sessions
        self._ready = ready
        self._settings = settings
        self._forced: int | None = None
        self._cpu_measured_at = clock.now()
        self._cpu_seconds = _cpu_seconds()
        psutil.cpu_percent()  # the first call only starts its interval

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            await clock.sleep(TICK)
            self.tick(psutil.cpu_percent() / 100)

    def tick(self, machine_cpu: float) -> None:
        """Measure the load and apply the level that follows from it.

        Args:
            machine_cpu: share of all cores in use since the last tick, by any process; 0 to 1.
        """
        now = clock.now()
        self._measure_cpu(now)
        sessions = [session for session, _ in self._sessions()]
        loads = [session.load(now) for session in sessions]
        metrics.asr_backlog.set(sum(load.backlog for load in loads))
        if self._settings.ladder and self._forced is None:
            self.state = load_policy.step(self.state, self._worst(loads, machine_cpu), now)
        metrics.degradation_level.set(self.state.level)
        for session in sessions:
            session.apply_level(self.state.level, self.state.reason)

    def _measure_cpu(self, now: float) -> None:
        elapsed = now - self._cpu_measured_at
        if elapsed < CPU_INTERVAL:
            return
        seconds = _cpu_seconds()
        share = (seconds - self._cpu_seconds) / elapsed / (os.cpu_count() or 1)
        self.cpu = (self.cpu + max(0.0, share)) / 2
        self._cpu_measured_at = now
        self._cpu_seconds = seconds

    def _worst(self, loads: Sequence[Load], machine_cpu: float) -> Load:
        """The longest wait of all sessions per role; 0 for a worker that is not up."""
        backlog, see_wait, think_wait = (
            max(waits, default=0.0) if self._ready(worker) else 0.0
            for worker, waits in (
                ("hear", [load.backlog for load in loads]),
                ("see", [load.see_wait for load in loads]),
                ("think", [load.think_wait for load in loads]),
            )
        )
        return Load(backlog, see_wait, think_wait, machine_cpu)

    def force(self, level: int | None) -> None:
        """Hold a level, to measure its effect. None: follow the load again, from the level held.

        Raises:
            ValueError: no such level.
        """
        if level is not None:
            degradation.fidelity(level)
            self.state = LoadState(level, "forced" if level else "")
        self._forced = level

    def admit(self) -> None:
        """Admit one more session. Raises CapacityError where it would make the live ones late."""
        now = clock.now()
        warm = sum(now - began >= WARMUP for _, began in self._sessions())
        if self._settings.admission and not load_policy.admits(self.state, self.cpu, warm):
            metrics.sessions_rejected.labels("budget").inc()
            reason = f"; {self.state.reason}" if self.state.level else ""
            raise CapacityError(
                f"one more session would make the captions of the others late{reason}; try again later",
                retry_after=10.0,
            )


def _cpu_seconds() -> float:
    """CPU seconds of this process and its living children so far."""
    total = 0.0
    with contextlib.suppress(psutil.Error):
        own = psutil.Process()
        for process in [own, *own.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
    return total
