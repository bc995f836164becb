"""One session's side of the vision language model (VLM): keyframes encoded and read ahead of questions.

    vision pipeline -> pictures -> encode_keyframes -> keys -> context (vlm_context.py) -> generate

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
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision.vlm_context import Item, VlmContext, extended

log = structlog.get_logger()
Picture = tuple[float, bytes]  # a keyframe: session seconds, JPEG

ENCODE_SECONDS = 10.0  # for one picture
# For one picture while no newer one waits: together longer than a worker may take to load its model.
TRIES = 12
RETRY_SECONDS = 1.0  # between tries
# pictures that wait where the source can wait (a file read as fast as possible); else the newest alone
LOSSLESS_QUEUE = 64
MAX_KEYS = 256  # keys of encoded pictures
READ_AHEAD_EVERY = 2.0  # seconds between readings ahead, at least
READ_AHEAD_SECONDS = 2.0  # for one
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
    it. `aside`: nothing of it is kept.
    """

    cache_key: str
    items: Sequence[Payload]
    question: str
    max_tokens: int
    aside: bool = False


class VlmSession:
    """One session's side of the vision language model.

    Args:
        context: of the session.
        think: the role with the ops `encode`, `extend` and `generate` (engines/vlm.py).
        timeline: what is known so far; only read here.

    `turn`: held by the one question that uses the context: there is one context, and one cache of it in the
    engine.
    """

    def __init__(self, context: SessionContext, think: Role, timeline: Timeline) -> None:
        lossless = context.options.lossless
        dropped = metrics.frames.labels("dropped_picture")
        self.turn = asyncio.Lock()
        self._pictures: Ring[Picture] = Ring(LOSSLESS_QUEUE if lossless else 1, lambda picture: dropped.inc())
        self._session = context.session
        self._think = think
        self._timeline = timeline
        self._keeps_context = context.settings.models.profile == "gpu"  # such an engine keeps keys and values
        adapter = context.options.vision.adapter
        self._adapter: Payload = {"adapter": adapter} if adapter else {}
        self._keys: dict[float, str] = {}  # the engine's keys of encoded pictures, by session second
        self._newest: bytes | None = None  # the picture of the newest key
        self._vlm_context = VlmContext()
        self._idle = asyncio.Event()  # no picture is being encoded
        self._idle.set()
        self._next_read = 0.0  # monotonic seconds at which it may read ahead again

    @property
    def has_pictures(self) -> bool:
        """Whether the engine has encoded any keyframe of the session."""
        return bool(self._keys)

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
                self._keys[at] = await self.encode_newest(jpeg, self._pictures)
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
                while len(self._keys) > MAX_KEYS:
                    del self._keys[next(iter(self._keys))]
            if not len(self._pictures):
                self._idle.set()
                await self._read_ahead(at)
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

    # --- context ---

    def context_at(self, now: float) -> VlmContext:
        """The context, extended by what has become known until session second `now`.

        Only for the holder of `turn`.
        """
        self._vlm_context = extended(self._vlm_context, self._timeline, self._keys, now)
        return self._vlm_context

    async def _read_ahead(self, at: float) -> None:
        """Let the engine read the context while no question uses it.

        The keyframe of second `at` is left out: its sight may still be missing.
        """
        if not self._keeps_context or self.turn.locked() or clock.now() < self._next_read:
            return
        self._next_read = clock.now() + READ_AHEAD_EVERY
        async with self.turn:
            older = {when: key for when, key in self._keys.items() if when < at}
            longer = extended(self._vlm_context, self._timeline, older, at)
            if longer is self._vlm_context:
                return
            self._vlm_context = longer
            payload = {"session": self._session, "items": longer.payload(pictures=True), **self._adapter}
            with contextlib.suppress(StreamsvcError):  # then it is read with the next question
                await self._think.call(
                    "extend", payload, deadline_in_s=READ_AHEAD_SECONDS, affinity=self._session
                )

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
        if prompt.aside:
            payload["aside"] = True
        return self._think.stream("generate", payload, deadline_in_s=seconds, affinity=self._session)

    def generate_aside(
        self, items: Sequence[Item], question: str, tokens: int, seconds: float
    ) -> AsyncIterator[Payload]:
        """Stream a text about `items` alone, in the background.

        It takes no cache that questions need. Raises StreamsvcError.
        """
        payloads = [item.payload() for item in items]
        return self.generate(
            Prompt(f"{self._session} aside", payloads, question, tokens, aside=True), seconds
        )
