"""Degradation and admission decisions: load in, level or verdict out. Pure.

Load is our own alone: what waits, and what our work costs. Neither the machine's CPU nor idle-class work
(reading along, captions by a VLM) counts, since a busy machine need not be late, and idle work gives way.

The level follows the waits with hysteresis: up above a high watermark, down after enough time below a low
one, with exponential backoff where a lower level has failed. All times are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from streamsvc.core import degradation
from streamsvc.core.degradation import ALL_LEVELS, MAX_LEVEL

RECOVERY = 10.0  # seconds of calm before the level is lowered
MAX_RECOVERY = 320.0  # seconds; upper bound of the backoff
PROBATION = 60.0  # seconds after which a lowered level has held
SETTLING = 2.0  # seconds between two rises, so that the first can take effect
URGENT_SETTLING = 1.0  # seconds; where a wait is twice its limit


@dataclass(frozen=True, slots=True)
class Load:
    """What waits, in one session or at most in any; 0 where nothing is measured."""

    backlog: float = 0.0  # seconds of audio that has come in and is not processed yet
    see_wait: float = 0.0  # seconds since the arrival of the keyframe that is being looked at
    think_wait: float = 0.0  # age of the oldest queued question, in seconds


@dataclass(frozen=True, slots=True)
class Limit:
    """Watermarks of one wait. Levels beyond `max_level` would not shorten it."""

    high: float  # seconds; above: overload
    low: float  # seconds; at or below: calm
    max_level: int
    reason: str
    message: str  # to users: what is late


# Field of Load -> its limit. The first one exceeded is the cause. Each wait raises the level only as far as
# that relieves it: slow vision must not cost captions or questions. The age of stable words is no measure of
# overload: most of it is the wait for agreement, and the longer decoding steps of level 2 increase it. The
# reasons name what waits and no more: sound waits in a film without speech too.
LIMITS: Mapping[str, Limit] = {
    "backlog": Limit(
        0.8, 0.4, MAX_LEVEL, "sound waits to be processed", "captions are late: this machine is busy"
    ),
    "see_wait": Limit(
        2.0, 0.8, 5, "pictures wait to be looked at", "what is seen is told late: this machine is busy"
    ),
    "think_wait": Limit(
        1.5, 0.6, 6, "questions wait to be answered", "answers are late: this machine is busy"
    ),
}
OTHERS = "other sessions keep the models busy"  # the reason told to a session without the wait
RECOVERING = "recovering"  # told with a level that was lowered and is not yet 0
FORCED = "forced"
RECOVERED = "recovered"  # told with level 0
OUTAGES: Mapping[str, str] = {  # worker -> the reason told while it does not answer
    "hear": "speech recognition is being restarted",
    "see": "picture recognition is being restarted",
    "think": "the language model is being restarted",
}
FAILOVER = "failover is off: Redis, which the nodes share, does not answer"  # told as outages are
_MESSAGES: Mapping[str, str] = {  # reason -> what it means to users
    **{limit.reason: limit.message for limit in LIMITS.values()},
    OTHERS: "this machine is busy with other streams",
    RECOVERING: "this machine is less busy: what was reduced comes back step by step",
    FORCED: "the operator of this server holds this level",
}
_IN_FULL = "Nothing is reduced: this machine keeps up."


@dataclass(frozen=True, slots=True)
class LoadState:
    """Degradation level of the process, and what its next change depends on."""

    level: int = 0
    cause: str = ""  # field of Load that last raised the level; empty at level 0, and at a forced level
    raised_at: float = -inf
    calm_since: float | None = None  # None: not calm
    lowered_at: float = -inf  # -inf: raised since
    failed_level: int = -1  # the level that last was overloaded within PROBATION; -1: none
    backoff: float = RECOVERY  # seconds of calm before `failed_level` is tried again


def step(state: LoadState, load: Load, now: float, levels: Sequence[int] = ALL_LEVELS) -> LoadState:
    """The state after one measurement: a level up on overload, a level down after enough calm.

    A level that is overloaded within PROBATION of being lowered to is tried again after twice the calm, up
    to MAX_RECOVERY; once it has held for PROBATION, the backoff is reset. So a steady load between two
    levels costs one attempt in about five minutes, and a load that has gone costs one wait.

    Args:
        state: before.
        load: the longest wait of any session, by kind.
        now: monotonic seconds.
        levels: the levels from 1 on that save something, ascending; others are stepped over.
    """
    if state.level <= state.failed_level and PROBATION <= now - state.lowered_at < inf:
        state = replace(state, failed_level=-1, backoff=RECOVERY)
    waits = {name: getattr(load, name) for name in LIMITS}
    overload = {name: wait / LIMITS[name].high for name, wait in waits.items() if wait > LIMITS[name].high}
    above = next((level for level in levels if level > state.level), MAX_LEVEL + 1)
    relievable = [name for name in overload if above <= LIMITS[name].max_level]
    urgent = any(overload[name] >= 2 for name in relievable)
    if relievable and now - state.raised_at >= (URGENT_SETTLING if urgent else SETTLING):
        return _raised(state, above, relievable[0], now)
    if any(wait > LIMITS[name].low for name, wait in waits.items()):
        return replace(state, calm_since=None)
    below = max((level for level in levels if level < state.level), default=0)
    return _calm(state, below, now)


def _raised(state: LoadState, level: int, cause: str, now: float) -> LoadState:
    raised = replace(state, level=level, cause=cause, raised_at=now, calm_since=None, lowered_at=-inf)
    if now - state.lowered_at < PROBATION:
        return replace(raised, failed_level=state.level, backoff=min(MAX_RECOVERY, 2 * state.backoff))
    return raised


def _calm(state: LoadState, below: int, now: float) -> LoadState:
    """The state after one more calm measurement: lowered to level `below` once the calm has lasted."""
    since = now if state.calm_since is None else state.calm_since
    needed = state.backoff if below <= state.failed_level else RECOVERY
    if state.level == 0 or now - since < needed:
        return replace(state, calm_since=since)
    return replace(state, level=below, cause=state.cause if below else "", calm_since=now, lowered_at=now)


def reason(state: LoadState, load: Load) -> str:
    """Why the level is what it is, as it is true of one session; "" at level 0.

    Args:
        state: of the process.
        load: what waits in the session that is told.
    """
    if state.level == 0:
        return ""
    if not state.cause:
        return FORCED
    if state.lowered_at > -inf:
        return RECOVERING
    limit = LIMITS[state.cause]
    return limit.reason if getattr(load, state.cause) > limit.low else OTHERS


def process_reason(state: LoadState) -> str:
    """Why the level of the process is what it is; "" at level 0."""
    return reason(state, Load(inf, inf, inf))


def described(level: int, reason: str, levels: Sequence[int] = ALL_LEVELS) -> dict[str, Any]:
    """A degradation level for clients: `level`, `reason`, what it has `reduced`, and a `message` of all that.

    Args:
        level: 0 to MAX_LEVEL.
        reason: as of `reason`.
        levels: those in use.
    """
    reduced = degradation.reduced(level, levels)
    message = _IN_FULL
    if reason == FAILOVER:
        kept = "Everything goes on here. Should this node fail now, what was told since then may be lost."
        message = f"{reason[0].upper()}{reason[1:]}. {kept}"
    elif reason in OUTAGES.values():
        message = f"{reason[0].upper()}{reason[1:]}. What comes in meanwhile is kept, and follows late."
    elif level:
        cause = _MESSAGES.get(reason, reason or "this machine is busy")
        goes_on = f"Still working: {degradation.working(level)}."
        message = f"{cause[0].upper()}{cause[1:]}. For now, {'; '.join(reduced)}. {goes_on}"
    return {"level": level, "reason": reason, "message": message, "reduced": reduced}
