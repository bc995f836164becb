"""Pictures become keyframes, sights and screen text; a picture that fails costs itself alone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from streamsvc.answers.question_queue import QuestionRequest
from streamsvc.core import clock, metrics
from streamsvc.core.errors import WorkerError
from streamsvc.core.options import SessionOptions, VisionOptions
from streamsvc.core.tape import Tape
from streamsvc.core.types import EncodedFrame
from streamsvc.service import load_policy
from streamsvc.vision import perception
from tests.builders.session import VP8, Models, Playing, Sender, kinds, make, packets, send
from tests.builders.stamped import Part
from tests.fakes.embed_role import routing_role
from tests.fakes.vlm_role import Model, sighted


def counted(outcome: str) -> float:
    return float(metrics.frames.labels(outcome)._value.get())


def test_pictures_of_a_part_that_begins_before_the_last_one_ended_are_seen_at_once(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    """Each part of an HLS recording may have a second more of pictures than of sound."""

    def part(gray: int, seconds: float, at: float) -> list[EncodedFrame]:
        path = Part(seconds=seconds, audio=None, video="libvpx", gray=gray).write(tmp_path / f"{gray}.webm")
        with av.open(str(path)) as container:
            return [
                EncodedFrame(
                    "s",
                    "main",
                    at + packet.pts / 1000,
                    0.0,
                    "video",
                    bytes(packet),
                    "vp8",
                    packet.is_keyframe,
                )
                for packet in container.demux()
                if packet.size and packet.pts is not None
            ]

    async def main() -> None:
        async with Playing(make(options=SessionOptions(lossless=True))) as played:
            played.session.media.attach(Sender(VP8))
            for frame in [*part(40, 3.0, 0.0), *part(220, 0.8, 2.0), *part(40, 1.0, 2.8)]:
                await played.session.media.wait_for_space()
                played.session.media.tap(frame)
            played.session.end("ended")
            events = await played.ended()
        times = [event["at"] for event in events if event["type"] == "keyframe.sampled"]
        assert times[:2] == pytest.approx([0.0, 2.0], abs=0.3)
        looked = [event for event in events if event["type"] == "sight.ready"]
        assert [event.get("same_as") for event in looked] == [None, None, looked[0]["at"]], "it came back"

    stage.run(main())


def test_pictures_are_left_alone_where_nobody_is_to_see_them(stage: asyncio.Runner, tmp_path: Path) -> None:
    async def main() -> None:
        before = counted("not_wanted")
        async with Playing(make(options=SessionOptions(vision=VisionOptions(enabled=False)))) as played:
            played.session.media.attach(Sender())
            await send(played.session, packets(tmp_path, 0.4))
            assert counted("not_wanted") - before == 10
            played.session.end("ended")
            assert "keyframe.sampled" not in kinds(await played.ended())

    stage.run(main())


class Held(Tape):
    """A tape that lets a stage on at one point once it is told to."""

    def __init__(self, name: str) -> None:
        self.go_on = asyncio.Event()
        self._name = name

    async def point(self, name: str) -> None:
        if name == self._name:
            await self.go_on.wait()


class Writing(Models):
    """Models that read a line on every picture."""

    @staticmethod
    def _read(payload: Any) -> Any:
        corners = np.array([[0.1, 0.1, 0.5, 0.1]], np.float32)
        return {"texts": ["A title"], "scores": [0.99], "corners": corners}


@pytest.mark.parametrize(
    ("point", "kind"),
    [("compared", "keyframe.sampled"), ("looked", "sight.ready"), ("read", "screen.text")],
)
def test_what_a_thread_or_a_model_has_found_is_told_when_the_tape_says(
    point: str, kind: str, stage: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moment at which it is ready is another one each time: a replay waits for the recorded one."""
    monkeypatch.setattr(perception, "likely_text", lambda page: True)

    async def main() -> None:
        tape = Held(point)
        async with Playing(make(Writing(), tape=tape)) as played:
            played.session.media.attach(Sender(VP8))
            await send(played.session, packets(tmp_path, 1.0, audio=None))
            await clock.sleep(5.0)
            assert kind not in kinds(played.events)
            tape.go_on.set()
            await clock.sleep(5.0)
            assert kind in kinds(played.events)

    stage.run(main())


def test_every_keyframe_is_put_before_a_model_that_is_asked_later_and_none_after_the_last(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        model = Model()
        async with Playing(sighted(model)) as played:
            played.session.media.attach(Sender(VP8))
            await send(played.session, packets(tmp_path, 3.0, audio=None))
            played.session.end("ended")
            events = await played.ended()
            assert played.session.vision.vlm is not None
            assert played.session.vision.vlm._pictures.closed
        assert len(model.encoded) == kinds(events).count("keyframe.sampled") > 1

    stage.run(main())


def test_a_keyframe_that_no_worker_looks_at_is_skipped_and_counted_and_captions_go_on(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        before = metrics.deadline_missed.labels("look", "skipped")._value.get()
        models = Models(broken={"look": WorkerError("the see worker died")})
        async with Playing(make(models)) as played:
            played.session.media.attach(Sender())
            await send(played.session, packets(tmp_path, 2.0))
            played.session.end("ended")
            events = await played.ended()
        assert models.asked.count("look") >= 3, "a still picture comes only once: it is tried again"
        assert metrics.deadline_missed.labels("look", "skipped")._value.get() > before
        assert "keyframe.sampled" in kinds(events)
        assert "sight.ready" not in kinds(events)
        assert "caption.final" in kinds(events)
        assert events[-1]["reason"] == "ended"
        assert "error" not in events[-1]

    stage.run(main())


def test_a_worker_that_is_back_in_time_sees_the_picture_after_all(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        models = Models(broken={"look": WorkerError("the see worker died")})
        async with Playing(make(models)) as played:
            played.session.media.attach(Sender(VP8))
            for frame in packets(tmp_path, 0.2, audio=None):
                played.session.media.tap(frame)
            await clock.sleep(0.3)
            assert "look" in models.asked
            models.broken.clear()
            await clock.sleep(1.0)
            played.session.end("ended")
            assert "sight.ready" in kinds(await played.ended())

    stage.run(main())


def test_the_load_tells_how_long_a_picture_waits_for_the_eyes(
    stage: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(keyframe: Any, *_: Any, **__: Any) -> Any:
        await clock.sleep(3.0)
        raise WorkerError("no")

    monkeypatch.setattr(perception, "perceive", slow)

    async def main() -> None:
        async with Playing(make()) as played:
            assert played.session.load(clock.now()) == load_policy.Load()
            played.session.media.attach(Sender(VP8))
            await send(played.session, packets(tmp_path, 2.0, audio=None))
            assert 1.0 < played.session.load(clock.now()).see_wait < 2.5

    stage.run(main())


# --- what is shown now
# ----------------------------------------------------------------------------------------------


def filmed(folder: Path, *seconds: float) -> list[EncodedFrame]:
    """The packets of still pictures, each unlike the one before it, shown for some seconds."""
    found, number = [], 0
    with av.open(str(folder / "still.webm"), "w") as container:
        stream: Any = container.add_stream(
            "libvpx", rate=25, options={"deadline": "realtime", "lag-in-frames": "0"}
        )
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for seed, length in enumerate(seconds):
            blocks = (
                np.random.default_rng(seed)
                .integers(0, 255, (6, 10), dtype=np.uint8)
                .repeat(16, 0)
                .repeat(16, 1)
            )
            for _ in range(round(25 * length)):
                frame = av.VideoFrame.from_ndarray(np.stack([blocks] * 3, axis=2), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                found += [bytes(packet) for packet in stream.encode(frame)]
                number += 1
        found += [bytes(packet) for packet in stream.encode(None)]
    return [
        EncodedFrame("s", "main", n / 25, 0.0, "video", payload, "vp8", n == 0)
        for n, payload in enumerate(found)
    ]


class Slow(Models):
    """Sees a cat at first and then a dog; from then on it takes its time, in seconds."""

    def __init__(self, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(embed=routing_role(what="sights", when="occurrences"))
        whole, self.looks = perception.perceive, 0

        async def look(keyframe: Any, jpeg: bytes, *rest: Any, **options: Any) -> Any:
            self.looks += 1
            label = "cat" if self.looks == 1 else "dog"
            if self.looks > 1:
                await clock.sleep(seconds)
            sight = await whole(keyframe, jpeg, *rest, **options)
            return replace(sight, boxes=tuple(replace(box, label=label) for box in sight.boxes), tags=())

        monkeypatch.setattr(perception, "perceive", look)


async def answered(played: Playing, frames: list[EncodedFrame], text: str, at: float) -> tuple[str, float]:
    """What a question of second `at` is answered while pictures come, and after how many seconds."""
    sending = asyncio.create_task(send(played.session, frames))
    await clock.sleep(at)
    asked = clock.now()
    played.session.answering.queue.ask(QuestionRequest(text, client="me"))
    while "answer.done" not in kinds(played.events):
        await clock.sleep(0.01)
    took = clock.now() - asked
    await sending
    return next(str(event["text"]) for event in played.events if event["type"] == "answer.done"), took


@pytest.mark.parametrize(
    ("text", "at", "seconds", "answer", "least", "most"),
    [
        (
            "What is shown now?",
            2.99,
            0.05,
            "I see a dog.",
            0.05,
            0.3,
        ),  # the picture changes at 3 s, and is looked at in time
        ("What is shown now?", 2.99, 1.0, "I see a cat.", 0.29, 0.32),  # ... and is not
        (
            "What is shown now?",
            2.5,
            0.05,
            "I see a cat.",
            0.0,
            0.25,
        ),  # nothing is new, which the next picture tells
        ("What is shown now?", 0.5, 0.05, "I see a cat.", 0.0, 0.02),  # the newest sight is of now
        ("When was a cat shown?", 2.5, 0.05, "At 0:00, and it is still shown.", 0.0, 0.02),  # not about now
    ],
)
def test_a_question_about_now_waits_a_little_for_a_picture_of_now(
    stage: asyncio.Runner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    at: float,
    seconds: float,
    answer: str,
    least: float,
    most: float,
) -> None:
    async def main() -> None:
        async with Playing(make(Slow(seconds, monkeypatch))) as played:
            played.session.media.attach(Sender(VP8))
            told, took = await answered(played, filmed(tmp_path, 3.0, 1.0), text, at)
        assert told == answer
        assert least <= took <= most

    stage.run(main())


def test_a_question_waits_no_longer_in_all_where_the_model_that_answers_is_slow_to_see_too(
    stage: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        Slow(2.0, monkeypatch)
        model = Model()
        async with Playing(sighted(model)) as played:
            played.session.media.attach(Sender(VP8))
            sending = asyncio.create_task(
                answered(played, filmed(tmp_path, 3.0, 1.0), "What colour is the cat now?", 2.99)
            )
            await clock.sleep(2.0)
            assert len(model.encoded) == 1
            model.takes = 2.0  # from now on
            told, took = await sending
        assert told == "A red car."
        assert 0.29 <= took <= 0.32

    stage.run(main())


def test_where_no_picture_comes_a_question_about_now_does_not_wait_for_one(
    stage: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with Playing(make(Slow(0.0, monkeypatch))) as played:
            played.session.media.attach(Sender(VP8))
            told, took = await answered(played, filmed(tmp_path, 0.5), "What is shown now?", 3.0)
        assert told == "I see a cat."
        assert took <= 0.05, "the picture that stands is compared at once"

    stage.run(main())
