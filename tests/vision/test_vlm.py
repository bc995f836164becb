"""Keyframes reach the model ahead of questions.

What it says is shown clause by clause, or not at all; a failure costs itself alone.
"""

from __future__ import annotations

import asyncio
import itertools

import pytest

from streamsvc.answers.grounding import Clause
from streamsvc.core import clock, metrics
from streamsvc.core.errors import ConfigError, DeadlineMissed, WorkerError
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision import vlm
from tests.builders.vlm import asked, seeing, texts, vlm_session
from tests.fakes.vlm_role import Model, jpeg, keyframe, said


def missed(stage: str, action: str) -> float:
    return float(metrics.deadline_missed.labels(stage, action)._value.get())


# --- pictures ---


def test_keyframes_are_encoded_ahead_and_only_the_newest_waits_for_the_model(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        model = Model(takes=2.0)
        eye = vlm_session(model, Timeline())
        dropped = metrics.frames.labels("dropped_picture")._value.get()
        running = asyncio.create_task(eye.encode_keyframes())
        for at in (1.0, 2.0, 3.0, 4.0):
            eye.put(at, jpeg(f"{at}"))  # whoever puts does not wait
            await asyncio.sleep(0)
        eye.close()
        await running
        assert model.encoded == ["1.0", "4.0"]
        assert metrics.frames.labels("dropped_picture")._value.get() - dropped == 2

    virtual.run(main())


def test_a_picture_that_fails_costs_itself_alone(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        before = missed("encode", "skipped")
        model = Model(failures=[ConfigError("no key")])
        eye = await seeing(model, 1.0, 2.0)
        assert model.encoded == ["at 2.0"]
        assert missed("encode", "skipped") - before == 1
        (clause,) = await asked(eye)
        assert [item.frame for item in clause.evidence] == [2.0]

    virtual.run(main())


def test_a_still_picture_comes_only_once_so_it_is_tried_until_the_model_is_there(
    virtual: asyncio.Runner,
) -> None:
    async def main() -> None:
        model = Model(failures=[WorkerError("it loads")] * (vlm.TRIES - 1))
        eye = vlm_session(model, Timeline())
        running = asyncio.create_task(eye.encode_keyframes())
        eye.put(1.0, jpeg("still"))
        await clock.sleep(vlm.TRIES * vlm.RETRY_SECONDS + 1.0)
        assert model.encoded == ["still"]
        model.failures = [WorkerError("it loads")] * 99
        eye.put(2.0, jpeg("older"))
        await clock.sleep(0.5)
        eye.put(3.0, jpeg("newer"))
        await clock.sleep(2 * vlm.RETRY_SECONDS)
        model.failures = []
        await clock.sleep(2 * vlm.RETRY_SECONDS)
        eye.close()
        await running
        assert model.encoded == ["still", "newer"]

    virtual.run(main())


def test_a_stream_that_has_ended_does_not_wait_for_an_absent_model_picture_by_picture(
    virtual: asyncio.Runner,
) -> None:
    async def main() -> None:
        before, began = missed("encode", "skipped"), clock.now()
        eye = vlm_session(
            Model(takes=vlm.ENCODE_SECONDS, failures=[DeadlineMissed("not up")] * 99),
            Timeline(),
            lossless=True,
        )
        for at in range(5):
            eye.put(float(at), jpeg(f"{at}"))
        eye.close()
        await eye.encode_keyframes()
        assert clock.now() - began <= vlm.ENCODE_SECONDS + 1.0
        assert missed("encode", "skipped") - before == 5

    virtual.run(main())


def test_the_names_of_pictures_are_bounded(virtual: asyncio.Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vlm, "MAX_KEYS", 2)

    async def main() -> None:
        model = Model()
        eye = await seeing(model, 1.0, 2.0, 3.0)
        await asked(eye)
        assert [item["at"] for item in model.asked[0]["items"]] == [2.0, 3.0]

    virtual.run(main())


def test_an_engine_that_keeps_what_it_has_read_reads_ahead_now_and_then_while_nobody_asks(
    virtual: asyncio.Runner,
) -> None:
    async def main() -> None:
        model, line = Model(says=[3.5, "A red car."]), Timeline()
        eye = vlm_session(model, line, gpu=True)
        running = asyncio.create_task(eye.encode_keyframes())
        asking: asyncio.Task[list[Clause]] | None = None
        for at in range(10):
            line.add(keyframe(float(at)))
            line.add(said(at + 0.1, f"Sentence {at}."))
            eye.put(float(at), jpeg(f"at {at}"))
            if at == 5:
                asking = asyncio.create_task(asked(eye, seconds=10.0))
            await clock.sleep(1.0)
        eye.close()
        await running
        assert asking is not None
        assert texts(await asking) == ["A red car."]
        lengths = [len(read["items"]) for read in model.read]
        assert len(lengths) == 3, "each two seconds, and not while somebody asks"
        assert lengths == sorted(lengths)
        assert all(
            longer["items"][: len(shorter["items"])] == shorter["items"]
            for shorter, longer in itertools.pairwise(model.read)
        )
        assert model.asked[0]["items"][: lengths[1]] == model.read[1]["items"]
        assert {read["session"] for read in model.read} == {model.asked[0]["session"]}
        assert model.read[0]["items"][-1]["at"] < 2.0, "of the newest picture the labels may not be known yet"

    virtual.run(main())


def test_reading_ahead_that_fails_costs_nothing(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        model, line = Model(), Timeline()
        eye = vlm_session(model, line, gpu=True, adapter="medical")
        model.unread = WorkerError("it died")
        running = asyncio.create_task(eye.encode_keyframes())
        for at in (1.0, 4.0):
            line.add(keyframe(at))
            eye.put(at, jpeg(f"at {at}"))
            await clock.sleep(3.0)
        eye.close()
        await running
        assert texts(await asked(eye)) == ["A red car."]
        assert [told["adapter"] for told in (*model.read, *model.asked)] == ["medical", "medical"]

    virtual.run(main())
