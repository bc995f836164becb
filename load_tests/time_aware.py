"""Time-aware scores of alerts: PAUC with a penalty for needless alerts, and latencies. Pure.

A moment at which a watch comes true is a reply turn with the span (start, end] in which an alert is expected.
Of ProactiveVideoQA (Wang et al., 2025, arXiv:2507.09313, section 3 with eq. 1): the quality of what was told
is a step curve over the span, 0.5 until the first reply and then the score of the reply, 0 to 2; PAUC is the
area under it, divided by that of an immediate reply of score 2; a reply at second t counts as one at
start + (1 - w) * (t - start), w = 0.5. An alert has no wording to be judged, so one that is right scores 2.
A moment that nobody was told of has 0.25 by this, one told of at once 1, at the very end of the span 0.625.

Of OmniPro (online mode, metrics/online/scorer.py of RuixiangZhao/OmniPro): of alerts only their times are
judged, and each alert is matched with at most one moment, each moment with at most one alert, the closest
first. Here that is the earliest alert of a span, since later is worse. An alert of no moment is needless.

The penalty: PAUC has none for what is told outside of all spans. Here a needless alert is a turn of its own
with score 0, what the paper gives to a reply that is wrong throughout: PAUC - = sum of PAUC of the moments /
(moments + needless alerts). So to be silent (0.25) is better than to be wrong (0), as the paper wants it, and
a lure that stays silent changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NO_REPLY = 0.5  # score until somebody is told
BEST = 2.0  # score
TIMELINESS = 0.5  # w: 0: all depends on when it is told; 1: nothing does


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment of which a watch must tell, as the span in seconds in which it is of use."""

    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Told:
    """An alert: `at`: session seconds of what it is of; `published`: when it was told."""

    at: float
    published: float


@dataclass(frozen=True, slots=True)
class Score:
    """The score of some watches.

    `areas`: PAUC of each moment. `told`: moments that were told of. `needless`: alerts of none.
    `delays`: seconds from each moment told of to its alert.
    """

    areas: tuple[float, ...] = ()
    told: int = 0
    needless: int = 0
    delays: tuple[float, ...] = ()

    def __add__(self, other: Score) -> Score:
        return Score(
            self.areas + other.areas,
            self.told + other.told,
            self.needless + other.needless,
            self.delays + other.delays,
        )

    @property
    def recall(self) -> float | None:
        """Share of the moments that were told of; None: there was none."""
        return self.told / len(self.areas) if self.areas else None

    @property
    def precision(self) -> float | None:
        """Share of the alerts that were of a moment; None: there was no alert."""
        alerts = self.told + self.needless
        return self.told / alerts if alerts else None

    @property
    def pauc(self) -> float | None:
        """PAUC without a penalty; None: there was no moment."""
        return sum(self.areas) / len(self.areas) if self.areas else None

    @property
    def penalised(self) -> float | None:
        """PAUC in which a needless alert is a turn of score 0; None: there was neither."""
        turns = len(self.areas) + self.needless
        return sum(self.areas) / turns if turns else None

    def delay(self, percentile: float) -> float | None:
        """Seconds from the moment to the alert, of those that were told of."""
        return float(np.percentile(self.delays, percentile)) if self.delays else None


def area(moment: Moment, published: float | None, timeliness: float = TIMELINESS) -> float:
    """PAUC of one moment, told at second `published`; None, or after its end: of no alert."""
    if published is None or published > moment.end:
        return NO_REPLY / BEST
    waited = (1.0 - timeliness) * max(0.0, published - moment.start)
    length = moment.end - moment.start
    return (waited * NO_REPLY + (length - waited) * BEST) / (length * BEST)


def score(moments: Sequence[Moment], alerts: Sequence[Told], early: float = 0.0) -> Score:
    """Match alerts with moments, each with one at most, and score them.

    Args:
        moments: may overlap; the earlier is matched first.
        alerts: of one watch.
        early: seconds before the start of a span from which what an alert is of is still the moment's.

    An alert is matched by what it is of (`at`), and scored by when it was told: one that is of the moment and
    late is no needless one.
    """
    left = sorted(alerts, key=lambda alert: (alert.published, alert.at))
    areas: list[float] = []
    delays: list[float] = []
    for moment in sorted(moments, key=lambda moment: moment.start):
        found = next((a for a in left if moment.start - early <= a.at <= moment.end), None)
        areas.append(area(moment, found.published if found else None))
        if found is not None:
            left.remove(found)
            delays.append(max(0.0, found.published - moment.start))
    return Score(tuple(areas), len(delays), len(left), tuple(delays))


def cells(of: Score) -> tuple[str, ...]:
    """The columns HEADS of a table."""
    shares = (of.recall, of.precision, of.pauc, of.penalised)
    late = (of.delay(50), of.delay(95))
    times = " / ".join("-" if seconds is None else f"{seconds:.2f}" for seconds in late)
    return (
        f"{of.told} of {len(of.areas)}",
        str(of.needless),
        *("-" if share is None else f"{100 * share:.1f}" for share in shares),
        times,
    )


HEADS = (
    "moments told",
    "needless alerts",
    "recall %",
    "precision %",
    "PAUC %",
    "PAUC - %",
    "moment to alert p50 / p95 s",
)
