"""The only reader of time.

`now()` is the running event loop's time, which on a real loop is `time.monotonic()`. So a test that runs on a
`VirtualLoop` makes every sleep, timeout and age virtual at once, and thirty seconds of talk take microseconds.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any


def now() -> float:
    """Monotonic seconds; comparable between the threads and processes of one host on a real loop."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()


async def sleep(seconds: float) -> None:
    """Wait for `seconds` of the loop's time."""
    await asyncio.sleep(max(0.0, seconds))


def utc() -> datetime:
    """Wall-clock time, for stamps that leave the host; never subtract two of these."""
    return datetime.now(UTC)


def stamp(moment: datetime) -> str:
    """A moment of `utc` as text, to the millisecond."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer as soon as nothing else is to be done.

    Only for code without real sockets or threads: those would be outrun by the jumping clock.
    """

    def __init__(self) -> None:
        self._virtual = 1000.0  # seconds; any start but 0, so that an unset time stands out
        super().__init__(_JumpSelector(self))

    def time(self) -> float:
        """Virtual seconds."""
        return self._virtual

    def jump(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self._virtual += seconds


class Threadless(VirtualLoop):
    """A virtual loop on which what is meant for a thread is done at once: a thread would be outrun by the jumping clock."""

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        """Call the function now; the future is done."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class _JumpSelector(selectors.DefaultSelector):
    """Turns the loop's wait for its next timer into a jump."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, Any]]:
        ready = super().select(0 if timeout is not None else None)
        if not ready and timeout:
            self._loop.jump(timeout)
        return ready
