"""The child process that carries a worker's requests to Ray Serve, instead of one that computes them.

It speaks with its parent as `child` does, so the supervisor and all behind it see no difference. It is a
process of its own because a Ray driver ends its process where its cluster is gone, and sessions must go on.

A request whose replica dies is sent once more, to another replica, where nothing of its result has been told
yet: ops have no effect but their result, and a request that kills its replica kills no third one. Pongs say
`away` while no replica answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from streamsvc.core import clock
from streamsvc.core.errors import CapacityError, DeadlineMissed, StreamsvcError, WorkerError
from streamsvc.core.roles import Payload
from streamsvc.workers import ray_deployment
from streamsvc.workers.child_startup import Startup
from streamsvc.workers.framing import PREFIX, error_payload, pack, sizes, unpack
from streamsvc.workers.ray_deployment import ReplicaLost
from streamsvc.workers.ray_messages import Items, ReplicaState, Request, Result

CARRIED = 256  # requests at once; more are refused with CapacityError
STATE_SECONDS = 0.5  # without an answer of any replica, after which one is asked for its state
STATE_TIMEOUT = 1.0  # seconds that it has to tell it in
AWAY_SECONDS = 1.5  # without an answer: the replicas are away
PROBED_SECONDS = 8.0  # a replica with a newer result has computed: its health check asks where none comes
SENT = 2  # times at most that a request is sent


class Models(Protocol):
    """The replicas of one worker's models; see `ray_deployment.Replicas`."""

    async def call(self, request: Request, affinity: str) -> Result:
        """Run one op. Raises StreamsvcError."""
        ...

    def stream(self, request: Request, affinity: str) -> AsyncGenerator[Items, None]:
        """Run one op that yields. Raises StreamsvcError."""
        ...

    async def state(self) -> ReplicaState:
        """What one of the replicas tells of itself. Raises StreamsvcError."""
        ...


class Answers:
    """When a replica has answered last; asks where none has for a while."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._at = clock.now()
        self._lost = False

    def heard(self) -> None:
        """A replica has answered."""
        self._at, self._lost = clock.now(), False

    def lost(self) -> None:
        """A replica has died: all are away until one answers."""
        self._lost = True

    def away(self) -> bool:
        """Whether no replica answers."""
        return self._lost or clock.now() - self._at > AWAY_SECONDS

    async def first(self) -> ReplicaState:
        """Wait for a replica's first answer. Raises StreamsvcError: another one than that it is not there."""
        while True:
            with contextlib.suppress(TimeoutError, ReplicaLost):
                async with asyncio.timeout(STATE_TIMEOUT):
                    state = await self._models.state()
                    self.heard()
                    return state

    async def watch(self) -> None:
        """Ask for a state where nothing else has been answered lately, until cancelled."""
        while True:
            await clock.sleep(STATE_SECONDS / 2)
            if not self._lost and clock.now() - self._at < STATE_SECONDS:
                continue
            with contextlib.suppress(TimeoutError, StreamsvcError):
                async with asyncio.timeout(STATE_TIMEOUT):
                    await self._models.state()
                    self.heard()


class Bridge:
    """One connection of the parent: reads its requests, carries each in a task, and writes the results."""

    def __init__(self, models: Models, answers: Answers, writer: asyncio.StreamWriter) -> None:
        self._models = models
        self._answers = answers
        self._writer = writer
        self._carried: dict[int, asyncio.Task[None]] = {}

    async def run(self, reader: asyncio.StreamReader) -> None:
        """Serve until the parent closes the connection."""
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head, blob = sizes(await reader.readexactly(PREFIX.size))
                    self._take(*unpack(await reader.readexactly(head), await reader.readexactly(blob)))
        finally:
            tasks = list(self._carried.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._writer.close()

    def _take(self, header: Mapping[str, Any], payload: Payload) -> None:
        """Begin what a frame asks for."""
        kind, number = header["kind"], header["id"]
        if kind == "ping":
            told = {"busy_s": 0.0, "work_s": time.process_time(), "away": self._answers.away()}
            self._send({"id": number, "kind": "pong"}, told)
        elif kind == "cancel":
            if (task := self._carried.get(number)) is not None:
                task.cancel()
        elif len(self._carried) >= CARRIED:
            self._fail(number, CapacityError(f"{CARRIED} requests of {header['role']} are on their way"))
        else:
            task = asyncio.create_task(self._carry(header, payload))
            self._carried[number] = task
            task.add_done_callback(lambda _: self._carried.pop(number, None))

    async def _carry(self, header: Mapping[str, Any], payload: Payload) -> None:
        """Carry one request to a replica and what comes of it back."""
        number = header["id"]
        deadline = clock.now() + header["deadline_in_s"]
        try:
            async with asyncio.timeout_at(deadline):
                for left in reversed(range(SENT)):
                    request = Request(
                        header["role"],
                        "" if header["kind"] == "probe" else header["op"],
                        payload,
                        max(0.0, deadline - clock.now()),
                        bool(header.get("idle")),
                    )
                    try:
                        await self._once(header, request)
                        return
                    except ReplicaLost as lost:
                        self._answers.lost()
                        if not left:
                            raise WorkerError(lost.message) from None
        except TimeoutError:
            self._fail(number, DeadlineMissed("no replica answered in time"))
        except StreamsvcError as error:
            self._fail(number, error)
        except Exception as error:  # a fault of ours fails the request, not all of them
            self._fail(number, error)

    async def _once(self, header: Mapping[str, Any], request: Request) -> None:
        """Send a request to one replica, and its results to the parent. Raises StreamsvcError."""
        number, affinity = header["id"], header.get("affinity", "")
        if not request.op and (await self._models.state()).result_seconds < PROBED_SECONDS:
            self._answers.heard()
            self._send({"id": number, "kind": "result", "role": request.role}, {})
            return
        if header["kind"] != "stream":
            result = await self._models.call(request, affinity)
            self._answers.heard()
            told = {"id": number, "kind": "result", "role": request.role, "batch": result.batch}
            self._send(told, result.payload)
            return
        begun = False
        try:
            async with contextlib.aclosing(self._models.stream(request, affinity)) as stream:
                async for items in stream:
                    self._answers.heard()
                    for payload in items.payloads:
                        begun = True
                        self._send({"id": number, "kind": "item"}, payload)
        except ReplicaLost as lost:
            if not begun:
                raise
            self._answers.lost()
            raise WorkerError(lost.message) from None
        self._send({"id": number, "kind": "end"}, {})

    def _fail(self, number: int, error: BaseException) -> None:
        self._send({"id": number, "kind": "error", "error": error_payload(error)}, {})

    def _send(self, header: Mapping[str, Any], payload: Payload) -> None:
        if not self._writer.is_closing():
            self._writer.write(pack(header, payload))


def deployed(job: Startup) -> Models:
    """The replicas of the worker that the parent names. Raises WorkerError: they are not deployed."""
    return ray_deployment.Replicas(job.options["worker"])


async def _serve(job: Startup, models: Callable[[Startup], Models]) -> None:
    """Wait for a replica, then serve until cancelled. Raises StreamsvcError."""
    opened = models(job)
    answers = Answers(opened)
    state = await answers.first()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Bridge(opened, answers, writer).run(reader)

    async with await asyncio.start_unix_server(connected, job.socket):
        _keep_private(job.socket)
        job.ready(state.runtimes)
        await answers.watch()


def _keep_private(socket: str) -> None:
    Path(socket).chmod(0o600)


def _end_with_parent() -> None:
    sys.stdin.read()  # returns when the parent closes the pipe or dies
    os._exit(0)  # do not wait for Ray's threads


def main(
    connect: Callable[[str], None] = ray_deployment.connect,
    models: Callable[[Startup], Models] = deployed,
) -> None:
    """Connect to Ray, then serve until stdin is closed.

    Args:
        connect: to the cluster at an address.
        models: the replicas, once connected.
    """
    job = Startup.read()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        connect(job.options["address"])
        asyncio.run(_serve(job, models))
    except Exception as error:  # any failure is reported to the parent
        job.failed(error)


if __name__ == "__main__":
    main()
