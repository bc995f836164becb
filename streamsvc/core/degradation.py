"""Costs of model calls as measured, and what each degradation level allows. Pure.

All sessions share the models of a process, so the process has one level, decided by `service.load_policy`:
1 longer decoding steps, 2 screen text on whole-screen changes only, 3 fewer keyframes, 4 no scene captions,
5 a shorter prompt for the text model, 6 no questions, 7 closed captions only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# --- costs ---

# (role, unit) -> seconds per unit until it is measured: typical of the small models on one core.
DEFAULT_COSTS: Mapping[tuple[str, str], float] = {
    ("hear", "step"): 0.12,
    ("see", "frame"): 0.05,
    ("see", "screen"): 1.2,
    ("think", "prompt"): 0.001,  # a token read
    ("think", "token"): 0.03,  # a token written
}
_MAX_SAMPLES = 20  # measurements behind an estimate
_MIN_SAMPLES = 3  # measurements that replace a default


@dataclass(frozen=True, slots=True)
class Costs:
    """Measured seconds per unit of work, by role and unit; the newest last."""

    samples: Mapping[tuple[str, str], tuple[float, ...]] = field(default_factory=dict)

    def of(self, role: str, unit: str) -> float:
        """Seconds per unit: the 90th percentile of the samples, rounded down to ignore a single stall.

        Raises:
            KeyError: neither measured nor in `DEFAULT_COSTS`.
        """
        samples = self.samples.get((role, unit), ())
        if len(samples) < _MIN_SAMPLES and (role, unit) in DEFAULT_COSTS:
            return DEFAULT_COSTS[role, unit]
        if not samples:
            raise KeyError((role, unit))
        return sorted(samples)[int(0.9 * (len(samples) - 1))]

    def add(self, role: str, unit: str, seconds: float, units: int = 1) -> Costs:
        """The costs with one more sample: `seconds` for `units` units; unchanged for zero units."""
        if units < 1 or seconds < 0:
            return self
        samples = (*self.samples.get((role, unit), ()), seconds / units)[-_MAX_SAMPLES:]
        return Costs({**self.samples, (role, unit): samples})


@dataclass(slots=True)
class CostTracker:
    """The current costs of one process."""

    costs: Costs = field(default_factory=Costs)

    def record(self, role: str, unit: str, seconds: float, units: int = 1) -> None:
        """Add a sample; arguments as for `Costs.add`."""
        self.costs = self.costs.add(role, unit, seconds, units)


# --- levels ---

MAX_LEVEL = 7


@dataclass(frozen=True, slots=True)
class Fidelity:
    """What a degradation level allows; the defaults are level 0. None: as configured."""

    step: float | None = None  # minimum seconds between decoding steps
    whole_screen: bool = False  # screen text is read on changes of the whole screen only
    keyframes: float | None = None  # maximum rate per session, in Hz
    scenes: bool = True  # scene captions
    window_tokens: int = 400  # of the context of an answer
    reading: bool = True  # the model reads along while nobody asks
    questions: bool = True  # False: rejected with CapacityError
    partials: bool = True  # captions that are not closed yet


_CHANGES: tuple[Mapping[str, float | bool], ...] = (  # what each level from 1 on changes; levels add up
    {"step": 0.7},
    {"whole_screen": True},
    {"keyframes": 0.2},
    {"scenes": False},
    {"window_tokens": 150},
    {"questions": False},
    {"step": 1.0, "partials": False},
)


def fidelity(level: int) -> Fidelity:
    """The fidelity of a degradation level. Raises ValueError unless `level` is 0 to MAX_LEVEL."""
    if not 0 <= level <= MAX_LEVEL:
        raise ValueError(f"degradation levels are 0 to {MAX_LEVEL}, not {level}")
    changes: dict[str, float | bool] = {}
    for change in _CHANGES[:level]:
        changes |= change
    return Fidelity(**changes)  # type: ignore[arg-type]
