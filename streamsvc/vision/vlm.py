"""One session's side of the vision language model (VLM): keyframes encoded ahead of questions.

    vision pipeline -> pictures -> encode_keyframes -> keys -> lines of the window (timeline/window.py)

The window is read by `answers.reading` alone; here the model is asked only aside, of single keyframes.

The model's failure or lateness costs only its own words: callers go on with what the rules say.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog

from streamsvc.core import clock, metrics
from streamsvc.core.config import Settings
from streamsvc.core.context import SessionContext
from streamsvc.core.errors import InvalidRequest, StreamsvcError
from streamsvc.core.queues import Ring
from streamsvc.core.roles import Payload, Role
from streamsvc.timeline.lines import Line

log = structlog.get_logger()
Picture = tuple[float, bytes]  # a keyframe: session seconds, JPEG

ENCODE_SECONDS = 10.0  # for one picture
# For one picture while no newer one waits: together longer than a worker may take to load its model.
TRIES = 12
RETRY_SECONDS = 1.0  # between tries
# pictures that wait where the source can wait (a file read as fast as possible); else the newest alone
LOSSLESS_QUEUE = 64
MAX_KEYS = 256  # keys of encoded pictures
_ADAPTER = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_adapter(name: str | None, settings: Settings) -> None:
    """Raise InvalidRequest ("no_adapter") where the VLM has no adapter of this name.

    None is the plain model.
    """
    if name is None:
        return
    if settings.models.profile != "gpu":
        raise InvalidRequest(
            f"adapters need the profile gpu; this service runs the profile {settings.models.profile}",
            code="no_adapter",
        )
    folder = settings.models.dir / "models" / "adapters"  # where engines/vlm.py looks
    files = folder.glob("*/adapter_model.safetensors")
    known = sorted(path.parent.name for path in files if _ADAPTER.fullmatch(path.parent.name))
    if name not in known:
        raise InvalidRequest(
            f"there is no adapter {name[:64]!r}; there are: {', '.join(known) or 'none'}", code="no_adapter"
        )


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the engine is asked to generate from.

    `cache_key`: names the kept keys and values of its context; a context of another key is never mixed with
    it. `instruction`: what stands before the items; "": the engine's own. `aside`: nothing of it is kept.
    """

    cache_key: str
    items: Sequence[Payload]
    question: str
    max_tokens: int
    aside: bool = False
    instruction: str = ""


class VlmSession:
    """One session's side of the vision language model.

    Args:
        context: of the session.
        think: the role with the ops `encode` and `generate` (engines/vlm.py).

    `keys`: the engine's keys of encoded keyframes, by session second; the newest MAX_KEYS.
    """

    def __init__(self, context: SessionContext, think: Role) -> None:
        lossless = context.options.lossless
        dropped = metrics.frames.labels("dropped_picture")
        self._pictures: Ring[Picture] = Ring(LOSSLESS_QUEUE if lossless else 1, lambda picture: dropped.inc())
        self._session = context.session
        self._think = think
        adapter = context.options.vision.adapter
        self._adapter: Payload = {"adapter": adapter} if adapter else {}
        # Where a picture is seconds of a core, what is asked aside is asked of those that have been read.
        self._aside: Payload = {"aside": True} | ({"kept": True} if context.roles.sight is not None else {})
        self.keys: dict[float, str] = {}
        self._newest: bytes | None = None  # the picture of the newest key
        self._idle = asyncio.Event()  # no picture is being encoded
        self._idle.set()

    # --- pictures ---

    def put(self, at: float, jpeg: bytes) -> None:
        """Queue a keyframe; where the queue is full the oldest is dropped and counted."""
        self._pictures.put((at, jpeg))

    def close(self) -> None:
        """Close the input; queued keyframes are still encoded. Idempotent."""
        self._pictures.close()

    async def encode_keyframes(self) -> None:
        """Encode queued keyframes until the input is closed and empty.

        A failure costs that keyframe alone.
        """
        async for batch in self._pictures.batches(1):
            at, jpeg = batch[0]
            self._idle.clear()
            try:
                self.keys[at] = await self.encode_newest(jpeg, self._pictures)
            except StreamsvcError as error:
                metrics.deadline_missed.labels("encode", "skipped").inc()
                log.warning("keyframe not encoded by the VLM", session=self._session, reason=error.code)
                if (
                    self._pictures.closed
                ):  # the stream has ended and the model is away: do not try picture by picture
                    metrics.deadline_missed.labels("encode", "skipped").inc(len(self._pictures))
                    break
            else:
                self._newest = jpeg
                while len(self.keys) > MAX_KEYS:
                    del self.keys[next(iter(self.keys))]
            if not len(self._pictures):
                self._idle.set()
        self._idle.set()

    async def encode_newest(self, jpeg: bytes, newer: Ring[Any]) -> str:
        """Encode a picture, with retries while nothing waits in `newer`; returns the engine's key of it.

        Raises:
            StreamsvcError: the engine's last failure.
        """
        for _ in range(TRIES - 1):
            try:
                return await self.encode(jpeg, ENCODE_SECONDS)
            except StreamsvcError as error:
                if not error.retryable or len(newer) or newer.closed:
                    raise
                await clock.sleep(RETRY_SECONDS)
        return await self.encode(jpeg, ENCODE_SECONDS)

    async def encode(self, jpeg: bytes, seconds: float) -> str:
        """Encode a picture within `seconds`; returns the engine's key of it. Raises StreamsvcError."""
        payload = {"jpeg": np.frombuffer(jpeg, dtype=np.uint8)}
        result = await self._think.call("encode", payload, deadline_in_s=seconds, affinity=self._session)
        return str(result["picture"])

    async def refresh(self, idle_by: float, encoded_by: float) -> None:
        """Wait for a keyframe on its way, and make sure that the engine has the newest.

        It may have restarted.

        Args:
            idle_by: monotonic seconds until which a keyframe on its way is waited for.
            encoded_by: monotonic seconds at which the newest must be encoded.

        Raises:
            StreamsvcError: the newest cannot be encoded.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(idle_by):
                await self._idle.wait()
        if self._newest is not None:
            await self.encode(self._newest, encoded_by - clock.now())

    # --- generation ---

    def generate(self, prompt: Prompt, seconds: float) -> AsyncIterator[Payload]:
        """Stream the engine's pieces of a text. Raises StreamsvcError: it fails, or is late."""
        payload: Payload = {
            "session": prompt.cache_key,
            "items": list(prompt.items),
            "question": prompt.question,
            "max_tokens": prompt.max_tokens,
            **self._adapter,
        }
        if prompt.instruction:
            payload["instruction"] = prompt.instruction
        if prompt.aside:
            payload |= self._aside
        return self._think.stream("generate", payload, deadline_in_s=seconds, affinity=self._session)

    def generate_aside(
        self, lines: Sequence[Line], question: str, tokens: int, seconds: float
    ) -> AsyncIterator[Payload]:
        """Stream a text about `lines` alone, in the background.

        It takes no cache that questions need. Raises StreamsvcError.
        """
        payloads = [line.payload() for line in lines]
        return self.generate(
            Prompt(f"{self._session} aside", payloads, question, tokens, aside=True), seconds
        )
