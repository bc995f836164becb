"""Degradation and admission decisions: load observed in, level or verdict out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf

from streamsvc.core.degradation import TOP

CALM = 10.0  # seconds of calm before a level is given back
PATIENT = 320.0  # ... at most, where giving it back has gone wrong again and again
TRIAL = 60.0  # seconds after which a level that was given back was not missed
RISE = 2.0  # seconds between two levels on the way up: the last one must show what it saves
HASTE = 1.0  # ... where a limit is passed twice over


@dataclass(frozen=True, slots=True)
class Load:
    """What was observed since the last step, all sessions together; 0 where there is nothing to observe."""

    backlog: float = 0.0  # seconds of audio that wait for recognition, of the session that waits longest
    see_wait: float = 0.0  # seconds that the oldest keyframe waits
    think_wait: float = 0.0  # seconds that the oldest question waits
    cpu: float = 0.0  # share of all cores, 0 to 1


@dataclass(frozen=True, slots=True)
class Limit:
    """Above `high` is strain, at or below `low` is calm; what is strained can be helped by no level beyond `most`."""

    high: float
    low: float
    most: int
    reason: str


# The age of stable words is no sign of strain: most of it is agreement that is waited for, and longer steps, which the first level buys,
# make it older. What a slow decode step adds shows as audio that waits meanwhile.
# Field of Load -> its limit; the first that is strained names the reason. Eyes behind do not make the ears deaf: each buys only what
# relieves it. A full processor alone makes nobody late and buys nothing; but what was spent is not given back to one that has no room.
LIMITS: Mapping[str, Limit] = {
    "backlog": Limit(0.8, 0.4, TOP, "speech waits for recognition"),
    "see_wait": Limit(2.0, 0.8, 4, "pictures wait to be looked at"),
    "think_wait": Limit(1.5, 0.6, 6, "questions wait"),
}
BUSY, FULL = 0.9, 0.95  # share of all cores: a level is given back up to it; a session is admitted up to it


@dataclass(frozen=True, slots=True)
class LoadState:
    """Where the process stands. `reason` is empty at level 0 alone. All times are monotonic seconds."""

    level: int = 0
    reason: str = ""
    rose: float = -inf  # when a level was last spent
    calm_since: float | None = None  # None: it is not calm now
    fell: float = -inf  # when a level was given back, if none was spent since
    missed: int = -1  # the level that last proved too low as soon as it was tried; -1: none
    patience: float = CALM  # seconds of calm that the next try of `missed` needs; other levels need CALM


def step(ladder: LoadState, load: Load, now: float) -> LoadState:
    """The ladder after an observation: up by one level where a limit is strained, down by one after enough calm.

    A level that proves too low within TRIAL seconds is tried again after twice the calm, up to PATIENT, and is forgiven once it has
    held for TRIAL seconds. So a steady load between two levels costs a try in five minutes, and a load that is gone costs one wait.
    """
    if ladder.level <= ladder.missed and TRIAL <= now - ladder.fell < inf:
        ladder = replace(ladder, missed=-1, patience=CALM)
    over = {
        name: value / limit.high
        for name, limit in LIMITS.items()
        if (value := getattr(load, name)) > limit.high
    }
    helped = [name for name in over if ladder.level < LIMITS[name].most]
    if helped and now - ladder.rose >= (HASTE if any(over[name] >= 2 for name in helped) else RISE):
        up = replace(
            ladder,
            level=ladder.level + 1,
            reason=LIMITS[helped[0]].reason,
            rose=now,
            calm_since=None,
            fell=-inf,
        )
        if now - ladder.fell < TRIAL:
            up = replace(up, missed=ladder.level, patience=min(PATIENT, 2 * ladder.patience))
        return up
    if load.cpu > BUSY or any(getattr(load, name) > limit.low for name, limit in LIMITS.items()):
        return replace(ladder, calm_since=None)
    since = now if ladder.calm_since is None else ladder.calm_since
    needed = ladder.patience if ladder.level - 1 <= ladder.missed else CALM
    if ladder.level == 0 or now - since < needed:
        return replace(ladder, calm_since=since)
    return replace(
        ladder,
        level=ladder.level - 1,
        reason=ladder.reason if ladder.level > 1 else "",
        calm_since=now,
        fell=now,
    )


def admits(ladder: LoadState, cpu: float, live: int) -> bool:
    """Whether one more session, as dear as those that are live, leaves them in time. The first always comes in.

    Args:
        ladder: now; while anything is spent, nobody comes in.
        cpu: share of all cores in use, 0 to 1.
        live: sessions that use it.
    """
    return live == 0 or (ladder.level == 0 and cpu + cpu / live <= FULL)
