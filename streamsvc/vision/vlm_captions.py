"""Scene captions by the vision language model (`think.scenes`): background work beside the rules'.

    vision pipeline -> offer -> newest candidate -> run -> model (idle gate) -> caption -> dispatch

Nothing here can check what the model says of a picture, so its captions go on no timeline, and no answer or
alert stands on them. Where the model fails, is interrupted by a question or has nothing new to say, the
caption made by rule is all there is. A caption is shown while it grows (`SceneDelta`), from the first word on
that says something new; one that comes to nothing is withdrawn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import structlog
from numpy.typing import NDArray

from streamsvc.core import clock, metrics
from streamsvc.core.context import SessionContext
from streamsvc.core.errors import CapacityError, StreamsvcError, WorkerError
from streamsvc.core.latency import WAIT
from streamsvc.core.queues import Latest
from streamsvc.core.types import Evidence, Scene, Sight, Stages
from streamsvc.core.units import SceneDelta
from streamsvc.timeline.keyframe_history import labels_of
from streamsvc.timeline.lines import Line, new_line
from streamsvc.timeline.notes import UNLABELLED
from streamsvc.vision.caption_text import begun, caption
from streamsvc.vision.vlm import VlmSession
from streamsvc.vision.vlm_text import clause_end

log = structlog.get_logger()
NEW_SCENE_REASONS = ("first", "scene")  # keyframe reasons that stand for another scene than before
# Below this cosine similarity of embeddings two pictures are of different scenes: in real clips cuts had 0.4
# to 0.6, movement within a
# scene mostly more.
SAME_SCENE = 0.7
SAME_SCENE_CAPTIONS = 2  # at most, in SAME_SCENE_SECONDS, while the scene stays the same
SAME_SCENE_SECONDS = 300.0
IDLE_PATIENCE = 5.0  # seconds that a candidate waits for an idle moment
UNREAD_SECONDS = 60  # that a candidate waits for its picture to be read along, while no newer one waits
GENERATE_SECONDS = 6.0  # for one caption: it is no use once the next scene is there
MAX_TOKENS = 48  # of a caption
_FIRST_PROMPT = "Say in one plain sentence of at most 15 words what the picture shows."
_NEXT_PROMPT = (
    'Before, it was told: "{before}" Say in one plain sentence of at most 15 words what the last picture '
    "shows that is new. If nothing is, answer: nothing new."
)
_RULES = " Name no person, quote no text, guess nothing."


@dataclass(frozen=True, slots=True)
class Candidate:
    """A keyframe that may be worth a caption. `rule`: the caption that the rules made of it, or ""."""

    sight: Sight
    jpeg: bytes = field(repr=False)
    rule: str


class VlmCaptioner:
    """Captions the scenes of one session with the vision language model.

    Args:
        context: of the session.
        vlm: the model.
    """

    def __init__(self, context: SessionContext, vlm: VlmSession) -> None:
        self._dropped = metrics.frames.labels("dropped_scene")
        self._candidates: Latest[Candidate] = Latest(lambda candidate: self._dropped.inc())
        self._context = context
        self._vlm = vlm
        self._interval = context.settings.think.scene_seconds  # between two captions, at least
        self._closed = asyncio.Event()
        self._new_scene = False  # a keyframe of another scene has come since the model was asked
        self._captioned: NDArray[np.float32] | None = (
            None  # embedding of the picture last captioned, shape (d,)
        )
        self._next = 0.0  # monotonic seconds at which the model may be asked again
        self._numbered = 0  # pictures that the model was asked about
        self._previous: tuple[Line, str] | None = None  # the picture last captioned, and its caption
        self._recent: deque[float] = deque(maxlen=SAME_SCENE_CAPTIONS)  # session seconds of the last captions

    def offer(self, reason: str, sight: Sight, jpeg: bytes, rule: Scene | None) -> None:
        """Offer a keyframe as a candidate: one of another scene, or with a new caption by rule.

        Args:
            reason: of the keyframe.
            sight: what the vision models found in it, with its embedding.
            jpeg: the picture.
            rule: the caption that the rules made of it, if that is new.
        """
        new_scene = reason in NEW_SCENE_REASONS
        self._new_scene = self._new_scene or new_scene
        if (new_scene or rule is not None or self._differs(sight)) and not sight.blank:
            self._candidates.put(Candidate(sight, jpeg, rule.text if rule is not None else ""))

    def _differs(self, sight: Sight) -> bool:
        """Whether a picture is of another scene than the one last captioned."""
        return self._captioned is None or float(sight.embedding @ self._captioned) < SAME_SCENE

    def close(self) -> None:
        """Close the input; a caption that is being made is completed. Idempotent."""
        self._candidates.close()
        self._closed.set()

    async def run(self) -> None:
        """Caption the newest candidate, again and again, until the input is closed.

        A failure costs one caption.
        """
        async for batch in self._candidates.batches():
            candidate = batch[0]
            if not await self._wait_for_turn():
                self._dropped.inc()
                continue
            if len(self._candidates):
                self._dropped.inc()
                candidate = await self._candidates.get()
            new_scene = self._new_scene or self._differs(candidate.sight)  # it may have been captioned since
            self._new_scene = False
            if not new_scene and (not candidate.rule or self._captioned_often(candidate.sight.at)):
                continue
            self._next = clock.now() + self._interval
            try:
                await self._caption(candidate)
            except TimeoutError:
                metrics.deadline_missed.labels("scene", "given_up").inc()
            except StreamsvcError as error:
                metrics.deadline_missed.labels("scene", "skipped").inc()
                log.warning("the VLM captioned no scene", session=self._context.session, reason=error.code)

    def _captioned_often(self, at: float) -> bool:
        return len(self._recent) == SAME_SCENE_CAPTIONS and at - self._recent[0] < SAME_SCENE_SECONDS

    async def _wait_for_turn(self) -> bool:
        """Wait until the model may be asked again; False: the stream has ended before."""
        try:
            async with asyncio.timeout_at(self._next):
                await self._closed.wait()
        except TimeoutError:
            return True
        return clock.now() >= self._next

    async def _caption(self, candidate: Candidate) -> None:
        """Ask the model, and publish its caption where it says something new.

        Raises:
            TimeoutError: a question has arrived. StreamsvcError: the model fails.
        """
        sight = candidate.sight
        at = sight.at
        key = await self._vlm.encode_newest(candidate.jpeg, self._candidates)
        line = replace(
            new_line("picture", at, at, labels_of(sight) or UNLABELLED, at, key), number=self._numbered + 1
        )
        self._numbered = line.number
        known = candidate.rule, self._previous[1] if self._previous is not None else ""
        with _Growing(self._context, sight, f"scene_{line.number}", known) as growing:
            sentence = await self._told(line, growing)
            self._captioned = sight.embedding
            if text := caption(sentence, known):
                self._previous = line, text
                self._recent.append(at)
                growing.complete(text, Evidence(at, at, "sight", line.text, at))

    async def _told(self, line: Line, growing: _Growing) -> str:
        """The model's first sentence, once it has read the picture. Raises as `_caption`."""
        for left in reversed(range(UNREAD_SECONDS)):
            try:
                async with self._context.roles.idle.background(IDLE_PATIENCE):
                    growing.began = clock.now()
                    self._next = growing.began + self._interval
                    return await self._first_sentence(line, growing)
            except CapacityError as error:
                if error.code != "unread" or not left or len(self._candidates) or self._closed.is_set():
                    raise
            await clock.sleep(1.0)
        raise AssertionError("the last try returns or raises")

    async def _first_sentence(self, line: Line, growing: _Growing) -> str:
        """The model's first sentence about a picture, shown beside the one that it captioned before."""
        before: list[Line] = []
        question = _FIRST_PROMPT
        if self._previous is not None:
            before = [self._previous[0]]
            question = _NEXT_PROMPT.format(before=self._previous[1])
        text = ""
        pieces = 0
        seen = False
        generated = self._vlm.generate_aside([*before, line], question + _RULES, MAX_TOKENS, GENERATE_SECONDS)
        async with aclosing(generated) as stream:  # type: ignore[type-var]
            async for piece in stream:
                seen = seen or line.number in piece.get("shown", ())
                text = (text + str(piece.get("text", ""))).lstrip()
                pieces += bool(piece.get("text"))
                if not seen or piece.get("cut") or pieces >= MAX_TOKENS:
                    raise WorkerError("the VLM was not shown the picture, or its text was cut off")
                if end := clause_end(text):
                    return text[:end]
                growing.grow(text)
        return text


class _Growing:
    """One caption while the model makes it: complete in the end, or withdrawn as the context is left.

    Args:
        context: of the session.
        sight: of the picture.
        scene_id: of its events.
        known: as for `caption`.

    `began`: monotonic seconds at which the model was asked.
    """

    def __init__(self, context: SessionContext, sight: Sight, scene_id: str, known: tuple[str, str]) -> None:
        self.began = 0.0
        self._dispatch = context.host.dispatch
        self._sight = sight
        self._scene_id = scene_id
        self._known = known
        self._shown = ""
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._show("", withdrawn=True)

    def grow(self, unfinished: str) -> None:
        """Show what is new of the sentence, whole words alone."""
        text = begun(unfinished, self._known)
        if len(text) > len(self._shown) and text.startswith(self._shown):
            self._show(text[len(self._shown) :])
            self._shown = text

    def complete(self, text: str, evidence: Evidence) -> None:
        """Publish the caption."""
        self._shown = ""
        sight = self._sight
        head = sight.session, sight.track, sight.at, sight.arrived
        stages = self._stages()
        self._dispatch(Scene(*head, text, sight.at, sight.at, (evidence,), stages, "model", self._scene_id))

    def _show(self, text: str, *, withdrawn: bool = False) -> None:
        sight = self._sight
        head = sight.session, sight.track, sight.at, sight.arrived
        named = self._scene_id, self._count, text, sight.at
        self._dispatch(SceneDelta(*head, *named, self._stages(), withdrawn))
        self._count += 1

    def _stages(self) -> Stages:
        return (*self._sight.stages, (WAIT, self.began), ("describe", clock.now()))
