"""What a run costs: memory and CPU time of this process and all its children."""

from __future__ import annotations

import asyncio
import contextlib

import psutil

from streamsvc.core import clock
from streamsvc.evaluation.transcriber_run import cpu_seconds

SAMPLE_INTERVAL = 2.0  # seconds between two samples


class ResourceMeter:
    """Peak PSS and CPU seconds of this process and all its children. Linux only (PSS)."""

    def __init__(self) -> None:
        self._root = psutil.Process()
        self._peak = 0
        self._before = self._cpu_by_process()
        self._after = dict(self._before)

    def _cpu_by_process(self) -> dict[int, float]:
        seconds = {}
        for process in [self._root, *self._root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                seconds[process.pid] = cpu_seconds([process])
        return seconds

    def sample(self) -> None:
        """Sample memory and CPU now."""
        total = 0
        for process in [self._root, *self._root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += int(process.memory_full_info().pss)
        self._peak = max(self._peak, total)
        self._after |= self._cpu_by_process()

    async def watch(self) -> None:
        """Sample until cancelled."""
        while True:
            await asyncio.to_thread(self.sample)
            await clock.sleep(SAMPLE_INTERVAL)

    def figures(self, seconds: float) -> dict[str, float]:
        """The cost of a run of `seconds`; a child started meanwhile counts from its start."""
        self.sample()
        cpu = sum(self._after.values()) - sum(self._before.values())
        return {
            "pss_max_mb": round(self._peak / 1e6),
            "cpu_s_per_stream_s": round(cpu / max(seconds, 1e-9), 3),
        }
