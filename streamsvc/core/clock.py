"""The only module that reads the time.

`now()` is the time of the running event loop, which on a real loop is `time.monotonic()`. On a `VirtualLoop`
every sleep, timeout and age becomes virtual, so a test of 30 s of speech takes microseconds.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any


def now() -> float:
    """Monotonic seconds; on a real loop comparable between threads and processes of one host."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()


async def sleep(seconds: float) -> None:
    """Sleep for `seconds` of loop time; a negative duration only yields to the loop."""
    await asyncio.sleep(max(0.0, seconds))


def utc() -> datetime:
    """Wall-clock time, for timestamps that leave the host. Not for durations: it may step."""
    return datetime.now(UTC)


def stamp(moment: datetime) -> str:
    """A UTC moment in ISO 8601 with milliseconds and a trailing Z."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer as soon as nothing else is ready.

    Only for code without real sockets or threads: the virtual clock would outrun them.
    """

    def __init__(self) -> None:
        self._virtual = 1000.0  # seconds; not 0, so that an unset time stands out
        super().__init__(_VirtualSelector(self))

    def time(self) -> float:
        """Virtual seconds."""
        return self._virtual

    def jump(self, seconds: float) -> None:
        """Advance the virtual time by `seconds`."""
        self._virtual += seconds


class Threadless(VirtualLoop):
    """A virtual loop that runs executor functions inline: virtual time would outrun a thread."""

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        """Call the function now; return a future that is done."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class _VirtualSelector(selectors.DefaultSelector):
    """Advances the loop's time instead of blocking until its next timer."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, Any]]:
        ready = super().select(0 if timeout is not None else None)
        if not ready and timeout:
            self._loop.jump(timeout)
        return ready
