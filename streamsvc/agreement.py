"""Which words of a hypothesis are new, which are certain, and which were never spoken. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from streamsvc.types import Word

CROWD, CROWD_SECONDS = 3, 0.14  # so many words in less than so many seconds were not spoken; fast talk has 6 a second
TIME_WEIGHT = 0.5  # seconds of shift that weigh as much as one wrong word


def norm(text: str) -> str:
    """What two spellings of a word have in common: letters and digits, lower case."""
    return re.sub(r"[\W_]+", "", text.lower())


def agreed(before: Sequence[Word], now: Sequence[Word]) -> int:
    """How many first words two consecutive hypotheses share."""
    count = 0
    for old, new in zip(before, now, strict=False):
        if norm(old.text) != norm(new.text):
            break
        count += 1
    return count


def known(stable: Sequence[Word], heard: Sequence[Word]) -> int:
    """How many first words of a hypothesis are stable already.

    Args:
        stable: the stable words inside the window, oldest first; the first may be cut.
        heard: the hypothesis.

    Text and time decide together: the least edit distance to the stable words, plus the distance in time of the cut.
    """
    if not stable or not heard:
        return 0
    last = stable[-1].start  # starts: the end of a word before a pause wanders with each alignment
    most = min(len(heard), len(stable) + 4)
    row = [float(max(0, i - 1)) for i in range(len(stable) + 1)]  # the first may be cut off by the window: free
    costs = [float(len(stable))]
    texts = [norm(word.text) for word in stable]
    # column i of `row`: the cost of matching stable[:i] with heard[:j]
    for j in range(1, most + 1):
        text = norm(heard[j - 1].text)
        above = row
        row = [above[0] + 1.0]
        for i, other in enumerate(texts, 1):
            row.append(min(above[i - 1] + (0.0 if text == other else 1.0), above[i] + 1.0, row[i - 1] + 1.0))
        costs.append(row[-1])
    starts = [stable[0].start, *(word.start for word in heard[:most])]
    return min(range(most + 1), key=lambda j: (costs[j] + abs(starts[j] - last) / TIME_WEIGHT, j))


def sound(starts: Sequence[float], end: float) -> int:
    """How many first words were spoken: invented ones (a loop, a guess beyond the audio) find no sound and crowd into one moment."""
    times = [*starts, end]
    crowded = (place for place in range(len(starts) - CROWD + 1) if times[place + CROWD] - times[place] < CROWD_SECONDS)
    return next(crowded, len(starts))
