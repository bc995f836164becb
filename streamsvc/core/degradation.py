"""Costs of model calls as measured, and what each degradation level allows. Pure.

All sessions share the models of a process, so the process has one level, decided by `service.load_policy`:
1 no work of a model that sees while nobody asks (pictures read along, scene captions), 2 longer decoding
steps, 3 screen text on whole-screen changes only, 4 fewer keyframes, 5 no reading along, 6 no questions,
7 closed captions only. Levels that would save nothing with the settings are stepped over (`levels_in_use`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# --- costs ---

# (role, unit) -> seconds per unit until it is measured: typical of the small models on one core.
DEFAULT_COSTS: Mapping[tuple[str, str], float] = {
    ("hear", "step"): 0.12,
    ("see", "frame"): 0.05,
    ("see", "screen"): 1.2,
    ("think", "prompt"): 0.001,  # a token read
    ("sight", "prompt"): 0.01,  # the same, by a model that sees and is another
    ("think", "first"): 0.3,  # until the first token of an answer
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


@dataclass(slots=True)
class WorkRate:
    """CPU seconds of work a second, smoothed, from a running total.

    Each measurement weighs as much as all before it together. `value`: 1.0 is one core.
    """

    value: float = 0.0
    _total: float | None = None
    _at: float = 0.0

    def add(self, total: float, now: float) -> None:
        """Add a measurement: CPU seconds in all so far, at monotonic second `now`."""
        if self._total is not None and now > self._at:
            self.value = (self.value + max(0.0, total - self._total) / (now - self._at)) / 2
        self._total = total
        self._at = now


# --- levels ---

MAX_LEVEL = 7


@dataclass(frozen=True, slots=True)
class Fidelity:
    """What a degradation level allows; the defaults are level 0. None: as configured."""

    step: float | None = None  # minimum seconds between decoding steps
    whole_screen: bool = False  # screen text is read on changes of the whole screen only
    keyframes: float | None = None  # maximum rate per session, in Hz
    scenes: bool = True  # a model that sees works while nobody asks; scene captions by rule cost nothing
    reading: bool = True  # the text model reads along while nobody asks
    questions: bool = True  # False: rejected with CapacityError
    partials: bool = True  # captions that are not closed yet


# What each level from 1 on reduces, in words for users; levels add up.
_REDUCED = (
    "no scenes are described by the model",
    "captions come in longer steps",
    "text on the screen is read only when all of the screen changes",
    "fewer pictures are looked at",
    "the model does not read ahead, so answers take longer",
    "questions are refused",
    "captions are shown only when they are complete",
)
_CHANGES: tuple[Mapping[str, float | bool], ...] = (  # what each level from 1 on changes; levels add up
    {"scenes": False},
    {"step": 0.7},
    {"whole_screen": True},
    {"keyframes": 0.2},
    {"reading": False},
    {"questions": False},
    {"step": 1.0, "partials": False},
)


ALL_LEVELS = tuple(range(1, MAX_LEVEL + 1))


def levels_in_use(*, screen_text: bool, sight: bool, reading: bool) -> tuple[int, ...]:
    """The levels from 1 on that save something, ascending.

    Args:
        screen_text: text is read from the screen.
        sight: a model that sees works while nobody asks.
        reading: a model of this machine reads along.
    """
    idle = {1: not sight, 3: not screen_text, 5: not reading}
    return tuple(level for level in ALL_LEVELS if not idle.get(level, False))


def reduced(level: int, levels: Sequence[int] = ALL_LEVELS) -> list[str]:
    """What a degradation level has reduced, in words.

    Args:
        level: 0 to MAX_LEVEL.
        levels: those in use; the others reduce nothing that is on.
    """
    return [text for number, text in enumerate(_REDUCED, 1) if number <= level and number in levels]


def working(level: int) -> str:
    """What goes on at a degradation level above 0, in words."""
    if level >= MAX_LEVEL:
        return "complete captions, pictures and alerts"
    return "captions, pictures and alerts" if level == MAX_LEVEL - 1 else "captions, pictures and questions"


def fidelity(level: int) -> Fidelity:
    """The fidelity of a degradation level. Raises ValueError unless `level` is 0 to MAX_LEVEL."""
    if not 0 <= level <= MAX_LEVEL:
        raise ValueError(f"degradation levels are 0 to {MAX_LEVEL}, not {level}")
    changes: dict[str, float | bool] = {}
    for change in _CHANGES[:level]:
        changes |= change
    return Fidelity(**changes)  # type: ignore[arg-type]
