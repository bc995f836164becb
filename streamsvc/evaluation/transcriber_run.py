"""Transcriber run: a recording through the decoding loop of the speech pipeline, with its cost.

In real time, or on a virtual clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import psutil

from streamsvc.core import clock
from streamsvc.core.clock import VirtualLoop
from streamsvc.core.config import Hear, Settings
from streamsvc.core.queues import Ring
from streamsvc.core.roles import Role
from streamsvc.core.types import SAMPLE_RATE, AudioChunk, Word, Words
from streamsvc.evaluation.recordings import Samples
from streamsvc.evaluation.score_captions import Snapshot
from streamsvc.speech.decoding_loop import DecodingOptions, run
from streamsvc.speech.segmenter import SpeechUnit
from streamsvc.workers.supervisor import Worker

PACKET = 320  # samples: 20 ms, one Opus packet
RING = 3000  # pieces of audio: a minute of packets; the segmenter drops older audio long before
SAMPLE_INTERVAL = 1.0  # seconds between two memory samples


class CaptionView:
    """The captions as a viewer sees them: all stable words, and the tentative words behind them."""

    def __init__(self) -> None:
        self._stable: list[str] = []

    def update(self, unit: Words) -> tuple[str, str]:
        """All stable words so far, and the tentative words."""
        self._stable += [word.text for word in unit.words[: unit.stable]]
        return " ".join(self._stable), " ".join(word.text for word in unit.words[unit.stable :])


@dataclass(frozen=True, slots=True)
class TranscriberRun:
    """The output of one run.

    `units`: with the seconds since the first sample at which each was emitted. `flush`: seconds from the end
    of the audio to the last unit. `late`: largest delay of a piece of audio, seconds. `dropped`: pieces
    dropped by the full ring. `cpu`, `calls`: CPU seconds and number of calls by op, if the models ran in this
    process.
    """

    units: list[tuple[float, SpeechUnit]]
    flush: float = 0.0
    late: float = 0.0
    dropped: int = 0
    cpu: dict[str, float] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)

    @property
    def stable(self) -> list[Word]:
        """The stable words."""
        return [
            word for _, unit in self.units if isinstance(unit, Words) for word in unit.words[: unit.stable]
        ]

    @property
    def shown(self) -> list[Snapshot]:
        """The captions after each unit of words."""
        view = CaptionView()
        return [(at, *view.update(unit)) for at, unit in self.units if isinstance(unit, Words)]


@dataclass
class TimedRole:
    """The hear role in this process; each call advances the virtual clock by its CPU time.

    `engine`: result of an engine's `load`.
    """

    engine: Any
    cpu: dict[str, float] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)

    async def call(
        self, op: str, payload: dict[str, Any], *, deadline_in_s: float, affinity: str = ""
    ) -> dict[str, Any]:
        """See Role. The deadline is ignored."""
        began = time.process_time()
        result = self.engine.ops[op].run([payload])[0]
        used = time.process_time() - began
        self.cpu[op] = self.cpu.get(op, 0.0) + used
        self.calls[op] = self.calls.get(op, 0) + 1
        await clock.sleep(used)
        if isinstance(result, Exception):
            raise result
        return dict(result)

    def stream(
        self, op: str, payload: dict[str, Any], *, deadline_in_s: float, affinity: str = ""
    ) -> AsyncIterator[dict[str, Any]]:
        """Not available: the hear role has no op that streams."""
        raise NotImplementedError


async def play(
    samples: Samples,
    hear: Role,
    settings: Hear,
    *,
    chunk: int = PACKET,
    live: bool = True,
    screen_terms: Callable[[float], Sequence[str]] = lambda at: (),
) -> TranscriberRun:
    """Run samples through the decoding loop in pieces of `chunk` samples.

    Args:
        samples: at SAMPLE_RATE, shape (n,).
        hear: the role.
        settings: of the hear role.
        chunk: samples a piece.
        live: feed each piece when its last sample is due; False: as fast as the ring takes them.
        screen_terms: see DecodingOptions.
    """
    ring: Ring[AudioChunk] = Ring(RING)
    units: list[tuple[float, SpeechUnit]] = []
    zero = clock.now()
    late = 0.0
    ended = zero

    async def feed() -> None:
        nonlocal late, ended
        for start in range(0, len(samples), chunk):
            piece = samples[start : start + chunk]
            due = zero + (start + len(piece)) / SAMPLE_RATE
            if live:
                await clock.sleep(due - clock.now())
                late = max(late, clock.now() - due)
                ring.put(AudioChunk("bench", "main", start / SAMPLE_RATE, clock.now(), piece))
            else:
                await ring.put_when_space(
                    AudioChunk("bench", "main", start / SAMPLE_RATE, clock.now(), piece)
                )
        ring.close()
        ended = clock.now()

    async with asyncio.TaskGroup() as group:
        group.create_task(feed())
        group.create_task(
            run(
                ring,
                hear,
                lambda unit: units.append((clock.now() - zero, unit)),
                DecodingOptions(settings, session="bench", screen_terms=screen_terms),
            )
        )
    return TranscriberRun(units, clock.now() - ended, late, ring.dropped)


def run_virtual(samples: Samples, engine: Any, settings: Hear, *, live: bool = True) -> TranscriberRun:
    """A whole run on a virtual clock, with the engine in this process."""
    role = TimedRole(engine)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        finished = runner.run(play(samples, role, settings, live=live))
    return replace(finished, cpu=role.cpu, calls=role.calls)


# --- the models ---------------------------------------------------------------------------------------------


def local_role(settings: Settings, engine: str) -> TimedRole:
    """The hear role in this process. engine: dotted name of its module. Raises ModelMissing: no weights."""
    return TimedRole(importlib.import_module(engine).load({**_options(settings), "workers": 1}))


@contextlib.asynccontextmanager
async def hear_worker(settings: Settings, engine: str) -> AsyncIterator[Worker]:
    """The hear worker process, as under `serve`; it is ended on exit.

    Raises ModelMissing, WorkerError: it does not start.
    """
    worker = Worker("hear", {"hear": engine}, _options(settings))
    running = asyncio.create_task(worker.run())
    try:
        await worker.wait_ready()
        yield worker
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def _options(settings: Settings) -> dict[str, Any]:
    return {"models": str(settings.models.dir / "models"), **settings.hear.model_dump()}


# --- the cost -----------------------------------------------------------------------------------------------


def cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    """CPU seconds of processes since their start."""
    return float(sum(times.user + times.system for times in (process.cpu_times() for process in processes)))


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds of our processes (`cpu`) and of all others, and peak PSS in bytes.

    `hear`: of the hear worker, None: there is none.
    """

    cpu: float
    other: float
    hear: int | None
    all: int


class Meter:
    """CPU and memory of this process and the hear worker (pid `worker`) since construction.

    Linux only (PSS).
    """

    def __init__(self, worker: int | None = None) -> None:
        self._processes = [psutil.Process(), *([psutil.Process(worker)] if worker is not None else [])]
        self._hear = 0
        self._all = 0
        self._cpu = cpu_seconds(self._processes)
        self._machine = self._busy()

    @staticmethod
    def _busy() -> float:
        times = psutil.cpu_times()
        # The first eight fields: time of guests is part of user already.
        return float(sum(times[:8]) - times.idle - times.iowait)

    def sample(self) -> None:
        """Sample the memory now."""
        sizes = [int(process.memory_full_info().pss) for process in self._processes]
        self._all = max(self._all, sum(sizes))
        self._hear = max(self._hear, *sizes[1:], 0)

    async def watch(self) -> None:
        """Sample the memory until cancelled or until the worker ends."""
        with contextlib.suppress(psutil.NoSuchProcess):
            while True:
                await asyncio.to_thread(self.sample)
                await clock.sleep(SAMPLE_INTERVAL)

    def cost(self) -> Cost:
        """The cost since construction."""
        self.sample()
        cpu = cpu_seconds(self._processes) - self._cpu
        return Cost(
            cpu,
            max(0.0, self._busy() - self._machine - cpu),
            self._hear if len(self._processes) > 1 else None,
            self._all,
        )
