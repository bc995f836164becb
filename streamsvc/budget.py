"""What the machine can still do in time: costs as measured, plans that fit a deadline, and the ladder of fidelity. Pure.

All times are seconds, and `now` is handed in. One ladder stands for one process, for all sessions share its machine:
`step` is asked every half second or so with what was observed, and `fidelity` says what its level means to each room.
Levels, from the design: 1 longer decode steps, 2 screen text on whole-screen changes only, 3 fewer keyframes, 4 no scene
captions, 5 a shorter window, 6 no questions, 7 closed captions alone. Speech goes last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf

# --- costs ---

# (engine, unit) -> seconds of one unit until something is measured: the usual rates of the small models on one core.
START: Mapping[tuple[str, str], float] = {
    ("hear", "step"): 0.12,
    ("see", "frame"): 0.05,
    ("see", "screen"): 1.2,
    ("think", "prompt"): 0.001,  # a token read
    ("think", "token"): 0.03,  # a token written
}
_KEPT = 20  # measurements behind an estimate; a stall is forgotten after so many
_TRUSTED = 3  # measurements that replace the usual rate


@dataclass(frozen=True, slots=True)
class Costs:
    """Measured seconds a unit, by engine and unit; the newest last."""

    measured: Mapping[tuple[str, str], tuple[float, ...]] = field(default_factory=dict)

    def of(self, engine: str, unit: str) -> float:
        """Seconds that one unit costs: the 90th percentile of the last measurements, rounded down, so that one stall is not believed.

        Raises:
            KeyError: neither measured nor in `START`.
        """
        known = self.measured.get((engine, unit), ())
        if len(known) < _TRUSTED and (engine, unit) in START:
            return START[engine, unit]
        if not known:
            raise KeyError((engine, unit))
        return sorted(known)[int(0.9 * (len(known) - 1))]


def measured(costs: Costs, engine: str, unit: str, seconds: float, units: int = 1) -> Costs:
    """The costs after `units` units took `seconds` together; what took no unit tells nothing."""
    if units < 1 or seconds < 0:
        return costs
    known = (*costs.measured.get((engine, unit), ()), seconds / units)[-_KEPT:]
    return Costs({**costs.measured, (engine, unit): known})


@dataclass(slots=True)
class Pace:
    """The costs of one process as they stand: all sessions share its models."""

    costs: Costs = field(default_factory=Costs)

    def note(self, engine: str, unit: str, seconds: float, units: int = 1) -> None:
        """As `measured`."""
        self.costs = measured(self.costs, engine, unit, seconds, units)


# --- plans ---

KEYFRAME_WAIT = 0.3  # seconds that an answer waits at most for a picture of now
_LOOKUP = 0.05  # seconds to find evidence in the time line and to publish
_PHRASE = (8, 48)  # tokens of the model's phrase: fewer say nothing, more are never wanted
_WINDOW = 64  # tokens: a shorter window holds no evidence


@dataclass(frozen=True, slots=True)
class Plan:
    """What an answer may spend. `left_out` names what did not fit: "keyframe", "phrase", "window", or "answer": do not start."""

    keyframe_wait: float = 0.0  # seconds; 0: answer from what has been seen
    window_tokens: int = 0
    phrase_tokens: int = 0  # 0: the evidence is quoted, the model is not asked
    left_out: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the answer may be started at all."""
        return "answer" not in self.left_out


def plan(costs: Costs, now: float, deadline: float, *, window: int, keyframe: bool = False) -> Plan:
    """What fits between `now` and `deadline` (both monotonic seconds), the dearest truth first: evidence, then a picture, then a phrase.

    Args:
        costs: as measured.
        now: this instant.
        deadline: when the whole answer is due.
        window: tokens of the window that the level allows.
        keyframe: the question is about what is seen now.
    """
    left = deadline - now - _LOOKUP
    if left < 0:
        return Plan(left_out=("answer",))
    left_out: list[str] = []
    wait = 0.0
    if keyframe:
        wait = min(KEYFRAME_WAIT, left - costs.of("see", "frame"))
        if wait > 0:
            left -= wait + costs.of("see", "frame")
        else:
            wait = 0.0
            left_out.append("keyframe")
    read, write = costs.of("think", "prompt"), costs.of("think", "token")
    least, most = _PHRASE
    tokens = min(window, int((left - least * write) / read) if read else window)
    if tokens < min(window, _WINDOW) or tokens <= 0:
        return Plan(wait, 0, 0, (*left_out, "phrase"))
    if tokens < window:
        left_out.append("window")
    phrase = min(most, int((left - tokens * read) / write) if write else most)
    return Plan(wait, tokens, max(least, phrase), tuple(left_out))


# --- the ladder ---

TOP = 7
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
class Ladder:
    """Where the process stands. `reason` is empty at level 0 alone. All times are monotonic seconds."""

    level: int = 0
    reason: str = ""
    rose: float = -inf  # when a level was last spent
    calm_since: float | None = None  # None: it is not calm now
    fell: float = -inf  # when a level was given back, if none was spent since
    missed: int = -1  # the level that last proved too low as soon as it was tried; -1: none
    patience: float = CALM  # seconds of calm that the next try of `missed` needs; other levels need CALM


def step(ladder: Ladder, load: Load, now: float) -> Ladder:
    """The ladder after an observation: up by one level where a limit is strained, down by one after enough calm.

    A level that proves too low within TRIAL seconds is tried again after twice the calm, up to PATIENT, and is forgiven once it has
    held for TRIAL seconds. So a steady load between two levels costs a try in five minutes, and a load that is gone costs one wait.
    """
    if ladder.level <= ladder.missed and TRIAL <= now - ladder.fell < inf:
        ladder = replace(ladder, missed=-1, patience=CALM)
    over = {name: value / limit.high for name, limit in LIMITS.items() if (value := getattr(load, name)) > limit.high}
    helped = [name for name in over if ladder.level < LIMITS[name].most]
    if helped and now - ladder.rose >= (HASTE if any(over[name] >= 2 for name in helped) else RISE):
        up = replace(ladder, level=ladder.level + 1, reason=LIMITS[helped[0]].reason, rose=now, calm_since=None, fell=-inf)
        if now - ladder.fell < TRIAL:
            up = replace(up, missed=ladder.level, patience=min(PATIENT, 2 * ladder.patience))
        return up
    if load.cpu > BUSY or any(getattr(load, name) > limit.low for name, limit in LIMITS.items()):
        return replace(ladder, calm_since=None)
    since = now if ladder.calm_since is None else ladder.calm_since
    needed = ladder.patience if ladder.level - 1 <= ladder.missed else CALM
    if ladder.level == 0 or now - since < needed:
        return replace(ladder, calm_since=since)
    return replace(ladder, level=ladder.level - 1, reason=ladder.reason if ladder.level > 1 else "", calm_since=now, fell=now)


@dataclass(frozen=True, slots=True)
class Fidelity:
    """What each room may spend; the defaults are level 0. None: as the settings say."""

    step: float | None = None  # seconds between decode steps, at least
    whole_screen: bool = False  # screen text is read where the whole screen changed, not where a part did
    keyframes: float | None = None  # a second and session, at most
    scenes: bool = True  # scene captions
    window_tokens: int = 400  # of an answer
    questions: bool = True  # False: refused with CapacityError
    partials: bool = True  # captions before they are closed


_SPENT: tuple[Mapping[str, float | bool], ...] = (  # what each level, from 1 on, adds to those below
    {"step": 0.7},
    {"whole_screen": True},
    {"keyframes": 0.2},
    {"scenes": False},
    {"window_tokens": 150},
    {"questions": False},
    {"step": 1.0, "partials": False},
)


def fidelity(level: int) -> Fidelity:
    """What a level leaves. Raises ValueError: it is none of 0 to 7."""
    if not 0 <= level <= TOP:
        raise ValueError(f"there are levels 0 to {TOP}, not {level}")
    spent: dict[str, float | bool] = {}
    for each in _SPENT[:level]:
        spent |= each
    return Fidelity(**spent)  # type: ignore[arg-type]


# --- admission ---


def admits(ladder: Ladder, cpu: float, live: int) -> bool:
    """Whether one more session, as dear as those that are live, leaves them in time. The first always comes in.

    Args:
        ladder: now; while anything is spent, nobody comes in.
        cpu: share of all cores in use, 0 to 1.
        live: sessions that use it.
    """
    return live == 0 or (ladder.level == 0 and cpu + cpu / live <= FULL)
