"""Keyframes reach the model ahead of questions.

What it says is shown clause by clause, or not at all; a failure costs itself alone.
"""

from __future__ import annotations

import asyncio

import pytest

from streamsvc.core import clock, metrics
from streamsvc.core.errors import ConfigError, DeadlineMissed, WorkerError
from streamsvc.timeline.lines import Line
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision import vlm
from tests.builders.vlm import asked, seeing, vlm_session
from tests.fakes.vlm_role import Model, jpeg


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


def test_the_model_is_asked_aside_of_its_own_lines_and_with_the_adapter(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        model = Model()
        eye = vlm_session(model, Timeline(), adapter="medical")
        shown = Line(1, 2.0, 2.0, "picture", "a cat", 2.0, "k")
        pieces = [piece async for piece in eye.generate_aside([shown], "What is new?", 9, 5.0)]
        assert [piece.get("text") for piece in pieces][1] == "A cat on a mat."
        ((_, asked_aside),) = model.aside
        assert asked_aside["items"] == [
            {"number": 1, "at": 2.0, "text": "[1] 0:02 picture: a cat", "picture": "k"}
        ]
        assert (asked_aside["aside"], asked_aside["adapter"], asked_aside["session"]) == (
            True,
            "medical",
            "s aside",
        )
        assert not model.read, "only answers.reading reads along"

    virtual.run(main())
