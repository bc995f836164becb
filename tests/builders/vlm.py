"""A vision language model's side of a session, with a stand-in for the model."""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakKeyDictionary

from streamsvc.answers.rules.parse import parsed
from streamsvc.answers.rules.visual_questions import Target
from streamsvc.answers.vlm_reader import VlmReader

from streamsvc.answers.grounding import Clause
from streamsvc.core import clock, config
from streamsvc.core.options import SessionOptions, VisionOptions
from streamsvc.core.types import Question
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision.vlm import VlmSession
from tests.fakes.host import context
from tests.fakes.vlm_role import Model, jpeg, keyframe

_READERS: WeakKeyDictionary[VlmSession, VlmReader] = WeakKeyDictionary()  # one a session: it has the window


def vlm_session(
    model: Model,
    line: Timeline,
    *,
    gpu: bool = False,
    lossless: bool = False,
    adapter: str | None = None,
) -> VlmSession:
    """`gpu`: its engine keeps what it has read."""
    groups: dict[str, Any] = {"models": {"profile": "gpu"}, "think": {"model": "tiny"}} if gpu else {}
    options = SessionOptions(vision=VisionOptions(adapter=adapter), lossless=lossless)
    vlm = VlmSession(context(settings=config.load(None, **groups), options=options), model)
    _READERS[vlm] = VlmReader("s", vlm, line)
    return vlm


async def seeing(model: Model, *ats: float, line: Timeline | None = None) -> VlmSession:
    """One that has been shown keyframes, which are on its timeline."""
    line = line if line is not None else Timeline()
    vlm = vlm_session(model, line)
    running = asyncio.create_task(vlm.encode_keyframes())
    for at in ats:
        line.add(keyframe(at))
        vlm.put(at, jpeg(f"at {at}"))
        await clock.sleep(model.takes + 0.1)
    vlm.close()
    await running
    return vlm


async def asked(
    vlm: VlmSession,
    text: str = "What colour is the car?",
    *,
    way: Target = "look",
    seconds: float = 3.0,
    words: int = 33,
    **more: Any,
) -> list[Clause]:
    """The clauses of an answer."""
    question = parsed(Question("q", text, 60.0, clock.now() + seconds, **more))
    return [clause async for clause in _READERS[vlm].clauses(question, way, words)]


def texts(clauses: list[Clause]) -> list[str]:
    return [clause.text for clause in clauses]
