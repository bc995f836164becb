"""What the machine can still do in time: costs as measured, plans that fit a deadline, and the ladder of fidelity. Pure.

All times are seconds, and `now` is handed in. One ladder stands for one process, for all sessions share its machine:
`step` is asked every half second or so with what was observed, and `fidelity` says what its level means to each room.
Levels, from the design: 1 longer decode steps, 2 screen text on whole-screen changes only, 3 fewer keyframes, 4 no scene
captions, 5 a shorter window, 6 no questions, 7 closed captions alone. Speech goes last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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


# --- the ladder ---

TOP = 7


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
