"""Roles that reply as recorded, when it was recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from streamsvc.answers import intents, router
from streamsvc.core.errors import DeadlineMissed, WorkerError
from streamsvc.core.roles import Payload, Role, RoleAround
from streamsvc.evaluation.bundle import Record
from streamsvc.service.recording import digest
from streamsvc.workers.framing import error_from

Turn = Callable[
    [tuple[str, ...], str], Awaitable[Record | None]
]  # key, digest; None: the recording has ended


class Examples:
    """The role within those that reply as recorded: it knows the vectors of the router's examples.

    All sessions share these, so no session's recording holds the calls. A replay waits until they were there,
    or until the question was routed without them.
    """

    def __init__(self) -> None:
        self._vectors: dict[str, NDArray[np.float32]] = {}
        self._waiting: set[asyncio.Future[None]] = set()

    def tell(self, vectors: Sequence[NDArray[np.float32]] | NDArray[np.float32]) -> None:
        """Take them from the recording; those of other examples than this version's are of no use."""
        if len(vectors) == len(intents.examples()):
            self._vectors = dict(zip(intents.examples(), vectors, strict=True))
            router.adopt(self, list(vectors))  # also for whoever has computed some of them for too long
            for future in self._waiting:
                if not future.done():
                    future.set_result(None)

    def give_up(self) -> None:
        """Let nobody wait any longer who waits now."""
        for future in self._waiting:
            if not future.done():
                future.set_exception(DeadlineMissed("the examples' vectors were not there in time"))

    async def call(self, op: str, payload: Payload, *, deadline_in_s: float, affinity: str = "") -> Payload:
        """See Role."""
        if not self._vectors:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            try:
                await future
            finally:
                self._waiting.discard(future)
        return {"vectors": np.stack([self._vectors[text] for text in payload["texts"]])}

    async def stream(
        self, op: str, payload: Payload, *, deadline_in_s: float, affinity: str = ""
    ) -> AsyncIterator[Payload]:
        """See Role."""
        yield await self.call(op, payload, deadline_in_s=deadline_in_s, affinity=affinity)


class ReplayedRole(RoleAround):
    """A role that replies as recorded, when it was recorded."""

    def __init__(self, name: str, turn: Turn, inner: Role) -> None:
        super().__init__(inner)
        self._name = name
        self._turn = turn

    async def _ask(self, op: str, payload: Payload) -> str:
        """Begin a call. Returns its number. Raises WorkerError: the recording has none."""
        call = await self._turn(("call", self._name, op), digest(payload))
        if call is None:
            raise WorkerError("the recording has ended")
        return str(call.fields["call"])

    async def _next(self, number: str) -> Record:
        record = await self._turn(("reply", number), "")
        if record is None:
            raise WorkerError("the recording has ended")
        if record.kind == "dropped":  # by what only the recording had, such as a limit of time
            raise TimeoutError
        if record.kind == "failed":
            raise error_from(record.fields["error"])
        return record

    async def call(self, op: str, payload: Payload, *, deadline_in_s: float, affinity: str = "") -> Payload:
        """See Role."""
        return dict((await self._next(await self._ask(op, payload))).payload)

    async def stream(
        self, op: str, payload: Payload, *, deadline_in_s: float, affinity: str = ""
    ) -> AsyncIterator[Payload]:
        """See Role."""
        number = await self._ask(op, payload)
        while (record := await self._next(number)).kind != "done":
            yield dict(record.payload)
