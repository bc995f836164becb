"""Models for sessions on a virtual clock: in worker processes, with answers from a cache on disk.

So only the session grows in the process whose memory is measured, and a repeated input is computed once.
"""

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

CALL_TIMEOUT = 120.0  # seconds of real time for one call
CACHED_OPS = ("transcribe", "look", "read")  # the expensive ops
T = TypeVar("T")


class WorkerProcesses:
    """Worker processes, as under `serve`, on an event loop of their own in real time.

    The caller blocks during a call, so that its virtual clock does not jump. `with WorkerProcesses() as
    workers`; `workers.load` is for `session_run.fixed_time_service`. `workers`: by the name of the module,
    once it was called.
    """

    def __init__(self) -> None:
        self.workers: dict[str, Worker] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._tasks: list[asyncio.Task[None]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.wait(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def load(self, module: str, options: Mapping[str, Any]) -> Any:
        """Start the process of a module; its engine. Raises ModelMissing, WorkerError."""
        name = module.rpartition(".")[2]
        self.wait(self._begin(name, module, options))
        return SimpleNamespace(ops=_Ops(self, self.workers[name].role(name)))

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the workers' loop and block until it is done."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _begin(self, name: str, module: str, options: Mapping[str, Any]) -> None:
        worker = self.workers[name] = Worker(name, {name: module}, options)
        self._tasks.append(asyncio.create_task(worker.run()))
        await worker.wait_ready()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Ops(dict[str, "_Op"]):
    """The ops of a worker's role in the shape of an engine's `ops`: every name is accepted."""

    def __init__(self, workers: WorkerProcesses, role: Role) -> None:
        super().__init__()
        self._workers = workers
        self._role = role

    def __missing__(self, name: str) -> _Op:
        return _Op(name, self._workers, self._role)


@dataclass(frozen=True, slots=True)
class _Op:
    name: str
    workers: WorkerProcesses
    role: Role

    def run(self, work: Any) -> list[Payload]:
        """The results of a batch of payloads, or all items of the stream of one."""
        if isinstance(work, list):
            return [
                self.workers.wait(self.role.call(self.name, payload, deadline_in_s=CALL_TIMEOUT))
                for payload in work
            ]
        return self.workers.wait(self._all(work))

    async def _all(self, payload: Payload) -> list[Payload]:
        return [item async for item in self.role.stream(self.name, payload, deadline_in_s=CALL_TIMEOUT)]


class CachedRole:
    """A role that caches the results of CACHED_OPS in a folder, by a hash of the payload.

    A cached call takes the same time on the virtual clock. `counts`: calls by op, and "OP recorded" of cached
    ones.
    """

    def __init__(self, role: Any, folder: Path, counts: Counter[str]) -> None:
        self._role = role
        self._folder = folder
        self._counts = counts

    async def call(
        self, op: str, payload: dict[str, Any], *, deadline_in_s: float, affinity: str = ""
    ) -> dict[str, Any]:
        """See Role."""
        if op not in CACHED_OPS:
            return dict(await self._role.call(op, payload, deadline_in_s=deadline_in_s, affinity=affinity))
        cached = self._folder / f"{op}-{digest(payload)}"
        self._counts[op] += 1
        # The first call is always computed: a model that is loaded later would look like growth.
        if cached.is_file() and self._counts[op] > 1:
            self._counts[f"{op} recorded"] += 1
            await clock.sleep(session_run.CALL_SECONDS[op])
            return dict(pickle.loads(cached.read_bytes()))
        result = dict(await self._role.call(op, payload, deadline_in_s=deadline_in_s, affinity=affinity))
        part = cached.with_suffix(
            ".part"
        )  # renamed when complete, so that an aborted run leaves no half file
        part.write_bytes(pickle.dumps(result))
        part.replace(cached)
        return result


def digest(payload: Mapping[str, Any]) -> str:
    """Hash of a payload by its values, arrays by dtype, shape and bytes."""
    hashed = hashlib.blake2b(digest_size=16)
    for name, value in sorted(payload.items()):
        hashed.update(name.encode())
        if isinstance(value, np.ndarray):
            hashed.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
        else:
            hashed.update(value if isinstance(value, bytes) else repr(value).encode())
    return hashed.hexdigest()
