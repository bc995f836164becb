"""What the keyframes of one session showed, each until the next one. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from streamsvc.core.compact_words import NO_STAGES
from streamsvc.core.types import Sight

_SAME_TIME = 1e-3  # seconds between the times of a keyframe and of its sight
_NO_EMBEDDING = np.empty(0, np.float32)  # not needed here, and most of a sight's memory


@dataclass(frozen=True, slots=True)
class Shown:
    """What one keyframe showed. `sight` None: not (yet) known. `end` None: shown now."""

    start: float
    end: float | None
    sight: Sight | None
    reason: str = ""


class KeyframeHistory:
    """Keyframes by time. Over the limit equal neighbours in the older half are merged, else the oldest goes.

    Args:
        limit: entries kept.
    """

    def __init__(self, limit: int) -> None:
        self.entries: list[Shown] = []
        self.dropped = 0
        self._limit = limit

    def add(self, entry: Shown) -> None:
        """Append a keyframe and end the one before; a late or repeated one is ignored."""
        if self.entries and entry.start <= self.entries[-1].start:
            return
        if self.entries:
            self.entries[-1] = replace(self.entries[-1], end=entry.start)
        self.entries.append(entry)
        if len(self.entries) > self._limit:
            self._shrink()

    def add_sight(self, sight: Sight) -> None:
        """Attach a sight to its keyframe; one without a keyframe becomes an entry of its own."""
        sight = replace(sight, embedding=_NO_EMBEDDING, stages=NO_STAGES)
        for index in range(len(self.entries) - 1, -1, -1):
            if abs(self.entries[index].start - sight.at) < _SAME_TIME:
                self.entries[index] = replace(self.entries[index], sight=sight)
                return
            if self.entries[index].start < sight.at:
                break
        if not self.entries or self.entries[0].start < sight.at:
            self.add(Shown(sight.at, None, sight))

    def at(self, when: float) -> Shown | None:
        """The keyframe shown at session second `when`."""
        return next((entry for entry in reversed(self.entries) if entry.start <= when), None)

    def _shrink(self) -> None:
        half = max(1, self._limit // 2)
        older = _merged(self.entries[:half])
        if len(older) == half:
            del older[:1]
            self.dropped += 1
        self.entries[:half] = older


def labels_of(sight: Sight) -> str:
    """The labels of a sight as text: "2 cat, dog, street"."""
    if sight.blank:
        return "blank picture"
    counts = Counter(box.label for box in sight.boxes)
    boxes = [f"{count} {label}" if count > 1 else label for label, count in counts.items()]
    return ", ".join(boxes + [tag.label for tag in sight.tags if tag.label not in counts])


def _merged(entries: Sequence[Shown]) -> list[Shown]:
    """Entries where neighbours with the same labels are one."""
    merged: list[Shown] = []
    previous: str | None = None
    for entry in entries:
        labels = labels_of(entry.sight) if entry.sight is not None else None
        if merged and labels is not None and labels == previous:
            merged[-1] = replace(merged[-1], end=entry.end)
        else:
            merged.append(entry)
        previous = labels
    return merged
