"""A span exporter whose answers a test scripts; both calls run on a thread."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from streamsvc.core.spans import Span


class ScriptedExporter:
    """Keeps the batches that it takes.

    `takes`: whether it does. `hold`: until it is set a call lasts, as with a collector that does not answer.
    """

    def __init__(self) -> None:
        self.batches: list[list[Span]] = []
        self.takes = True
        self.hold = threading.Event()
        self.hold.set()
        self.entered = threading.Event()
        self.closed = 0

    def export(self, spans: Sequence[Span]) -> bool:
        self.entered.set()
        assert self.hold.wait(20)
        if self.takes:
            self.batches.append(list(spans))
        return self.takes

    def close(self) -> None:
        self.closed += 1
        self.hold.set()
