"""Roles reply as recorded; the examples of the router are waited for until they were there."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from streamsvc.answers import intents, router
from streamsvc.core.errors import CapacityError, DeadlineMissed, WorkerError
from streamsvc.evaluation.bundle import Record
from streamsvc.evaluation.replayed_roles import Examples, ReplayedRole

CALL = Record(1, "call", 0.0, {"call": 7}, {})


def role(*told: Record | None) -> ReplayedRole:
    left = list(told)

    async def turn(key: tuple[str, ...], digest: str) -> Record | None:
        return left.pop(0)

    return ReplayedRole("think", turn, Examples())


def reply(kind: str, **fields: Any) -> Record:
    return Record(2, kind, 0.0, fields, {"text": "la"})


async def test_replies_items_and_failures_come_as_recorded() -> None:
    assert await role(CALL, reply("reply")).call("x", {}, deadline_in_s=1) == {"text": "la"}
    items = role(CALL, reply("item"), reply("item"), reply("done")).stream("x", {}, deadline_in_s=1)
    assert [item async for item in items] == [{"text": "la"}] * 2
    failed = {"class": "CapacityError", "message": "full", "retry_after": 2.0}
    with pytest.raises(CapacityError):
        await role(CALL, reply("failed", error=failed)).call("x", {}, deadline_in_s=1)


async def test_who_waits_for_what_was_dropped_is_let_on() -> None:
    with pytest.raises(TimeoutError):
        await role(CALL, reply("dropped")).call("x", {}, deadline_in_s=1)


@pytest.mark.parametrize("told", [(None,), (CALL, None)])
async def test_after_the_recording_nobody_replies(told: tuple[Record | None, ...]) -> None:
    with pytest.raises(WorkerError):
        await role(*told).call("x", {}, deadline_in_s=1)


async def test_the_examples_are_waited_for_and_given_up() -> None:
    examples, texts = Examples(), intents.examples()
    preparing = asyncio.create_task(router.prepare(examples, 0.0))
    waiting = asyncio.create_task(examples.call("texts", {"texts": texts[:1]}, deadline_in_s=0.0))
    await asyncio.sleep(0.01)
    examples.give_up()
    with pytest.raises(DeadlineMissed):
        await waiting
    assert not await preparing
    waiting = asyncio.create_task(examples.call("texts", {"texts": texts[1:2]}, deadline_in_s=0.0))
    await asyncio.sleep(0)
    vectors = np.random.default_rng(0).normal(size=(len(texts), 4)).astype(np.float32)
    examples.tell(vectors[:-1])  # of other examples: of no use
    assert not waiting.done()
    examples.tell(vectors)
    assert np.array_equal((await waiting)["vectors"], vectors[1:2])
    assert await router.prepare(examples)
