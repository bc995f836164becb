"""Think roles that see: a scripted one, and the real engines in a worker process."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from streamsvc.core import clock
from streamsvc.core.context import Roles
from streamsvc.core.roles import Payload, Role
from streamsvc.core.types import Cue, Keyframe, ScreenText, TextLine, VideoFrame, Word
from streamsvc.service.session import Session
from streamsvc.workers.supervisor import Worker
from tests.builders.session import Models, make
from tests.fakes.embed_role import routing_role
from tests.fakes.role import FakeRole, Piece


@dataclass
class Model(FakeRole):
    """A think role that sees. It knows a picture by its bytes and is shown the newest `most` encoded ones.

    `says`: pieces of each answer; `tells`: pieces of a scene caption (a request aside); see FakeRole.streams.
    """

    says: list[str | float | Exception] = field(default_factory=lambda: ["A red car."])
    tells: list[str | float | Exception] = field(default_factory=lambda: ["A cat on a mat."])
    most: int = 4
    failures: list[Exception] = field(default_factory=list)  # of the next calls of `encode`
    takes: float = 0.0  # seconds for a picture
    more: dict[str, Any] = field(default_factory=dict)  # in the last piece
    encoded: list[str] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    aside: list[tuple[float, dict[str, Any]]] = field(default_factory=list)  # monotonic seconds, request
    unread: Exception | None = None  # of each reading ahead
    affinity: str = "s"  # of each call: the session

    def __post_init__(self) -> None:
        super().__post_init__()
        self.results = {
            "drop": {},
            "encode": self._encode,
            "extend": lambda payload: self.unread or {"tokens": 9, "left": 0},
        }
        self.streams = {"generate": self._generate}
        self.delay = lambda op, payload: self.takes if op == "encode" and not self._known(payload) else 0.0

    @property
    def read(self) -> list[dict[str, Any]]:
        """What was read ahead."""
        return self.payloads("extend")

    @property
    def at_work(self) -> int:
        """Answers and captions in flight."""
        return self.in_flight.get("generate", 0)

    @property
    def together(self) -> int:
        """The most of them at once."""
        return self.most_in_flight.get("generate", 0)

    async def call(self, op: str, payload: Payload, *, deadline_in_s: float, affinity: str = "") -> Payload:
        """See Role."""
        assert affinity == self.affinity
        return await super().call(op, payload, deadline_in_s=deadline_in_s, affinity=affinity)

    def _name(self, payload: Payload) -> str:
        data = payload["jpeg"].tobytes()
        return str(data.decode() if data.isascii() else hashlib.blake2b(data, digest_size=8).hexdigest())

    def _known(self, payload: Payload) -> bool:
        return self._name(payload) in self.encoded

    def _encode(self, payload: Payload) -> Payload | Exception:
        known, name = self._known(payload), self._name(payload)
        if not known:
            if self.failures:
                return self.failures.pop(0)
            self.encoded.append(name)
        return {"picture": name, "tokens": 4, "known": known}

    def _generate(self, payload: Payload) -> list[Piece]:
        if "prompt" in payload:
            return []  # it has no phrase to add
        if aside := payload["session"].endswith(" aside"):
            self.aside.append((clock.now(), payload))
        else:
            self.asked.append(payload)
        known = [item["number"] for item in payload["items"] if item.get("picture") in self.encoded]
        shown = known[-self.most :] if self.most else []
        return [
            {"text": "", "shown": shown},
            *(self.tells if aside else self.says),
            {"text": "", **self.more},
        ]


class Seeing(Models):
    """The fake models of a session, with a think role that sees."""

    def __init__(self, think: Role, embed: Role, sees: Role | None = None) -> None:
        super().__init__(embed=embed)
        self._think = think
        self._sees = sees or think

    def roles(self) -> Roles:
        return replace(super().roles(), think=self._think, vlm=self._sees, reads=True)


ROUTES = {"what": "sight", "is": "sight", "when": "occurrences", "how": "count"}  # by the first word


def sighted(
    think: Role, /, routes: Mapping[str, str] = ROUTES, sees: Role | None = None, **groups: Any
) -> Session:
    """A session as of `builders.session.make` whose answers are by a model that sees.

    `routes`: as of `routing_role`. `sees`: a model beside `think`, which then is shown no picture.
    """
    groups["think"] = {"model": "seer", **groups.get("think", {})}
    groups.setdefault("models", {"profile": "gpu"})
    return make(Seeing(think, routing_role(**routes), sees), **groups)


def jpeg(name: str) -> bytes:
    """Bytes that stand for the picture `name`."""
    return name.encode()


def image(colour: str = "blue") -> bytes:
    """An image as an asker sends it."""
    page = io.BytesIO()
    Image.new("RGBA", (40, 30), colour).save(page, "PNG")
    return page.getvalue()


def keyframe(at: float) -> Keyframe:
    """A keyframe at a session second."""
    return Keyframe("s", "main", at, 0.0, VideoFrame("s", "main", at, 0.0, None, 2, 2), "scene")


def said(start: float, text: str) -> Cue:
    """A final caption, a word each 0.3 s."""
    words = tuple(Word(word, start + 0.3 * n, start + 0.3 * n + 0.25) for n, word in enumerate(text.split()))
    return Cue("s", "main", start, 0.0, text, words, len(words), True)


def read(at: float, *lines: str) -> ScreenText:
    """Screen text, one line below the other."""
    placed = tuple(TextLine(text, 0.99, 0.1, 0.1 + 0.1 * n, 0.5, 0.05) for n, text in enumerate(lines))
    return ScreenText("s", "main", at, 0.0, None, placed, at)


@contextlib.asynccontextmanager
async def working(engine: str, options: dict[str, Any]) -> AsyncIterator[Role]:
    """Run `engine` in a worker process; yields its think role."""
    worker = Worker("think", {"think": engine}, options)
    running = asyncio.create_task(worker.run())
    try:
        await worker.wait_ready()
        yield worker.role("think")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
