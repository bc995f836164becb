"""FakeRole: a `Role` without a model: scripted results, recorded calls, delays on the test's clock."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from streamsvc.core import clock
from streamsvc.core.errors import DeadlineMissed
from streamsvc.core.roles import Payload

Result = Payload | Exception  # an exception is raised
Script = Result | Callable[[Payload], Result] | list[Result | Callable[[Payload], Result]]
Piece = Payload | str | float | Exception  # str: {"text": ...}; float: a wait in seconds
Pieces = Sequence[Piece] | Callable[[Payload], Sequence[Piece]]


@dataclass(frozen=True)
class Call:
    """One recorded request."""

    op: str
    payload: Payload
    at: float  # monotonic seconds at which it arrived
    deadline_in_s: float
    affinity: str


@dataclass
class FakeRole:
    """A scripted role. Unscripted ops fail the test with KeyError.

    Waits are on the running loop's clock: under a virtual loop they take no time. A request that misses its
    deadline raises DeadlineMissed. A result is taken from its script when the request ends: a cancelled one
    consumes none.
    """

    # Of `call`, by op. A list has one entry per call; the last repeats.
    results: Mapping[str, Script] = field(default_factory=dict)
    # Of `stream`, by op.
    streams: Mapping[str, Pieces] = field(default_factory=dict)
    delay: Callable[[str, Payload], float] = lambda op, payload: 0.0  # seconds that a call takes
    # Op -> an event that its calls wait for.
    gates: Mapping[str, asyncio.Event] = field(default_factory=dict)
    lanes: int | None = None  # calls worked on at once; further ones wait, as in a worker's lane
    overlap: bool = True  # False: a call during another one fails the test
    calls: list[Call] = field(default_factory=list)  # all requests, in order of arrival
    completed: list[Call] = field(default_factory=list)  # those that returned a result
    in_flight: dict[str, int] = field(default_factory=dict)  # op: requests being worked on
    most_in_flight: dict[str, int] = field(default_factory=dict)  # op: the most at once

    def __post_init__(self) -> None:
        self._lanes = asyncio.Semaphore(self.lanes) if self.lanes else None
        self._position: dict[str, int] = {}

    def payloads(self, op: str) -> list[Payload]:
        """What was sent to `op`, in order of arrival."""
        return [call.payload for call in self.calls if call.op == op]

    def count(self, op: str) -> int:
        """How many requests `op` has had."""
        return len(self.payloads(op))

    async def call(self, op: str, payload: Payload, *, deadline_in_s: float, affinity: str = "") -> Payload:
        """See Role."""
        assert self.overlap or not any(self.in_flight.values()), "one request at a time"
        call = self._record(op, payload, deadline_in_s, affinity)
        self._begin(op)
        try:
            async with asyncio.timeout(deadline_in_s):
                await self._work(op, payload)
        except TimeoutError:
            raise DeadlineMissed(f"{op} did not answer in time") from None
        finally:
            self.in_flight[op] -= 1
        result = self._result(op, payload)
        if isinstance(result, Exception):
            raise result
        self.completed.append(call)
        return result

    async def stream(
        self, op: str, payload: Payload, *, deadline_in_s: float, affinity: str = ""
    ) -> AsyncIterator[Payload]:
        """See Role."""
        call = self._record(op, payload, deadline_in_s, affinity)
        deadline = call.at + deadline_in_s
        self._begin(op)
        try:
            script = self.streams[op]
            for piece in script(payload) if callable(script) else script:
                if isinstance(piece, Exception):
                    raise piece
                if isinstance(piece, float):
                    await clock.sleep(min(piece, deadline - clock.now()))
                    if clock.now() >= deadline:
                        raise DeadlineMissed(f"{op} did not answer in time")
                else:
                    yield {"text": piece} if isinstance(piece, str) else piece
            self.completed.append(call)
        finally:
            self.in_flight[op] -= 1

    def _record(self, op: str, payload: Payload, deadline_in_s: float, affinity: str) -> Call:
        call = Call(op, payload, clock.now(), deadline_in_s, affinity)
        self.calls.append(call)
        return call

    def _begin(self, op: str) -> None:
        self.in_flight[op] = self.in_flight.get(op, 0) + 1
        self.most_in_flight[op] = max(self.most_in_flight.get(op, 0), self.in_flight[op])

    async def _work(self, op: str, payload: Payload) -> None:
        if op in self.gates:
            await self.gates[op].wait()
        async with self._lanes or contextlib.nullcontext():
            if (seconds := self.delay(op, payload)) > 0:
                await clock.sleep(seconds)

    def _result(self, op: str, payload: Payload) -> Result:
        script: Any = self.results[op]
        if isinstance(script, list):
            position = self._position.get(op, 0)
            self._position[op] = position + 1
            script = script[min(position, len(script) - 1)]
        result: Result = script(payload) if callable(script) else script
        return result
