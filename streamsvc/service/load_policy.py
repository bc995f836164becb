"""Degradation and admission decisions: load in, level or verdict out. Pure.

The level follows the load with hysteresis: up above a high watermark, down after enough time below a low one,
with exponential backoff where a lower level has failed. All times are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf

from streamsvc.core.degradation import MAX_LEVEL

RECOVERY = 10.0  # seconds of calm before the level is lowered
MAX_RECOVERY = 320.0  # seconds; upper bound of the backoff
PROBATION = 60.0  # seconds after which a lowered level has held
SETTLING = 2.0  # seconds between two rises, so that the first can take effect
URGENT_SETTLING = 1.0  # seconds; where a wait is twice its limit


@dataclass(frozen=True, slots=True)
class Load:
    """Load of all sessions since the last decision; 0 where nothing is measured."""

    backlog: float = 0.0  # seconds of audio not recognised yet, in the session with most
    see_wait: float = 0.0  # seconds since the arrival of the keyframe that is being looked at
    think_wait: float = 0.0  # age of the oldest queued question, in seconds
    cpu: float = 0.0  # share of all cores, 0 to 1


@dataclass(frozen=True, slots=True)
class Limit:
    """Watermarks of one wait. Levels beyond `max_level` would not shorten it."""

    high: float  # seconds; above: overload
    low: float  # seconds; at or below: calm
    max_level: int
    reason: str


# Field of Load -> its limit. The first one exceeded gives the reason. Each wait raises the level only as
# far as that relieves it: slow vision must not cost captions. CPU load alone raises nothing, since a busy
# machine need not be late, but it blocks lowering. The age of stable words is no measure of overload: most
# of it is the wait for agreement, and the longer decoding steps of level 1 increase it.
LIMITS: Mapping[str, Limit] = {
    "backlog": Limit(0.8, 0.4, MAX_LEVEL, "speech recognition is behind"),
    "see_wait": Limit(2.0, 0.8, 4, "vision is behind"),
    "think_wait": Limit(1.5, 0.6, 6, "questions are waiting"),
}
MAX_CPU_TO_LOWER = 0.9  # share of all cores
MAX_CPU_TO_ADMIT = 0.95  # share of all cores, the new session included


@dataclass(frozen=True, slots=True)
class LoadState:
    """Degradation level of the process, and what its next change depends on."""

    level: int = 0
    reason: str = ""  # empty at level 0 only
    raised_at: float = -inf
    calm_since: float | None = None  # None: not calm
    lowered_at: float = -inf  # -inf: raised since
    failed_level: int = -1  # the level that last was overloaded within PROBATION; -1: none
    backoff: float = RECOVERY  # seconds of calm before `failed_level` is tried again


def step(state: LoadState, load: Load, now: float) -> LoadState:
    """The state after one measurement: a level up on overload, a level down after enough calm.

    A level that is overloaded within PROBATION of being lowered to is tried again after twice the calm, up
    to MAX_RECOVERY; once it has held for PROBATION, the backoff is reset. So a steady load between two
    levels costs one attempt in about five minutes, and a load that has gone costs one wait.
    """
    if state.level <= state.failed_level and PROBATION <= now - state.lowered_at < inf:
        state = replace(state, failed_level=-1, backoff=RECOVERY)
    waits = {name: getattr(load, name) for name in LIMITS}
    overload = {name: wait / LIMITS[name].high for name, wait in waits.items() if wait > LIMITS[name].high}
    relievable = [name for name in overload if state.level < LIMITS[name].max_level]
    urgent = any(overload[name] >= 2 for name in relievable)
    if relievable and now - state.raised_at >= (URGENT_SETTLING if urgent else SETTLING):
        return _raised(state, LIMITS[relievable[0]].reason, now)
    if load.cpu > MAX_CPU_TO_LOWER or any(wait > LIMITS[name].low for name, wait in waits.items()):
        return replace(state, calm_since=None)
    return _calm(state, now)


def _raised(state: LoadState, reason: str, now: float) -> LoadState:
    raised = replace(
        state, level=state.level + 1, reason=reason, raised_at=now, calm_since=None, lowered_at=-inf
    )
    if now - state.lowered_at < PROBATION:
        return replace(raised, failed_level=state.level, backoff=min(MAX_RECOVERY, 2 * state.backoff))
    return raised


def _calm(state: LoadState, now: float) -> LoadState:
    """The state after one more calm measurement: lowered by one level once the calm has lasted."""
    since = now if state.calm_since is None else state.calm_since
    level = state.level - 1
    needed = state.backoff if level <= state.failed_level else RECOVERY
    if state.level == 0 or now - since < needed:
        return replace(state, calm_since=since)
    return replace(state, level=level, reason=state.reason if level else "", calm_since=now, lowered_at=now)


def admits(state: LoadState, cpu: float, live: int) -> bool:
    """Whether one more session of average cost keeps the live ones in time. The first is always admitted.

    Args:
        state: no session is admitted above level 0.
        cpu: share of all cores that this service uses, 0 to 1.
        live: sessions behind that share.
    """
    return live == 0 or (state.level == 0 and cpu + cpu / live <= MAX_CPU_TO_ADMIT)
