"""A recording is played on a virtual clock; every run is the same."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from engines import StreamOp
from streamsvc.core import clock
from streamsvc.core.clock import Threadless
from streamsvc.core.errors import DeadlineMissed, SourceError, WorkerError
from streamsvc.evaluation import session_run
from streamsvc.evaluation.scenario import Scenario
from streamsvc.evaluation.session_run import (
    FixedTimeRole,
    SessionRun,
    ask_about_image,
    fixed_time_service,
    play,
)
from streamsvc.service.service import Service
from tests.builders.clips import clip
from tests.fakes.engines_by_name import load, settings


@pytest.fixture
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=Threadless) as runner:
        yield runner


def question(number: str, text: str, at: float) -> dict[str, Any]:
    return {"id": number, "question": text, "ask_at_s": at}


def served(loop: asyncio.Runner, folder: Path, work: Callable[[Service], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with fixed_time_service(settings(folder), load) as service:
            result = await work(service)
            assert service.sessions.by_id == {}
            return result

    return loop.run(main())


def plain(run: SessionRun) -> list[dict[str, Any]]:
    """The events without what is drawn by lot or read from the wall clock."""
    dropped = {"epoch", "id", "session", "started_utc", "url", "of", "stages", "prev"}
    text = json.dumps(run.events)
    events: list[dict[str, Any]] = json.loads(
        text, object_hook=lambda body: {key: body[key] for key in body if key not in dropped}
    )
    return events


def test_two_runs_publish_the_same_at_the_same_moments(loop: asyncio.Runner, tmp_path: Path) -> None:
    media = clip(tmp_path / "a.mp4", seconds=4.0)
    scenario = Scenario("a", media, {"qa": [question("q1", "What is shown?", 2.0)]}, {})

    def run() -> SessionRun:  # in a service of its own: one remembers what it has looked at
        return served(loop, tmp_path, lambda service: play(service, scenario))  # type: ignore[no-any-return]

    first, second = run(), run()
    assert plain(first) == plain(second)
    kinds = {event["type"] for event in first.events}
    assert {
        "caption.final",
        "keyframe.sampled",
        "sight.ready",
        "scene.caption",
        "answer.done",
        "session.closed",
    } <= kinds


def test_questions_are_asked_at_their_times_and_after_the_end_once_all_is_processed(
    loop: asyncio.Runner, tmp_path: Path
) -> None:
    media = clip(tmp_path / "a.mp4", seconds=3.0)
    asked = [
        question("late", "Has a cat been shown?", 9.0),
        question("soon", "What is shown now?", 1.5),
        question("later", "A dog?", 9.0),
    ]
    run: SessionRun = served(
        loop, tmp_path, lambda service: play(service, Scenario("a", media, {"qa": asked}, {}))
    )
    assert run.asked["soon"] == pytest.approx(1.5, abs=0.01)
    assert run.asked["late"] >= run.seconds + session_run.SETTLE
    assert run.asked["later"] == pytest.approx(run.asked["late"] + session_run.SPACING)
    done = {event["question_id"]: event for event in run.events if event["type"] == "answer.done"}
    assert done.keys() == {"late", "soon", "later"}
    assert done["late"]["text"].startswith("Yes")
    assert (
        max(event["end"] for event in run.events if event["type"] == "caption.final") > 2.0
    )  # the last words too


def test_only_the_first_seconds_are_played_where_the_scenario_says_so(
    loop: asyncio.Runner, tmp_path: Path
) -> None:
    media = clip(tmp_path / "a.mp4", seconds=4.0)
    run: SessionRun = served(
        loop, tmp_path, lambda service: play(service, Scenario("a", media, {}, {}, seconds=2.0))
    )
    assert run.seconds == 2.0
    assert max(event["at"] for event in run.events if event["type"] == "keyframe.sampled") <= 2.0
    assert run.cost == {}


@pytest.mark.parametrize("track", ["audio", "video"])
def test_a_recording_of_one_track_is_played_too(track: str, loop: asyncio.Runner, tmp_path: Path) -> None:
    options: dict[str, Any] = {"video": None} if track == "audio" else {"audio": None}
    media = clip(tmp_path / "a.mkv", seconds=2.0, **options)
    run: SessionRun = served(loop, tmp_path, lambda service: play(service, Scenario("a", media, {}, {})))
    kinds = {event["type"] for event in run.events}
    assert ("caption.final" in kinds, "keyframe.sampled" in kinds) == (track == "audio", track == "video")
    assert run.events[-1]["type"] == "session.closed"


def test_an_unreadable_recording_raises_and_leaves_no_session(loop: asyncio.Runner, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"nothing")

    async def fails(service: Service) -> None:
        with pytest.raises(SourceError):
            await play(service, Scenario("a", tmp_path / "a.mp4", {}, {}))

    served(loop, tmp_path, fails)


def test_a_picture_is_asked_about_in_a_session_of_its_own(loop: asyncio.Runner, tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.new("RGB", (64, 48), "white").save(out, "JPEG")

    async def work(service: Service) -> list[dict[str, Any]]:
        return [await ask_about_image(service, text, out.getvalue()) for text in ("What is the total?", "")]

    answered, refused = served(loop, tmp_path, work)
    assert answered["type"] == "answer.done"
    assert refused == {"text": "", "supported": False, "evidence": []}  # nothing was asked


def test_each_call_takes_its_time_one_after_the_other_and_fails_alone(
    loop: asyncio.Runner, tmp_path: Path
) -> None:
    loads: list[int] = []

    def once() -> Any:
        loads.append(1)
        return load("any", {})

    async def main() -> float:
        role = FixedTimeRole(once)
        picture = {"jpeg": b""}
        began = clock.now()
        await asyncio.gather(*(role.call("look", picture, deadline_in_s=1) for _ in range(3)))
        async for _ in role.stream("generate", {"prompt": "x"}, deadline_in_s=1):
            pass
        with pytest.raises(WorkerError, match="KeyError") as caught:
            broken = FixedTimeRole(
                lambda: type(
                    "Engine",
                    (),
                    {
                        "ops": {
                            "look": type("Op", (), {"run": staticmethod(lambda batch: [KeyError("said")])})
                        }
                    },
                )
            )
            await broken.call("look", picture, deadline_in_s=1)
        assert "said" not in str(caught.value)
        return clock.now() - began

    assert loop.run(main()) == pytest.approx(
        4 * session_run.CALL_SECONDS["look"] + session_run.CALL_SECONDS["generate"]
    )
    assert loads == [1]


def streaming(threads: int, *items: Any) -> FixedTimeRole:
    """A role with one op, "generate", that yields the items; an exception is raised."""

    def run(payload: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for item in items:
            if isinstance(item, Exception):
                raise item
            yield item

    return FixedTimeRole(lambda: SimpleNamespace(ops={"generate": StreamOp(run, threads)}))


async def collected(role: FixedTimeRole, seconds: float = 60.0) -> list[dict[str, Any]]:
    return [item async for item in role.stream("generate", {}, deadline_in_s=seconds)]


def test_a_silent_stream_takes_time_and_ends_at_its_deadline(loop: asyncio.Runner) -> None:
    async def main() -> None:
        began = clock.now()
        with pytest.raises(DeadlineMissed):
            await collected(streaming(1, *[{"text": ""}] * 100), seconds=3.0)
        assert clock.now() - began == pytest.approx(3.0, abs=2 * session_run.SILENCE_SECONDS)
        with pytest.raises(WorkerError, match="KeyError") as caught:
            await collected(streaming(1, {"text": "a"}, KeyError("said")))
        assert "said" not in str(caught.value)
        with pytest.raises(DeadlineMissed, match="late"):
            await collected(streaming(1, DeadlineMissed("late")))

    loop.run(main())


@pytest.mark.parametrize(("threads", "together"), [(1, 10), (4, 5)])
def test_streams_run_beside_each_other_where_the_engine_has_threads_for_them(
    threads: int, together: int, loop: asyncio.Runner
) -> None:
    async def main() -> float:
        role = streaming(threads, *[{"text": "a"}] * 5)
        began = clock.now()
        await asyncio.gather(collected(role), collected(role))
        return clock.now() - began

    assert loop.run(main()) == pytest.approx(together * session_run.CALL_SECONDS["generate"])


@pytest.mark.parametrize(("profile", "sees"), [("embedded", False), ("remote", True)])
def test_the_model_is_shown_pictures_where_the_profile_has_one_that_sees(
    profile: Any, sees: bool, loop: asyncio.Runner, tmp_path: Path
) -> None:
    of = settings(tmp_path)
    of = of.model_copy(update={"models": of.models.model_copy(update={"profile": profile})})

    async def main() -> None:
        async with fixed_time_service(of, load) as service:
            assert (service.roles.vlm is service.roles.think) == sees

    loop.run(main())
