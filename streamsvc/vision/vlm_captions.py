"""Scene captions by the model that sees (`think.scenes`), beside those made by rule, in their own time, and marked as the model's.

    eye -> note -> the newest view that waits -> run -> the model, in a lull -> caption -> tell

Nothing here can check what a model says of a picture: it goes on no time line, and no answer or alert stands on it. Where the model fails,
is interrupted by a question or has nothing new to say, the caption made by rule is all there is.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import structlog

from streamsvc.core import clock, metrics
from streamsvc.core.errors import StreamsvcError, WorkerError
from streamsvc.core.queues import Latest
from streamsvc.core.types import Evidence, Scene, Sight
from streamsvc.timeline.text import QUESTION_WORDS, terms
from streamsvc.timeline.timeline import labels_of
from streamsvc.vision.vlm import VlmSession
from streamsvc.vision.vlm_context import Item, clean, declined, ended, of_words
from streamsvc.workers.idle_gate import IdleGate

log = structlog.get_logger()
ANOTHER = ("first", "scene")  # keyframes that show another scene than the one before
UNLIKE = 0.7  # ... and so does one whose vector has a smaller cosine: in real clips cuts had 0.4 to 0.6, movement in a scene mostly more
STILL, STILL_SECONDS = 2, 300.0  # captions in so many seconds, at most, while the scene stays the same
PATIENCE = 5.0  # seconds that a view waits for a lull
SECONDS = 6.0  # for a caption: it is no use when the next scene is there
TOKENS = 48  # of a caption
MOST_WORDS = 20  # ... and words of it: it is shown whole or not at all
_FIRST = "Say in one plain sentence of at most 15 words what the picture shows."
_NEXT = (
    'Before, it was told: "{before}" Say in one plain sentence of at most 15 words what the last picture shows that is new. '
    "If nothing is, answer: nothing new."
)
_RULES = " Name no person, quote no text, guess nothing."
_LEAD = re.compile(
    r"(?:in the (?:\w+ )?(?:picture|image),?|the (?:\w+ )?(?:picture|image)(?: now)? shows) ", re.IGNORECASE
)
_SAME = re.compile(
    r"\b(?:nothing (?:is |has |was )?(?:new|else|changed|different)|no (?:new|(?:\w+ )?changes?|(?:\w+ )?differences?)|unchanged|"
    r"(?:the )?same|as before|still|remains?|continues?)\b"
)


@dataclass(frozen=True, slots=True)
class View:
    """A keyframe that may be worth a caption. `rule`: the caption that the rules made of it, or ""."""

    sight: Sight
    jpeg: bytes = field(repr=False)
    rule: str


class VlmCaptioner:
    """What captions the scenes of one session.

    Args:
        session: its id.
        seer: the model.
        lull: the time between questions.
        every: seconds between two captions, at least.
        tell: publishes one.
    """

    def __init__(
        self, session: str, seer: VlmSession, lull: IdleGate, every: float, tell: Callable[[Scene], None]
    ) -> None:
        self._dropped = metrics.frames.labels("dropped_scene")
        self._views: Latest[View] = Latest(lambda view: self._dropped.inc())
        self._session, self._seer, self._lull, self._every, self._tell = session, seer, lull, every, tell
        self._ended = asyncio.Event()  # no more views come
        self._another = False  # a keyframe of another scene has come since the model was asked
        self._spoken: Any = None  # the vector of the picture that it spoke of last, shape (d,)
        self._next = 0.0  # monotonic seconds at which it may be asked again
        self._before: tuple[Item, str] | None = None  # the last picture that it told of, and how
        self._told: deque[float] = deque(maxlen=STILL)  # session seconds of the last captions

    def note(self, reason: str, sight: Sight, jpeg: bytes, rule: Scene | None) -> None:
        """Take a keyframe that was looked at. Worth telling of is another scene, or another thing in it. Nothing here waits.

        Args:
            reason: of the keyframe.
            sight: what was seen in it, with its vector.
            jpeg: the picture.
            rule: the caption that the rules made of it, if they told anew.
        """
        another = reason in ANOTHER
        self._another = self._another or another
        if (another or rule is not None or self._unlike(sight)) and not sight.blank:
            self._views.put(View(sight, jpeg, rule.text if rule is not None else ""))

    def _unlike(self, sight: Sight) -> bool:
        """Whether a picture is of another scene than that of which the model spoke last."""
        return self._spoken is None or float(sight.embedding @ self._spoken) < UNLIKE

    def close(self) -> None:
        """Take nothing more; what has begun is brought to its end. May be called twice."""
        self._views.close()
        self._ended.set()

    async def run(self) -> None:
        """Tell of the newest view, again and again, until it is closed; a failure costs one caption."""
        async for batch in self._views.batches():
            view = batch[0]
            if not await self._due():
                self._dropped.inc()
                continue
            if len(self._views):
                self._dropped.inc()
                view = await self._views.get()
            another, self._another = (
                self._another or self._unlike(view.sight),
                False,
            )  # it may have spoken of this scene since
            often = len(self._told) == STILL and view.sight.at - self._told[0] < STILL_SECONDS
            if not another and (often or not view.rule):
                continue
            self._next = clock.now() + self._every
            try:
                await self._describe(view)
            except TimeoutError:
                metrics.deadline_missed.labels("scene", "given_up").inc()
            except StreamsvcError as error:
                metrics.deadline_missed.labels("scene", "skipped").inc()
                log.warning(
                    "the model that sees told nothing of a scene", session=self._session, reason=error.code
                )

    async def _due(self) -> bool:
        """Wait until the model may be asked again; False: the stream has ended before."""
        try:
            async with asyncio.timeout_at(self._next):
                await self._ended.wait()
        except TimeoutError:
            return True
        return clock.now() >= self._next

    async def _describe(self, view: View) -> None:
        """Ask the model, and tell what it says if that is worth it.

        Raises:
            TimeoutError: somebody asks something. StreamsvcError: the model fails.
        """
        sight, at = view.sight, view.sight.at
        item = Item(
            at,
            at,
            "picture",
            labels_of(sight) or "a picture",
            await self._seer.encoded(view.jpeg, self._views),
        )
        async with self._lull.while_idle(PATIENCE):
            began = clock.now()
            self._next = began + self._every
            said = await self._said(item)
        self._spoken = sight.embedding
        text = caption(said, [view.rule, self._before[1] if self._before is not None else ""])
        if text:
            self._before = item, text
            self._told.append(at)
            evidence = (Evidence(at, at, "sight", item.text, at),)
            stages = {"describe": clock.now() - began}
            self._tell(
                Scene(sight.session, sight.track, at, sight.arrived, text, at, at, evidence, stages, "model")
            )

    async def _said(self, item: Item) -> str:
        """The model's first sentence about a picture, beside the one that it told of before."""
        before, question = [], _FIRST
        if self._before is not None:
            before, question = [self._before[0]], _NEXT.format(before=self._before[1])
        text, pieces, seen = "", 0, False
        told = self._seer.aside([*before, item], question + _RULES, TOKENS, SECONDS)
        async with aclosing(told) as stream:  # type: ignore[type-var]
            async for piece in stream:
                seen = seen or item.at in piece.get("shown", ())
                text = (text + str(piece.get("text", ""))).lstrip()
                pieces += bool(piece.get("text"))
                if not seen or piece.get("cut") or pieces >= TOKENS:
                    raise WorkerError("the model was not shown the picture, or has not come to an end")
                if end := ended(text):
                    return text[:end]
        return text


def caption(said: str, known: Iterable[str]) -> str:
    """A model's sentence as a caption; "" where it does not know, is too long, is about words, or tells nothing that is not known.

    Args:
        said: by the model.
        known: what has been told of the scene, and of the one before.
    """
    text = clean(said)
    if lead := _LEAD.match(text):
        text = text[lead.end()].upper() + text[lead.end() + 1 :]
    if len(text.split()) > MOST_WORDS or declined(text) or of_words(text) or _SAME.search(text.lower()):
        return ""
    return text if set(terms(text)) - QUESTION_WORDS.union(*map(terms, known)) else ""
