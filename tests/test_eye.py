"""Pictures become keyframes, sights and screen text; a picture that fails costs itself alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamsvc import budget, clock, encode, metrics
from streamsvc.errors import WorkerError
from tests.stage import VP8, Models, Playing, Sender, Threadless, kinds, make, packets, send


@pytest.fixture
def stage() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=Threadless) as runner:
        yield runner


def counted(outcome: str) -> float:
    return float(metrics.frames.labels(outcome)._value.get())


def test_after_dropped_pictures_the_publisher_is_asked_for_a_keyframe(stage: asyncio.Runner, tmp_path: Path) -> None:
    class Asked(Sender):
        asked = 0

        def request_keyframe(self) -> None:
            self.asked += 1

    async def main() -> None:
        async with Playing(make(ingest={"video_ring": 5})) as played:
            sender = Asked()
            played.session.attach(sender)
            for frame in packets(tmp_path, 1.0, audio=None)[:20]:  # the last five hold no keyframe
                played.session.tap(frame)
            await clock.sleep(1.0)
            assert sender.asked == 1
            assert "keyframe.sampled" not in kinds(played.events), "half a picture is none"

    stage.run(main())


def test_pictures_are_left_alone_where_nobody_is_to_see_them(stage: asyncio.Runner, tmp_path: Path) -> None:
    async def main() -> None:
        before = counted("not_wanted")
        async with Playing(make(sees=False)) as played:
            played.session.attach(Sender())
            await send(played.session, packets(tmp_path, 0.4))
            assert counted("not_wanted") - before == 10
            played.session.end("ended")
            assert "keyframe.sampled" not in kinds(await played.ended())

    stage.run(main())


def test_a_keyframe_that_no_worker_looks_at_is_skipped_and_counted_and_captions_go_on(stage: asyncio.Runner, tmp_path: Path) -> None:
    async def main() -> None:
        before = metrics.deadline_missed.labels("look", "skipped")._value.get()
        models = Models(broken={"look": WorkerError("the see worker died")})
        async with Playing(make(models)) as played:
            played.session.attach(Sender())
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


def test_a_worker_that_is_back_in_time_sees_the_picture_after_all(stage: asyncio.Runner, tmp_path: Path) -> None:
    async def main() -> None:
        models = Models(broken={"look": WorkerError("the see worker died")})
        async with Playing(make(models)) as played:
            played.session.attach(Sender(VP8))
            for frame in packets(tmp_path, 0.2, audio=None):
                played.session.tap(frame)
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

    monkeypatch.setattr(encode, "look", slow)

    async def main() -> None:
        async with Playing(make()) as played:
            assert played.session.load(clock.now()) == budget.Load()
            played.session.attach(Sender(VP8))
            await send(played.session, packets(tmp_path, 2.0, audio=None))
            assert 1.0 < played.session.load(clock.now()).see_wait < 2.5

    stage.run(main())
