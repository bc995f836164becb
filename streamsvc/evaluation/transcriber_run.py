"""One run of a recording through the transcriber, in real time or on a clock that jumps, and what it cost."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil

from streamsvc.core import clock
from streamsvc.core.clock import VirtualLoop
from streamsvc.core.config import Hear, Settings
from streamsvc.core.queues import Ring
from streamsvc.core.roles import Role
from streamsvc.core.types import SAMPLE_RATE, AudioChunk, Words
from streamsvc.evaluation.recordings import Samples
from streamsvc.evaluation.score_captions import Snapshot
from streamsvc.speech.decoding_loop import run
from streamsvc.speech.segmenter import Unit
from streamsvc.workers.supervisor import Worker

PACKET = 320  # samples: 20 ms, one Opus packet
RING = 3000  # pieces of audio: a minute of the shortest; the transcriber gives up older audio long before
WEIGH = 1.0  # seconds between two looks at the memory


class Screen:
    """What a viewer sees: stable words never change, the tail may."""

    def __init__(self) -> None:
        self._stable: list[str] = []

    def take(self, unit: Words) -> tuple[str, str]:
        """All stable words so far, and the words shown behind them."""
        self._stable += [word.text for word in unit.words[: unit.stable]]
        return " ".join(self._stable), " ".join(word.text for word in unit.words[unit.stable :])


@dataclass(frozen=True, slots=True)
class Heard:
    """What came out of one run.

    `units`: with the seconds since the first sample at which each came. `flush`: seconds from the end of the audio to the last unit.
    `late`: by how many seconds a piece of audio came too late at worst. `dropped`: pieces that the ring could not hold.
    `cpu`, `calls`: CPU seconds and number of calls by op, where the models ran in this process.
    """

    units: list[tuple[float, Unit]]
    flush: float = 0.0
    late: float = 0.0
    dropped: int = 0
    cpu: dict[str, float] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)

    @property
    def stable(self) -> list[Any]:
        """The committed words."""
        return [
            word for _, unit in self.units if isinstance(unit, Words) for word in unit.words[: unit.stable]
        ]

    @property
    def shown(self) -> list[Snapshot]:
        """What a viewer saw, whenever it changed."""
        screen = Screen()
        return [(at, *screen.take(unit)) for at, unit in self.units if isinstance(unit, Words)]


@dataclass
class Timed:
    """The hear role in this process, whose work moves the virtual clock by its CPU time. `engine`: as an engine's `load` gives it."""

    engine: Any
    cpu: dict[str, float] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)

    async def call(
        self, op: str, payload: dict[str, Any], *, deadline_in_s: float, affinity: str = ""
    ) -> dict[str, Any]:
        """See Role; deadlines are not kept."""
        began = time.process_time()
        result = self.engine.ops[op].run([payload])[0]
        spent = time.process_time() - began
        self.cpu[op] = self.cpu.get(op, 0.0) + spent
        self.calls[op] = self.calls.get(op, 0) + 1
        await clock.sleep(spent)
        if isinstance(result, Exception):
            raise result
        return dict(result)


async def play(
    samples: Samples, hear: Role, settings: Hear, *, chunk: int = PACKET, live: bool = True
) -> Heard:
    """Run samples through the transcriber in pieces of `chunk` samples, each when its last sample is due; live False: at once."""
    ring: Ring[AudioChunk] = Ring(RING)
    units: list[tuple[float, Unit]] = []
    zero = clock.now()
    late, ended = 0.0, zero

    async def speak() -> None:
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
        group.create_task(speak())
        group.create_task(
            run(ring, hear, lambda unit: units.append((clock.now() - zero, unit)), settings, session="bench")
        )
    return Heard(units, clock.now() - ended, late, ring.dropped)


def listen(samples: Samples, engine: Any, settings: Hear, *, live: bool = True) -> Heard:
    """A whole run on a virtual clock, by the engine in this process."""
    role = Timed(engine)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        heard = runner.run(play(samples, role, settings, live=live))  # type: ignore[arg-type]  # nobody asks it for a stream
    return Heard(heard.units, heard.flush, heard.late, heard.dropped, role.cpu, role.calls)


# --- the models -------------------------------------------------------------------------------------------------------


def local(settings: Settings, engine: str) -> Any:
    """The hear role in this process, as `Timed`. engine: dotted name of its module. Raises ModelMissing: a model is not there."""
    return Timed(importlib.import_module(engine).load({**_options(settings), "workers": 1}))


@contextlib.asynccontextmanager
async def working(settings: Settings, engine: str) -> AsyncIterator[Worker]:
    """The hear worker process, as under `serve`; it is gone afterwards. Raises ModelMissing, WorkerError: it does not come up."""
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


# --- the cost ---------------------------------------------------------------------------------------------------------


def spent(processes: Sequence[psutil.Process]) -> float:
    """CPU seconds of processes so far."""
    return float(sum(times.user + times.system for times in (process.cpu_times() for process in processes)))


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds of all processes and of the rest of the machine, and the highest memory (PSS, bytes). `hear` None: no such process."""

    cpu: float
    other: float
    hear: int | None
    all: int


class Meter:
    """Weighs this process and the hear worker, if there is one, from its making on. Linux only, for PSS."""

    def __init__(self, worker: int | None = None) -> None:
        self._processes = [psutil.Process(), *([psutil.Process(worker)] if worker is not None else [])]
        self._hear, self._all = 0, 0
        self._cpu, self._machine = spent(self._processes), self._busy()

    @staticmethod
    def _busy() -> float:
        times = psutil.cpu_times()
        return float(
            sum(times[:8]) - times.idle - times.iowait
        )  # the first eight: guests are counted in user already

    def look(self) -> None:
        """Weigh the memory now."""
        sizes = [int(process.memory_full_info().pss) for process in self._processes]
        self._all = max(self._all, sum(sizes))
        self._hear = max(self._hear, *sizes[1:], 0)

    async def watch(self) -> None:
        """Weigh again and again until cancelled, or until the worker is no more: what becomes of it is told elsewhere."""
        with contextlib.suppress(psutil.NoSuchProcess):
            while True:
                await asyncio.to_thread(self.look)
                await clock.sleep(WEIGH)

    def cost(self) -> Cost:
        """What was spent since the making."""
        self.look()
        cpu = spent(self._processes) - self._cpu
        return Cost(
            cpu,
            max(0.0, self._busy() - self._machine - cpu),
            self._hear if len(self._processes) > 1 else None,
            self._all,
        )
