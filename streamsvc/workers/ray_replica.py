"""A model on Ray Serve: what runs in each replica of a deployment.

It loads the same engines as a worker process, has the same lanes, and so batches across the sessions of all
nodes. No method but the health check raises: Ray Serve writes exceptions, whose text may quote what a user
said, to its logs. This file does not import Ray, whose workers import it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator

import streamsvc
from streamsvc.core import clock
from streamsvc.core.errors import CapacityError, StreamsvcError, WorkerError
from streamsvc.core.redaction import redact_libraries
from streamsvc.core.roles import Payload
from streamsvc.workers import lanes
from streamsvc.workers.framing import error_payload
from streamsvc.workers.process import Job
from streamsvc.workers.ray_messages import Failure, Items, ReplicaState, Request, Result

UNREAD_ITEMS = 256  # of one stream; more end it with CapacityError
PROBE_SECONDS = 5.0  # without a result: the health check asks for a tiny inference, and waits so long for it


class ModelReplica:
    """One replica of one worker's models.

    Args:
        job: which engines it loads, with what options, at which niceness.

    Raises:
        StreamsvcError: a model is missing (ModelMissing), or an engine cannot be loaded (WorkerError, without
            the text of its error).
    """

    def __init__(self, job: Job) -> None:
        redact_libraries(lambda event, fields: print(event, fields, file=sys.stderr))
        os.nice(job.nice)
        self._hang_seconds = lanes.LONG_BATCHES.get(job.name, lanes.HANG_SECONDS)
        try:
            self._engines = lanes.Engines.load(job.roles, job.options)
        except StreamsvcError:
            raise
        except Exception as error:  # any failure of an engine; its text may quote options
            raise WorkerError(f"the engine failed with {type(error).__name__}") from None
        self._result_at = clock.now()  # loading ends with an inference
        self._number = 0

    async def call(self, request: Request) -> Result | Failure:
        """Run one op, in a batch with others that wait. Cancelling it drops it where it has not begun."""
        replies = _Replies()
        try:
            if (queued := self._submit(replies, request)) is None:
                return Result({}, 1)  # a probe of what does not compute here
            with _dropped(queued):
                result = await replies.first()
        except StreamsvcError as error:
            return failure(error)
        if isinstance(result, Result):
            self._result_at = clock.now()
        return result

    async def stream(self, request: Request) -> AsyncIterator[Items]:
        """Run one op that yields. What it has yielded while nothing was read comes at once.

        Closing the iterator early cancels the work.
        """
        replies = _Replies()
        try:
            queued = self._submit(replies, request)
        except StreamsvcError as error:
            yield Items((), failure(error))
            return
        assert queued is not None, "probes are calls"
        with _dropped(queued):
            while (items := await replies.items()) is not None:
                if items.failure is None:
                    self._result_at = clock.now()
                yield items

    async def state(self) -> ReplicaState:
        """What it does now."""
        return ReplicaState(
            streamsvc.__version__,
            os.getpid(),
            dict(self._engines.runtimes),
            self._engines.busy_seconds,
            clock.now() - self._result_at,
        )

    async def check_health(self) -> None:
        """Called by Ray Serve each second; one that raises three times is replaced.

        Where no result has come lately and nothing runs, each role computes its tiny request.

        Raises:
            WorkerError: a batch hangs, or such a request failed.
        """
        if self._engines.busy_seconds > self._hang_seconds:
            raise WorkerError("a batch hangs")
        if self._engines.busy_seconds > 0 or clock.now() - self._result_at < PROBE_SECONDS:
            return
        for role in self._engines.probes:
            result = await self.call(Request(role, "", {}, PROBE_SECONDS, idle=True))
            if isinstance(result, Failure):
                raise WorkerError(f"the tiny request of {role} failed: {result.kind}")

    def close(self) -> None:
        """End the threads of the engines."""
        self._engines.close()

    def _submit(self, replies: _Replies, asked: Request) -> lanes.Request | None:
        """Queue a request; None: there is nothing to do. Raises StreamsvcError."""
        op, payload = asked.op, asked.payload
        if not op:
            if (probe := self._engines.probes.get(asked.role)) is None:
                return None
            op, payload = probe
        self._number += 1
        due = clock.now() + asked.deadline_in_s
        request = lanes.Request(replies, self._number, asked.role, due, payload, asked.idle)
        self._engines.submit(op, request)
        return request


def failure(error: BaseException) -> Failure:
    """An exception as a value, without a foreign error's text."""
    told = error_payload(error)
    return Failure(told["class"], told["message"], told.get("retry_after", 0.0))


@contextlib.contextmanager
def _dropped(request: lanes.Request) -> Iterator[None]:
    """Cancel the request when the body ends; it may have ended before."""
    try:
        yield
    finally:
        request.cancelled = True


class _Replies:
    """What becomes of one request: from the threads of its lane to the event loop. See lanes.Replies."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Payload] = []
        self._last: Result | Failure | None = None
        self._ended = False
        self._changed = asyncio.Event()

    async def first(self) -> Result | Failure:
        """The result of a call."""
        await self._changed.wait()
        assert self._last is not None, "a call has a result"
        return self._last

    async def items(self) -> Items | None:
        """What the stream has yielded since; None: it has ended."""
        await self._changed.wait()
        if self._ended and not self._waiting and self._last is None:
            return None
        waiting, self._waiting = tuple(self._waiting), []
        failed = self._last if isinstance(self._last, Failure) else None
        self._last = None
        if not self._ended:
            self._changed.clear()
        return Items(waiting, failed)

    def result(self, request: lanes.Request, payload: Payload, batch: int) -> None:
        self._tell(self._end, Result(payload, batch))

    def item(self, request: lanes.Request, payload: Payload) -> None:
        self._tell(self._add, request, payload)

    def end(self, request: lanes.Request) -> None:
        self._tell(self._end, None)

    def fail(self, request: lanes.Request, error: BaseException) -> None:
        self._tell(self._end, failure(error))

    def forget(self, request: lanes.Request) -> None:
        self._tell(self._end, None)

    def _tell(self, change: Callable[..., None], *arguments: object) -> None:
        """Apply a change in the event loop."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the replica ends
            self._loop.call_soon_threadsafe(change, *arguments)

    def _add(self, request: lanes.Request, payload: Payload) -> None:
        if self._ended:
            return
        if len(self._waiting) >= UNREAD_ITEMS:
            request.cancelled = True
            self._waiting = []
            self._end(failure(CapacityError("the stream was not read in time")))
            return
        self._waiting.append(payload)
        self._changed.set()

    def _end(self, last: Result | Failure | None) -> None:
        if not self._ended:
            self._last, self._ended = last, True
            self._changed.set()
