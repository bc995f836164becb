"""A stand-in for a think role that sees: it keeps what it was told, and answers by script; and the real ones, in a worker process."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

from streamsvc.core import clock
from streamsvc.core.context import Roles
from streamsvc.core.errors import DeadlineMissed
from streamsvc.core.roles import Role
from streamsvc.core.types import Cue, Keyframe, ScreenText, TextLine, VideoFrame, Word
from streamsvc.service.session import Session
from streamsvc.workers.supervisor import Worker
from tests.builders.session import Models, make


@dataclass
class Model:
    """A stand-in for the think role. It knows a picture by its bytes, and shows the newest `most` of those it was told of.

    `says`: pieces of each answer; an exception is raised in its place, a number is a wait in seconds. `tells`: of what is asked aside.
    """

    says: list[str | float | Exception] = field(default_factory=lambda: ["A red car."])
    tells: list[str | float | Exception] = field(default_factory=lambda: ["A cat on a mat."])
    most: int = 4
    failures: list[Exception] = field(default_factory=list)  # of the next calls of `encode`
    takes: float = 0.0  # seconds for a picture
    more: dict[str, Any] = field(default_factory=dict)  # in the last piece
    encoded: list[str] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    aside: list[tuple[float, dict[str, Any]]] = field(
        default_factory=list
    )  # monotonic seconds, and what was asked aside then
    read: list[dict[str, Any]] = field(default_factory=list)  # ahead
    unread: Exception | None = None  # of each reading ahead
    affinity: str = "s"  # of each call: the session
    at_work: int = 0
    together: int = 0  # the most answers at once

    async def call(
        self, op: str, payload: dict[str, Any], *, deadline_in_s: float, affinity: str = ""
    ) -> dict[str, Any]:
        assert affinity == self.affinity
        if op == "extend":
            self.read.append(payload)
            if self.unread is not None:
                raise self.unread
            return {"tokens": 9}
        assert op == "encode"
        data = payload["jpeg"].tobytes()
        name = data.decode() if data.isascii() else hashlib.blake2b(data, digest_size=8).hexdigest()
        if known := name in self.encoded:
            return {"picture": name, "tokens": 4, "known": known}
        await clock.sleep(self.takes)
        if self.failures:
            raise self.failures.pop(0)
        self.encoded.append(name)
        return {"picture": name, "tokens": 4, "known": known}

    async def stream(
        self, op: str, payload: dict[str, Any], *, deadline_in_s: float, affinity: str = ""
    ) -> AsyncIterator[dict[str, Any]]:
        assert op == "generate"
        if "prompt" in payload:
            return  # it has no phrase to add
        deadline = clock.now() + deadline_in_s
        if "aside" in payload:
            self.aside.append((clock.now(), payload))
        else:
            self.asked.append(payload)
        self.at_work += 1
        self.together = max(self.together, self.at_work)
        try:
            shown = (
                [item["at"] for item in payload["items"] if item.get("picture") in self.encoded][-self.most :]
                if self.most
                else []
            )
            yield {"text": "", "shown": shown}
            for piece in self.tells if "aside" in payload else self.says:
                if isinstance(piece, Exception):
                    raise piece
                if isinstance(piece, float):
                    await clock.sleep(min(piece, deadline - clock.now()))
                    if clock.now() >= deadline:
                        raise DeadlineMissed("late")
                else:
                    yield {"text": piece}
            yield {"text": "", **self.more}
        finally:
            self.at_work -= 1


class _Seeing(Models):
    """The stand-in models of a session, but for one that sees."""

    def __init__(self, think: Role) -> None:
        super().__init__()
        self._think = think

    def roles(self) -> Roles:
        return replace(super().roles(), think=self._think, vlm=self._think)


def sighted(think: Role, /, **groups: Any) -> Session:
    """A session as of `stage.make` whose answers are by a model that sees."""
    groups["think"] = {"model": "seer", **groups.get("think", {})}
    return make(_Seeing(think), models={"profile": "gpu"}, **groups)


def jpeg(name: str) -> bytes:
    """What stands for a picture of this name."""
    return name.encode()


def keyframe(at: float) -> Keyframe:
    """One that was shown at a session second."""
    return Keyframe("s", "main", at, 0.0, VideoFrame("s", "main", at, 0.0, None, 2, 2), "scene")


def said(start: float, text: str) -> Cue:
    """A closed caption, a word each 0.3 s."""
    words = tuple(Word(word, start + 0.3 * n, start + 0.3 * n + 0.25) for n, word in enumerate(text.split()))
    return Cue("s", "main", start, 0.0, text, words, len(words), True)


def read(at: float, *lines: str) -> ScreenText:
    """A screen of text, one line below the other."""
    placed = tuple(TextLine(text, 0.99, 0.1, 0.1 + 0.1 * n, 0.5, 0.05) for n, text in enumerate(lines))
    return ScreenText("s", "main", at, 0.0, None, placed, at)


@contextlib.asynccontextmanager
async def working(engine: str, options: dict[str, Any]) -> AsyncIterator[Role]:
    """The think role of a worker process that has an engine."""
    worker = Worker("think", {"think": engine}, options)
    running = asyncio.create_task(worker.run())
    try:
        await worker.wait_ready()
        yield worker.role("think")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
