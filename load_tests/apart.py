"""Models of a session on a clock that jumps: in worker processes, so that what grows in this one is the session, and from a record."""

from __future__ import annotations

import asyncio
import hashlib
import pickle
import threading
from collections import Counter
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, TypeVar

import numpy as np

from streamsvc.core import clock
from streamsvc.core.roles import Payload, Role
from streamsvc.evaluation import session_run
from streamsvc.workers.supervisor import Worker

PATIENCE = 120.0  # seconds of real time for one call
REMEMBERED = ("transcribe", "look", "read")  # the models' dear calls
T = TypeVar("T")


class Apart:
    """Worker processes, as under `serve`, on a loop of their own in real time; who asks is held up meanwhile, so that no other clock jumps.

    `with Apart() as apart`; `apart.load` is for `rehearsal.steady`. `workers`: by the module's name, from its first call on.
    """

    def __init__(self) -> None:
        self.workers: dict[str, Worker] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._lives: list[asyncio.Task[None]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.wait(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def load(self, module: str, options: Mapping[str, Any]) -> Any:
        """The engine of a module, once its process is up. Raises ModelMissing, WorkerError."""
        name = module.rpartition(".")[2]
        self.wait(self._begin(name, module, options))
        return SimpleNamespace(ops=_Ops(self, self.workers[name].role(name)))

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """What comes of some work on the workers' loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _begin(self, name: str, module: str, options: Mapping[str, Any]) -> None:
        worker = self.workers[name] = Worker(name, {name: module}, options)
        self._lives.append(asyncio.create_task(worker.run()))
        await worker.wait_ready()

    async def _end(self) -> None:
        for life in self._lives:
            life.cancel()
        await asyncio.gather(*self._lives, return_exceptions=True)


class _Ops(dict[str, "_Op"]):
    """The ops of a worker's role, as `rehearsal.Steady` wants an engine's: any name is one."""

    def __init__(self, apart: Apart, role: Role) -> None:
        super().__init__()
        self._apart, self._role = apart, role

    def __missing__(self, name: str) -> _Op:
        return _Op(name, self._apart, self._role)


@dataclass(frozen=True, slots=True)
class _Op:
    name: str
    apart: Apart
    role: Role

    def run(self, asked: Any) -> list[Payload]:
        """The results of a batch of payloads, or all items of the stream of one."""
        if isinstance(asked, list):
            return [
                self.apart.wait(self.role.call(self.name, payload, deadline_in_s=PATIENCE))
                for payload in asked
            ]
        return self.apart.wait(self._all(asked))

    async def _all(self, payload: Payload) -> list[Payload]:
        return [item async for item in self.role.stream(self.name, payload, deadline_in_s=PATIENCE)]


class Recorded:
    """A role whose dear answers are kept in a folder, by the hash of what was asked; each takes its time of the clock all the same."""

    def __init__(self, role: Any, folder: Path, counts: Counter[str]) -> None:
        self._role, self._folder, self._counts = role, folder, counts

    async def call(
        self, op: str, payload: dict[str, Any], *, deadline_in_s: float, affinity: str = ""
    ) -> dict[str, Any]:
        """See worker.Role."""
        if op not in REMEMBERED:
            return dict(await self._role.call(op, payload, deadline_in_s=deadline_in_s, affinity=affinity))
        place = self._folder / f"{op}-{digest(payload)}"
        self._counts[op] += 1
        if (
            place.is_file() and self._counts[op] > 1
        ):  # the first is always computed: a model loaded later would look like growth
            self._counts[f"{op} recorded"] += 1
            await clock.sleep(session_run.TAKES[op])
            return dict(pickle.loads(place.read_bytes()))
        result = dict(await self._role.call(op, payload, deadline_in_s=deadline_in_s, affinity=affinity))
        (part := place.with_suffix(".part")).write_bytes(pickle.dumps(result))
        part.replace(place)  # a run that is stopped leaves no half of one
        return result


def digest(payload: Mapping[str, Any]) -> str:
    """A hash of a call: equal for equal samples and bytes alone."""
    made = hashlib.blake2b(digest_size=16)
    for name, value in sorted(payload.items()):
        made.update(name.encode())
        if isinstance(value, np.ndarray):
            made.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
        else:
            made.update(value if isinstance(value, bytes) else repr(value).encode())
    return made.hexdigest()
