"""Stand-ins of the replicas on Ray Serve, in one process. Run as a program it is a bridge without Ray."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator
from typing import ClassVar

from streamsvc.core.errors import CapacityError, StreamsvcError
from streamsvc.workers import ray_bridge
from streamsvc.workers.child_startup import Startup
from streamsvc.workers.ray_deployment import ReplicaLost
from streamsvc.workers.ray_messages import Items, ReplicaState, Request, Result
from streamsvc.workers.ray_worker import RayWorker

STATE = ReplicaState("0", 7, {"test": "of a test"}, 0.0, 0.0)


class FakeReplicas:
    """Answers by op.

    echo: its payload, with the affinity, the deadline, and how often it was sent. sleep: after `seconds`.
    refuse: CapacityError. break: an error that is not ours. `dies` in a payload: the replica dies at the
    first so many sendings, of a stream after `to` items. away: nothing is answered for `seconds`.
    """

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()
        self.cancelled: list[str] = []
        self.states = 0
        self.told = STATE
        self._away_until = 0.0
        self.failure: StreamsvcError | None = None  # of states

    async def call(self, request: Request, affinity: str) -> Result:
        """See Models."""
        self.sent[request.op] += 1
        if self.sent[request.op] <= request.payload.get("dies", 0):
            raise ReplicaLost("a replica of test died")
        match request.op:
            case "refuse":
                raise CapacityError("256 requests wait", retry_after=3.0)
            case "break":
                raise ValueError("a secret")
            case "away":
                self._away_until = time.monotonic() + request.payload["seconds"]
        try:
            await asyncio.sleep(request.payload.get("seconds", 0) if request.op == "sleep" else 0)
        except asyncio.CancelledError:
            self.cancelled.append(request.op)
            raise
        told = {"affinity": affinity, "deadline_in_s": request.deadline_in_s, "idle": request.idle}
        return Result({**request.payload, **told, "sent": self.sent[request.op]}, 3)

    async def stream(self, request: Request, affinity: str) -> AsyncGenerator[Items, None]:
        """See Models."""
        self.sent[request.op] += 1
        dies = self.sent[request.op] <= request.payload.get("dies", 0)
        try:
            for number in range(0, request.payload["to"], 2):
                yield Items(({"n": number}, {"n": number + 1}))
                await asyncio.sleep(request.payload.get("pause", 0))
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.append(request.op)
            raise
        if dies:
            raise ReplicaLost("a replica of test died")

    async def state(self) -> ReplicaState:
        """See Models."""
        self.states += 1
        if self.failure is not None:
            raise self.failure
        await asyncio.sleep(max(0.0, self._away_until - time.monotonic()))
        return self.told


class FakeRayWorker(RayWorker):
    """A worker whose bridge has these replicas."""

    program: ClassVar[str] = "tests.fakes.ray_replicas"


def _connect(address: str) -> None:
    assert address == "auto"


def _models(job: Startup) -> FakeReplicas:
    assert job.options["worker"] == "test"
    return FakeReplicas()


if __name__ == "__main__":
    ray_bridge.main(_connect, _models)
