"""Load controller: keeps the latency budget of one process by degradation and admission control.

Judged by what waits in our own sessions and our event loop, and by the CPU seconds of our own work. Idle-
class work (what runs under `core.idle_gate`) is left out: it waits for nobody, and stops where somebody asks.

One level applies to all sessions, since they share the machine. Sessions that are not real time (a file
read as fast as possible) are left out: they are late by design, and what they publish must not depend on
the machine.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Protocol

import structlog

from streamsvc.core import clock, degradation, metrics
from streamsvc.core.config import Budget, Settings
from streamsvc.core.degradation import ALL_LEVELS, WorkRate
from streamsvc.core.errors import CapacityError
from streamsvc.service import capacity, load_policy
from streamsvc.service.capacity import Cost, Estimate, Kind, Room
from streamsvc.service.engine_table import engines_of, machine_cores
from streamsvc.service.load_policy import Load, LoadState
from streamsvc.service.loop_lag import LoopLag

log = structlog.get_logger()
OUTAGE_TICK = 0.1  # seconds between looks at the workers
TICK = 0.5  # seconds between measurements of the load
COST_INTERVAL = 2.0  # seconds between measurements of this process's CPU time, as the workers'
WARMUP = 10.0  # seconds after which the cost of a session is representative


def levels_of(settings: Settings) -> tuple[int, ...]:
    """The degradation levels that save something with these settings.

    An endpoint reads nothing along, and captions of scenes by a model are off unless they are asked for.
    """
    own = "sight" in engines_of(settings)  # it reads pictures along, captions or not
    return degradation.levels_in_use(
        screen_text=settings.see.ocr,
        sight=own or settings.think.scenes,
        reading=settings.models.profile != "remote" and settings.think.model != "none",
    )


class LoadSource(Protocol):
    """What the load controller needs of a session."""

    @property
    def live_video(self) -> bool:
        """Whether it looks at pictures now."""
        ...

    def load(self, now: float) -> Load:
        """What waits in the session at monotonic second `now`."""
        ...

    def apply_level(self, level: int, reason: str) -> None:
        """Apply degradation `level`. Called every tick; idempotent."""
        ...

    def tell_outage(self, reason: str) -> None:
        """Tell an outage, as of OUTAGES or FAILOVER; "": all answers. Called often; idempotent."""
        ...


class LoadController:
    """Measures the load, decides the level, applies it to the sessions, and admits new ones.

    Args:
        sessions: the live real-time sessions, each with the monotonic second at which it began.
        ready: whether the worker "hear", "see" or "think" is up. The wait for one that is starting is not
            counted, since no level shortens it.
        settings: whether levels change (`ladder`), and whether sessions may be rejected (`admission`).
        levels: the levels that save something with the settings.
        ended: sessions of which only questions can come: they get the level, and count for nothing.
        others_cost: CPU seconds a second that our other processes spend, but on idle-class work.
    """

    def __init__(
        self,
        sessions: Callable[[], Sequence[tuple[LoadSource, float]]],
        ready: Callable[[str], bool],
        settings: Budget,
        levels: Sequence[int] = ALL_LEVELS,
        ended: Callable[[], Iterable[LoadSource]] = tuple,
        others_cost: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.state = LoadState()
        self.levels = tuple(levels)
        self._sessions = sessions
        self._ended = ended
        self._ready = ready
        self._settings = settings
        self._others_cost = others_cost
        self._forced: int | None = None
        self._own = WorkRate()  # of this process: transport, decoding of publishers, text
        self._loop = WorkRate()  # of the event loop's thread
        self._others = 0.0
        self._estimate = Estimate()
        self.lag = LoopLag()
        self._measured_at = -COST_INTERVAL
        self._logged_level = 0

    async def run(self, silent: Callable[[], Collection[str]] = tuple) -> None:
        """Tick, and tell outages at once, until cancelled.

        Args:
            silent: names of the workers that do not answer at the moment; "redis": the cluster's does not.
        """
        due = clock.now() + TICK
        while True:
            began, computed = clock.now(), time.process_time()
            await clock.sleep(OUTAGE_TICK)
            self.lag.add(clock.now() - began - OUTAGE_TICK, time.process_time() - computed)
            self._tell_outage(silent())
            if clock.now() >= due:
                due = clock.now() + TICK
                self.tick()

    def _tell_outage(self, silent: Collection[str]) -> None:
        """Tell the live sessions which worker does not answer, if one does not, else that failover is off."""
        reason = next((reason for name, reason in load_policy.OUTAGES.items() if name in silent), "")
        reason = reason or (load_policy.FAILOVER if "redis" in silent else "")
        for session, _ in self._sessions():
            session.tell_outage(reason)

    def tick(self) -> None:
        """Measure the load and apply the level that follows from it."""
        now = clock.now()
        if now - self._measured_at >= COST_INTERVAL:
            self._measure(now)
        loads = [(session, session.load(now)) for session, _ in self._sessions()]
        metrics.asr_backlog.set(sum(load.backlog for _, load in loads))
        if self._settings.ladder and self._forced is None:
            if loads:
                worst = self._worst([load for _, load in loads])
                self.state = load_policy.step(self.state, worst, now, self.levels)
            else:
                self.state = LoadState()  # nobody is left to be late
        self._tell_level()
        for session, load in loads:
            session.apply_level(self.state.level, load_policy.reason(self.state, load))
        for session in self._ended():
            session.apply_level(self.state.level, load_policy.reason(self.state, Load()))

    def _measure(self, now: float) -> None:
        """Measure what our work costs, and what a session does, where none has just begun."""
        self._own.add(time.process_time(), now)
        self._loop.add(time.thread_time(), now)
        self._others = self._others_cost()
        self._measured_at = now
        if all(now - began >= WARMUP for _, began in self._sessions()):
            self._estimate = capacity.learnt(self._estimate, self.cost, self._counts())

    def _counts(self, coming: Iterable[Kind] = ()) -> Counter[Kind]:
        return Counter([*(_kind(session.live_video) for session, _ in self._sessions()), *coming])

    def _tell_level(self) -> None:
        """Set the metric, and log a change of level with what it means."""
        metrics.degradation_level.set(self.state.level)
        if self.state.level != self._logged_level:
            told = self.describe()
            log.info(
                "degradation level changed",
                now=told["level"],  # `level` is the severity of a log line
                before=self._logged_level,
                reason=told["reason"] or load_policy.RECOVERED,
                message=told["message"],
            )
            self._logged_level = self.state.level

    def describe(self) -> dict[str, Any]:
        """The level of the process for clients: see `load_policy.described`."""
        reason = load_policy.process_reason(self.state)
        return load_policy.described(self.state.level, reason, self.levels)

    @property
    def cost(self) -> Cost:
        """What our work costs now; idle-class work is left out."""
        return Cost(self._own.value + self._others, self._loop.value)

    def room(self, coming: Iterable[Kind] = ()) -> Room:
        """How many sessions more fit beside the live ones and those that are being answered (`coming`)."""
        counts = self._counts(coming)
        if not self._settings.admission:
            return Room(dict.fromkeys(capacity.KINDS, capacity.UNBOUNDED), "")
        if self.state.level and self._sessions():
            return Room(dict.fromkeys(capacity.KINDS, 0), self.state.cause or "level")
        return capacity.room(self._estimate, self.cost, counts, self.lag.seconds, machine_cores())

    def _worst(self, loads: Sequence[Load]) -> Load:
        """The longest wait of all sessions by kind; 0 for a worker that is not up."""
        backlog, see_wait, think_wait = (
            max(waits, default=0.0) if self._ready(worker) else 0.0
            for worker, waits in (
                ("hear", [load.backlog for load in loads]),
                ("see", [load.see_wait for load in loads]),
                ("think", [load.think_wait for load in loads]),
            )
        )
        return Load(backlog, see_wait, think_wait)

    def force(self, level: int | None) -> None:
        """Hold a level, to measure its effect. None: follow the load again, from the level held.

        Raises:
            ValueError: no such level.
        """
        if level is not None:
            degradation.fidelity(level)
            self.state = LoadState(level)
        self._forced = level

    def admit(self, kind: Kind = "audio_video", coming: Iterable[Kind] = ()) -> None:
        """Admit one more session. Raises CapacityError where it would make the live ones late.

        `coming`: of those that are being answered.
        """
        room = self.room(coming)
        if room.free[kind] < 1:
            metrics.sessions_rejected.labels("budget").inc()
            cause = load_policy.LIMITS[self.state.cause].reason if self.state.cause else ""
            raise CapacityError(
                f"one more session would make the captions of the others late{cause and f'; {cause}'}; "
                "try again later",
                retry_after=10.0,
            )


def _kind(has_video: bool) -> Kind:
    return "audio_video" if has_video else "audio"
