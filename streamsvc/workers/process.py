"""One worker process: started, its models loaded, connected, and ended. `supervisor` keeps it running."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from streamsvc.core.errors import WorkerError
from streamsvc.workers.framing import error_from

CHILD = "streamsvc.workers.child"
LOAD_SECONDS = 120.0  # time limit for loading the models
# Of a worker: one thread a computation, which makes its results the same on any number of cores.
ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "HF_HUB_OFFLINE"), "1") | {
    "MALLOC_ARENA_MAX": "2"
}
# glibc: return large blocks at once, and keep what every step needs again.
ENVIRONMENT |= {"MALLOC_MMAP_THRESHOLD_": str(4 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker process is told at its start.

    `roles`: dotted engine module by role. `options`: passed to `load` of every module. `nice`: added to the
    niceness of the process. `program`: dotted module that the process runs.
    """

    name: str
    roles: Mapping[str, str]
    options: Mapping[str, Any]
    nice: int
    program: str = CHILD


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """A process that has loaded its models, and the socket to it. Whoever has it closes it.

    `runtimes`: what computes, by role, where an engine tells.
    """

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    runtimes: Mapping[str, str]

    @classmethod
    async def start(cls, job: Job, path: Path) -> Self:
        """Start a process with its socket at `path`.

        Raises:
            StreamsvcError: it cannot load its models (ModelMissing), or ended before (WorkerError).
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            job.program,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **ENVIRONMENT},
        )
        try:
            runtimes = await _load(process, job, path)
            return cls(process, *await asyncio.open_unix_connection(path), runtimes)
        except BaseException:
            await _end(process)
            raise

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether the process has not ended. A frozen one is alive."""
        return self.process.returncode is None

    async def close(self) -> None:
        """Kill the process, and wait for its end."""
        self.writer.close()
        await _end(self.process)


async def _load(process: asyncio.subprocess.Process, job: Job, path: Path) -> dict[str, str]:
    """Send the process its job and wait until its models are loaded; returns its runtimes by role."""
    assert process.stdin is not None and process.stdout is not None
    told = {"socket": str(path), "roles": job.roles, "options": job.options, "nice": job.nice}
    process.stdin.write(json.dumps(told, default=str).encode() + b"\n")
    try:
        async with asyncio.timeout(LOAD_SECONDS):
            line = await process.stdout.readline()
    except TimeoutError:
        raise WorkerError(
            f"the {job.name} worker had not loaded its models after {LOAD_SECONDS:.0f} s"
        ) from None
    if not line:
        raise WorkerError(f"the {job.name} worker died while it loaded its models")
    reply = json.loads(line)
    if "error" in reply:
        raise error_from(reply["error"])
    runtimes: dict[str, str] = reply["runtimes"]
    return runtimes


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await asyncio.shield(_reap(process))


async def _reap(process: asyncio.subprocess.Process) -> None:
    """Wait for a killed process and close its pipes."""
    await process.wait()
    if process.stdin is not None:
        process.stdin.close()
    transport = getattr(process, "_transport", None)  # asyncio has no public way to close the stdout pipe
    if transport is not None:
        transport.close()
