"""A vision language model's side of a session, with a stand-in for the model."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from streamsvc.answers.model_reader import Clause, ModelReader, Prompt
from streamsvc.answers.reading import Reading
from streamsvc.answers.route import Reader, Route
from streamsvc.core import clock, config
from streamsvc.core.options import SessionOptions, VisionOptions
from streamsvc.core.types import Question
from streamsvc.timeline.passages import Passage
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision.vlm import VlmSession
from tests.builders.session import Models
from tests.fakes.host import context
from tests.fakes.vlm_role import Model, jpeg, keyframe

_READERS: WeakKeyDictionary[VlmSession, ModelReader] = WeakKeyDictionary()  # one a session: it has the window


async def _unranked(*_: Any) -> None:
    """There is no cross-encoder."""


def vlm_session(
    model: Model,
    line: Timeline,
    *,
    lossless: bool = False,
    adapter: str | None = None,
    profile: str = "gpu",
) -> VlmSession:
    """One whose questions are answered from the window of a timeline (`asked`)."""
    groups: dict[str, Any] = {"models": {"profile": profile}, "think": {"model": "tiny"}}
    if profile == "remote":
        groups["remote"] = {"url": "http://127.0.0.1:1/v1", "model": "m"}
    options = SessionOptions(vision=VisionOptions(adapter=adapter), lossless=lossless)
    roles = replace(Models().roles(), think=model, vlm=model, reads=True)
    made = context(settings=config.load(None, **groups), options=options, roles=roles)
    vlm = VlmSession(made, model)
    reading = Reading(made, model, line, vlm.keys)
    _READERS[vlm] = ModelReader(made, line, reading, _unranked, vlm)
    return vlm


async def seeing(model: Model, *ats: float, line: Timeline | None = None, profile: str = "gpu") -> VlmSession:
    """One that has been shown keyframes, which are on its timeline."""
    line = line if line is not None else Timeline()
    vlm = vlm_session(model, line, profile=profile)
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
    reader: Reader = "sight",
    seconds: float = 3.0,
    picture: str = "",
    **more: Any,
) -> list[Clause]:
    """The clauses of an answer at session second 60."""
    question = Question("q", text, 60.0, clock.now() + seconds, **more)
    passages: asyncio.Future[list[Passage]] = asyncio.get_running_loop().create_future()
    passages.set_result([])
    prompt = Prompt(question, Route(reader=reader), (text,), picture)
    return [clause async for clause in _READERS[vlm].clauses(prompt, passages)]


def texts(clauses: list[Clause]) -> list[str]:
    return [clause.text for clause in clauses]
