"""An outside program that serves a door (RTMP, SRT): started, restarted when it dies, and ended.

It ends with this process where `setpriv` (util-linux) is there. Its output is read and thrown away, but for
the last lines of a start that fails: once it serves, it may print what a publisher has sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog

from streamsvc.core import clock, metrics
from streamsvc.core.errors import ConfigError

log = structlog.get_logger()
PAUSES = (0.2, 1.0, 5.0, 15.0, 30.0)  # seconds before a restart, the later ones after more short runs
STABLE_SECONDS = 30.0  # a run that lasted longer is not short
READY_SECONDS = 15.0  # from its start until it serves
END_SECONDS = 3.0  # from SIGTERM to SIGKILL
OUTPUT_BYTES = 4096  # of its output, kept for a start that fails
# Of our environment: no key, no token.
_KEPT = ("PATH", "LD_LIBRARY_PATH", "LANG", "HOME")


@dataclass(frozen=True, slots=True)
class Start:
    """How a program is started.

    Attributes:
        arguments: the program first. No secret among them: every user of the machine may list them.
        environment: besides what of ours is passed on, which is no key and no token.
        descriptors: open files that it inherits, under the same numbers.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    descriptors: Sequence[int] = ()


class Program(Protocol):
    """What is run."""

    @property
    def name(self) -> str:
        """Of the door, for messages, logs and metrics: "rtmp"."""
        ...

    def prepare(self, folder: Path) -> Start:
        """Write what it needs, such as its configuration, into an empty folder of its own (0700).

        Raises:
            ConfigError: it is not installed.
        """
        ...

    async def ready(self, folder: Path) -> None:
        """Return once it serves. Cancelled where it ends before that, and after READY_SECONDS."""
        ...


class DoorProcess:
    """One supervised program: `async with DoorProcess(program)`.

    Attributes:
        restarts: times that it was started again.

    Raises:
        ConfigError: at the start of the block: it is not installed, or did not begin to serve.
    """

    def __init__(self, program: Program) -> None:
        self.restarts = 0
        self._program = program
        self._process: asyncio.subprocess.Process | None = None
        self._supervising: asyncio.Task[None] | None = None
        self._serves = False

    @property
    def pid(self) -> int | None:
        """Of the program; None: it does not run now."""
        return self._process.pid if self._process is not None else None

    @property
    def serves(self) -> bool:
        """Whether it takes publishers now."""
        return self._serves

    async def __aenter__(self) -> DoorProcess:
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._supervising = asyncio.create_task(self._supervise(started))
        try:
            await started
        except BaseException:
            await self.__aexit__()
            raise
        log.info("door open", door=self._program.name)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._supervising is not None:
            self._supervising.cancel()
            await asyncio.gather(self._supervising, return_exceptions=True)

    async def _supervise(self, started: asyncio.Future[None]) -> None:
        """Run it again and again. `started`: done once the first start is; a failure of it ends this."""
        short_runs = 0
        while True:
            began = clock.now()
            try:
                await self._run(started)
            except (ConfigError, OSError) as error:
                if not started.done():
                    started.set_exception(error)
                    return
                log.error("door does not open", door=self._program.name, reason=str(error))
            short_runs = 0 if clock.now() - began > STABLE_SECONDS else short_runs + 1
            pause = PAUSES[min(max(short_runs, 1), len(PAUSES)) - 1]
            log.warning("door closed", door=self._program.name, opens_in=pause)
            await clock.sleep(pause)
            self.restarts += 1
            metrics.door_restarts.labels(self._program.name).inc()

    async def _run(self, started: asyncio.Future[None]) -> None:
        """Run it once, to its end. Raises ConfigError: it did not begin to serve."""
        with tempfile.TemporaryDirectory(prefix=f"streamsvc-{self._program.name}-") as name:
            folder = Path(name)  # 0700, as mkdtemp makes it
            async with self._process_in(folder) as process:
                output = asyncio.create_task(_last_output(process))
                try:
                    await self._until_ready(process, folder, output)
                    if not started.done():
                        started.set_result(None)
                    else:
                        log.info("door open", door=self._program.name, restarts=self.restarts)
                    self._serves = True
                    status = await process.wait()
                    log.warning("door process ended", door=self._program.name, status=status)
                finally:
                    self._serves = False
                    output.cancel()
                    await asyncio.gather(output, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def _process_in(self, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
        start = self._program.prepare(folder)
        arguments = list(start.arguments)
        if (setpriv := shutil.which("setpriv")) is not None:
            arguments = [setpriv, "--pdeathsig", "KILL", "--no-new-privs", "--", *arguments]
        try:
            process = await asyncio.create_subprocess_exec(
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={key: os.environ[key] for key in _KEPT if key in os.environ} | dict(start.environment),
                pass_fds=start.descriptors,
                cwd=folder,
                start_new_session=True,  # Ctrl-C is for our side
            )
        except OSError as error:
            raise ConfigError(
                f"the {self._program.name} door cannot be opened: {arguments[0]}: {error.strerror}",
                code="no_door",
            ) from None
        self._process = process
        try:
            yield process
        finally:
            self._process = None
            await asyncio.shield(_end(process))

    async def _until_ready(
        self, process: asyncio.subprocess.Process, folder: Path, output: asyncio.Task[bytes]
    ) -> None:
        """Wait until it serves. Raises ConfigError: it has ended, or takes too long."""
        ended = asyncio.create_task(process.wait())
        ready = asyncio.create_task(self._program.ready(folder))
        try:
            await asyncio.wait((ended, ready), timeout=READY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if ready.done() and not ended.done():
                ready.result()
                return
            why = f"no answer within {READY_SECONDS:g} s"
            if ended.done():
                said = (await output).decode(errors="replace").split("\n")
                why = " ".join(line for line in said if line)[-300:] or f"exit status {ended.result()}"
            raise ConfigError(f"the {self._program.name} door cannot be opened: {why}", code="no_door")
        finally:
            for task in (ended, ready):
                task.cancel()
            await asyncio.gather(ended, ready, return_exceptions=True)


async def _last_output(process: asyncio.subprocess.Process) -> bytes:
    """Read its output to the end, so that it never waits for us; returns the last OUTPUT_BYTES."""
    assert process.stdout is not None
    last = b""
    while piece := await process.stdout.read(1 << 14):
        last = (last + piece)[-OUTPUT_BYTES:]
    return last


async def _end(process: asyncio.subprocess.Process) -> None:
    """End and reap it."""
    for end in (process.terminate, process.kill):
        with contextlib.suppress(ProcessLookupError, TimeoutError):
            end()
            async with asyncio.timeout(END_SECONDS):
                await process.wait()
            return
