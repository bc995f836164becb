"""How many sessions more fit, by kind, from what our own work costs and how late our event loop is. Pure.

Two things run out: the cores, and the one core that the event loop's thread can use, however many there are.
The CPU time of other programs is part of neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["audio", "audio_video"]
KINDS: tuple[Kind, ...] = ("audio", "audio_video")
MAX_CPU = 0.95  # of all cores, the new session included
MAX_LOOP = 0.8  # of one core; above it what is due in the event loop waits as long as it takes to run
MAX_LAG = 0.05  # seconds; a caption passes the event loop about ten times on its way
UNBOUNDED = 1_000_000  # sessions that fit where nothing bounds them
# Weights of a measurement every two seconds: half of a rise is followed in five, of a fall in half a minute.
_RISE, _FALL = 0.25, 0.05


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds a second: of all our processes but for idle-class work, and of the event loop's thread."""

    cpu: float = 0.0
    loop: float = 0.0


# One cheap session, until one has been measured here; and how the kinds compare (load_tests/README.md).
PRIOR: Mapping[Kind, Cost] = {"audio": Cost(0.15, 0.03), "audio_video": Cost(0.3, 0.06)}


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a session costs here, as multiples of PRIOR."""

    cpu: float = 1.0
    loop: float = 1.0
    measured: bool = False

    def of(self, counts: Mapping[Kind, int]) -> Cost:
        """The cost of so many sessions of each kind."""
        return Cost(
            self.cpu * sum(PRIOR[kind].cpu * count for kind, count in counts.items()),
            self.loop * sum(PRIOR[kind].loop * count for kind, count in counts.items()),
        )


@dataclass(frozen=True, slots=True)
class Room:
    """Sessions that fit beside the live ones if all of them are of one kind, and what allows no more."""

    free: Mapping[Kind, int]
    bound_by: str  # of those with video: "cpu", "event_loop" or "lag"; "": nothing


def learnt(estimate: Estimate, cost: Cost, counts: Mapping[Kind, int]) -> Estimate:
    """The estimate after one measurement of sessions that have all run for a while.

    It rises soon, though not with one slide that is read, and falls slowly: who is silent will speak again.
    """
    plain = Estimate().of(counts)
    if not plain.cpu:
        return estimate
    now = Estimate(cost.cpu / plain.cpu, cost.loop / plain.loop, measured=True)
    if not estimate.measured:
        return now
    return replace(now, cpu=_followed(estimate.cpu, now.cpu), loop=_followed(estimate.loop, now.loop))


def _followed(before: float, now: float) -> float:
    return before + (_RISE if now > before else _FALL) * (now - before)


def room(estimate: Estimate, cost: Cost, counts: Mapping[Kind, int], lag: float, cores: int) -> Room:
    """How many sessions more fit.

    Args:
        estimate: of what a session costs.
        cost: measured now; sessions that have just begun are not all in it.
        counts: live sessions, and those that are being answered. Without any, one fits in any case.
        lag: seconds by which our own work makes the event loop late.
        cores: of this machine.
    """
    due = estimate.of(counts)
    spare = Cost(MAX_CPU * cores - max(cost.cpu, due.cpu), MAX_LOOP - max(cost.loop, due.loop))
    free, bound_by = {}, ""
    for kind in KINDS:
        one = estimate.of({kind: 1})
        by = {"cpu": _fits(spare.cpu, one.cpu), "event_loop": _fits(spare.loop, one.loop)}
        bound_by = min(by, key=lambda name: by[name])
        free[kind] = by[bound_by]
    if lag > MAX_LAG:
        free, bound_by = dict.fromkeys(KINDS, 0), "lag"
    if not sum(counts.values()):
        free = {kind: max(1, count) for kind, count in free.items()}
    return Room(free, bound_by)


def _fits(spare: float, one: float) -> int:
    """How many of a cost fit."""
    return max(0, min(UNBOUNDED, int(spare / one + 1e-9))) if one > 1e-9 else UNBOUNDED
