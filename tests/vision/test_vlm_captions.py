"""Scenes are told of by the model that sees.

Seldom, in few words, marked as its own, and never in the way of anybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamsvc.answers.question_queue import QuestionRequest
from streamsvc.core import clock, config, metrics
from streamsvc.core.errors import CapacityError, ConfigError, WorkerError
from streamsvc.core.roles import Role
from streamsvc.core.types import Scene
from streamsvc.core.units import SceneDelta
from streamsvc.vision.vlm import VlmSession
from streamsvc.vision.vlm_captions import GENERATE_SECONDS, MAX_TOKENS, VlmCaptioner
from tests.builders.session import VP8, Playing, Sender, kinds, packets, send
from tests.builders.units import sight
from tests.engines.chat_server import Fake, Mark, refused, serving, stream
from tests.fakes.host import RecordingHost, context
from tests.fakes.vlm_role import Model, jpeg, sighted, working


def counted(action: str) -> float:
    return float(metrics.deadline_missed.labels("scene", action)._value.get())


def dropped() -> float:
    return float(metrics.frames.labels("dropped_scene")._value.get())


@dataclass
class Case:
    """A narrator at work, and what it told."""

    model: Model
    host: RecordingHost = field(default_factory=RecordingHost)

    def __post_init__(self) -> None:
        settings = config.load(None, think={"scene_seconds": 10.0})
        made = context(self.host, settings=settings)
        self.gate = made.roles.idle
        self.narrator = VlmCaptioner(made, VlmSession(made, self.model))

    @property
    def told(self) -> list[Scene]:
        return self.host.of(Scene)

    def note(
        self, at: float, reason: str = "scene", rule: str = "", label: str = "cat", like: float = 1.0
    ) -> None:
        """A keyframe whose vector has this cosine with that of every other of 1.0."""
        scene = Scene("s", "main", at, 0.0, rule, at, at, ()) if rule else None
        vector = np.array([like, np.sqrt(1 - like**2)], np.float32)
        self.narrator.offer(
            reason, replace(sight(at, label), arrived=at, embedding=vector), jpeg(f"at {at}"), scene
        )

    @property
    def texts(self) -> list[str]:
        return [scene.text for scene in self.told]

    @property
    def asked(self) -> list[dict[str, Any]]:
        return [payload for _, payload in self.model.aside]


@contextlib.asynccontextmanager
async def narrating(*tells: str | float | Exception, **more: Any) -> AsyncIterator[Case]:
    """A narrator whose model says this of every scene."""
    case = Case(Model(tells=list(tells), **more))
    running = asyncio.create_task(case.narrator.run())
    try:
        yield case
    finally:
        case.narrator.close()
        await running


# --- what is told ---


def test_a_scene_is_told_of_in_a_sentence_that_is_marked_as_the_models_with_its_keyframe(
    virtual: asyncio.Runner,
) -> None:
    async def main() -> None:
        async with narrating("A **cat**", " on a mat.", 0.5, " It sleeps.") as case:
            case.note(3.0, "first", "A cat.")
            await clock.sleep(1.0)
            (scene,) = case.told
            assert (scene.text, scene.by, scene.at, scene.start, scene.arrived) == (
                "A cat on a mat.",
                "model",
                3.0,
                3.0,
                3.0,
            )
            assert [(item.kind, item.start, item.frame) for item in scene.evidence] == [("sight", 3.0, 3.0)]
            assert case.model.at_work == 0, "after its first sentence it is not listened to"
            (asked,) = case.asked
            assert asked["items"] == [
                {"number": 1, "at": 3.0, "text": "[1] 0:03 picture: cat", "picture": "at 3.0"}
            ]
            assert (asked["aside"], asked["max_tokens"]) == (True, MAX_TOKENS)

    virtual.run(main())


def test_the_next_scene_is_asked_of_beside_the_one_before_and_what_was_told_of_that(
    virtual: asyncio.Runner,
) -> None:
    async def main() -> None:
        async with narrating("A cat on a mat.") as case:
            case.note(0.0, "first")
            await clock.sleep(20.0)
            case.model.tells = ["A dog has come in."]
            case.note(20.0, label="dog")
            await clock.sleep(1.0)
            assert case.texts == ["A cat on a mat.", "A dog has come in."]
            first, second = case.asked
            assert [item["at"] for item in second["items"]] == [0.0, 20.0]
            assert "A cat on a mat." in second["question"]
            assert "A cat on a mat." not in first["question"]

    virtual.run(main())


# --- while it grows ---


def deltas(case: Case) -> list[tuple[int, str, bool]]:
    return [(part.index, part.text, part.withdrawn) for part in case.host.of(SceneDelta)]


def test_a_caption_is_shown_word_by_word_from_the_first_that_is_new_and_ends_with_itself(
    virtual: asyncio.Runner,
) -> None:
    async def main() -> None:
        async with narrating("A c", 0.5, "at", 0.5, " on a b", 0.5, "lue mat", 0.5, " by", " it.") as case:
            case.note(3.0, "first", "A cat.")
            await clock.sleep(1.4)
            assert deltas(case) == []
            await clock.sleep(0.2)
            assert deltas(case) == [(0, "A cat on a blue", False)]
            await clock.sleep(3.0)
        parts: list[SceneDelta | Scene] = [
            unit for unit in case.host.units if isinstance(unit, SceneDelta | Scene)
        ]
        assert deltas(case)[1:] == [(1, " mat", False), (2, " by", False)]
        assert [type(part) for part in parts] == [SceneDelta] * 3 + [Scene]
        assert {part.scene_id for part in parts} == {"scene_1"}
        assert {(part.at, part.start, part.arrived) for part in parts} == {(3.0, 3.0, 3.0)}
        assert [name for name, _ in parts[0].stages] == ["wait", "describe"]

    virtual.run(main())


def test_increments_joined_are_the_beginning_of_the_caption_and_each_scene_has_an_id_of_its_own(
    virtual: asyncio.Runner,
) -> None:
    async def main() -> None:
        async with narrating("The picture", " shows", " a **dog**", " on", " a", " sofa", ".") as case:
            case.note(0.0, "first")
            await clock.sleep(20.0)
            case.note(20.0, label="dog")
            case.model.tells = ["Two birds", " have", " come", " in", "."]
            await clock.sleep(5.0)
        for number, scene in enumerate(case.told, 1):
            mine = [part for part in case.host.of(SceneDelta) if part.scene_id == f"scene_{number}"]
            assert [part.index for part in mine] == list(range(len(mine)))
            assert len(mine) >= 3
            assert scene.text.startswith("".join(part.text for part in mine))
            assert scene.scene_id == f"scene_{number}"
        assert case.texts == ["A dog on a sofa.", "Two birds have come in."]

    virtual.run(main())


@pytest.mark.parametrize(
    "tells",
    [
        ["A dog on", WorkerError("it died")],
        ["A dog on", 2 * GENERATE_SECONDS, " a mat."],
        ["A dog on", " a mat that says", " so."],  # becomes none
        ["dog "] * (MAX_TOKENS + 1),
    ],
)
def test_what_was_shown_of_a_caption_that_comes_to_nothing_is_withdrawn(
    virtual: asyncio.Runner, tells: list[Any]
) -> None:
    async def main() -> None:
        async with narrating(*tells) as case:
            case.note(0.0)
            await clock.sleep(20.0)
            assert case.told == []
            *shown, last = deltas(case)
            assert all(text and not withdrawn for _, text, withdrawn in shown)
            assert shown
            assert last == (len(shown), "", True)

    virtual.run(main())


def test_a_question_withdraws_what_was_shown_at_once(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        async with narrating("A dog on", 3.0, " a mat.") as case:
            case.note(0.0)
            await clock.sleep(1.0)
            assert deltas(case) == [(0, "A dog", False)]
            with case.gate.question():
                for _ in range(5):
                    await asyncio.sleep(0)
                assert deltas(case) == [(0, "A dog", False), (1, "", True)]
        assert case.told == []

    virtual.run(main())


@pytest.mark.parametrize("tells", [["A cat", " on", " a mat."], ["Nothing", " is", " new."], ["A", " do"]])
def test_what_says_nothing_new_is_neither_shown_nor_withdrawn(
    virtual: asyncio.Runner, tells: list[Any]
) -> None:
    async def main() -> None:
        async with narrating(*tells) as case:
            case.note(0.0, "first", "A cat on a mat.")
            await clock.sleep(5.0)
            assert deltas(case) == []

    virtual.run(main())


# --- when it is asked ---


@pytest.mark.parametrize(
    ("reason", "rule", "like", "asked"),
    [
        ("scene", "", 1.0, True),
        ("scene", "A cat.", 1.0, True),
        ("motion", "Two persons.", 0.9, True),  # the rules tell of something else
        ("interval", "A dog.", 1.0, True),
        ("motion", "", 0.6, True),  # a cut in a film
        ("motion", "", 0.8, False),
        ("text", "", 0.9, False),
        ("interval", "", 1.0, False),
        ("question", "", 1.0, False),
    ],
)
def test_only_another_scene_or_another_thing_in_it_is_worth_telling_of(
    virtual: asyncio.Runner, reason: str, rule: str, like: float, asked: bool
) -> None:
    async def main() -> None:
        async with narrating("A cat on a mat.") as case:
            case.note(0.0, "text")  # whatever comes first is new
            await clock.sleep(20.0)
            assert len(case.asked) == 1
            case.note(20.0, reason, rule, like=like)
            await clock.sleep(1.0)
            assert len(case.asked) == 1 + asked

    virtual.run(main())


def test_a_scene_of_which_the_model_has_not_spoken_is_still_new(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        async with narrating("A cat on a mat.") as case:
            case.note(0.0, "first")
            await clock.sleep(20.0)
            case.model.tells = [WorkerError("it died")]
            case.note(20.0, "motion", like=0.5)
            await clock.sleep(20.0)
            case.model.tells = ["A dog on a sofa."]
            case.note(40.0, "text", like=0.5)
            await clock.sleep(1.0)
            case.note(61.0, "text", like=0.5)
            await clock.sleep(20.0)
            assert [(scene.at, scene.text) for scene in case.told] == [
                (0.0, "A cat on a mat."),
                (40.0, "A dog on a sofa."),
            ]

    virtual.run(main())


def test_a_blank_picture_is_not_asked_about(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        async with narrating("A cat on a mat.") as case:
            case.narrator.offer("scene", sight(0.0, blank=True), jpeg("black"), None)
            await clock.sleep(1.0)
            assert case.asked == []

    virtual.run(main())


def test_it_is_asked_at_most_once_each_so_many_seconds_and_then_of_the_newest_scene(
    virtual: asyncio.Runner,
) -> None:
    async def main() -> None:
        before = dropped()
        async with narrating("A cat on a mat.") as case:
            began = clock.now()
            for at in range(29):
                case.note(float(at), label=f"thing {at}")
                await clock.sleep(1.0)
            assert [round(when - began) for when, _ in case.model.aside] == [0, 10, 20]
            assert [asked["items"][-1]["at"] for asked in case.asked] == [0.0, 9.0, 19.0]
        assert dropped() - before == 26, "what was replaced, and the last, for which no time was left"

    virtual.run(main())


def test_what_was_seen_while_the_model_spoke_of_the_same_scene_is_not_asked_about_again(
    virtual: asyncio.Runner,
) -> None:
    async def main() -> None:
        async with narrating(2.0, "A cat on a mat.") as case:
            case.note(0.0, "first")
            await clock.sleep(1.0)
            case.note(1.0, "motion")  # nothing had been said of this scene yet
            await clock.sleep(20.0)
            assert len(case.asked) == 1
            case.note(21.0, "motion", like=0.5)
            await clock.sleep(1.0)
            assert len(case.asked) == 2

    virtual.run(main())


def test_a_scene_that_stays_the_same_is_told_of_at_most_twice_in_five_minutes(
    virtual: asyncio.Runner,
) -> None:
    async def main() -> None:
        async with narrating() as case:
            for at in range(
                0, 600, 12
            ):  # noise, light and a detector that is not sure: the rules tell anew each time
                case.model.tells = [f"Something number{at} is on the mat."]
                case.note(
                    float(at), "first" if not at else ("text", "interval", "motion")[at % 3], f"Thing {at}."
                )
                await clock.sleep(12.0)
            assert [scene.at for scene in case.told] == [0.0, 12.0, 300.0, 312.0]
            case.model.tells = ["A dog has come in."]
            case.note(600.0)
            case.note(601.0, "text", "A dog.")  # of the new scene, and of it alone
            await clock.sleep(1.0)
            assert case.told[-1].text == "A dog has come in."

    virtual.run(main())


# --- who comes first ---


def test_no_scene_is_asked_about_while_a_question_is_at_work(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        async with narrating("A cat on a mat.") as case:
            with case.gate.question():
                case.note(0.0)
                await clock.sleep(3.0)
                assert case.asked == []
            await clock.sleep(0.1)
            assert case.texts == ["A cat on a mat."]

    virtual.run(main())


def test_a_question_that_comes_takes_the_model_at_once_and_costs_that_caption_alone(
    virtual: asyncio.Runner,
) -> None:
    async def main() -> None:
        before = counted("given_up")
        async with narrating("A cat", 3.0, " on a mat.") as case:
            case.note(0.0)
            await clock.sleep(1.0)
            assert case.model.at_work == 1
            with case.gate.question():
                began = clock.now()
                for _ in range(5):
                    await asyncio.sleep(0)
                assert (case.model.at_work, clock.now()) == (0, began)
            assert counted("given_up") - before == 1
            await clock.sleep(20.0)
            case.note(20.0)
            await clock.sleep(4.0)
            assert [scene.at for scene in case.told] == [20.0]

    virtual.run(main())


@pytest.mark.parametrize(
    ("tells", "more"),
    [
        ([WorkerError("it died")], {}),
        (["A cat", WorkerError("it died")], {}),
        ([2 * GENERATE_SECONDS, "A cat on a mat."], {}),
        (["A cat on a mat."], {"most": 0}),  # it was not shown the picture
        (["A cat on"], {"more": {"cut": "broken"}}),
        (["cat "] * (MAX_TOKENS + 1), {}),
        (["A cat on a mat."], {"failures": [ConfigError("no key")]}),
    ],
)
def test_a_failure_costs_one_caption_and_is_counted(
    virtual: asyncio.Runner, tells: list[Any], more: dict[str, Any]
) -> None:
    async def main() -> None:
        before = counted("skipped")
        async with narrating(*tells, **more) as case:
            case.note(0.0)
            await clock.sleep(20.0)
            assert (case.told, counted("skipped") - before) == ([], 1)
            case.model.tells, case.model.most, case.model.more = ["A dog has come in."], 4, {}
            case.note(20.0, label="dog")
            await clock.sleep(1.0)
            assert case.texts == ["A dog has come in."]

    virtual.run(main())


def test_a_picture_that_is_not_read_yet_is_asked_about_again_until_a_newer_one_waits(
    virtual: asyncio.Runner,
) -> None:
    async def main() -> None:
        before = counted("skipped")
        unread = CapacityError("not read", code="unread")
        async with narrating(unread) as case:
            case.note(0.0)
            await clock.sleep(5.5)
            assert (case.told, len(case.asked)) == ([], 6)
            case.model.tells = ["A cat on a mat."]
            await clock.sleep(1.0)
            assert case.texts == ["A cat on a mat."]
            case.model.tells = [unread]
            case.note(30.0, label="dog", like=0.0)
            await clock.sleep(15.0)
            case.model.tells = ["A dog has come in."]
            case.note(45.0, label="dog", like=0.5)
            await clock.sleep(30.0)
            assert case.texts[1:] == ["A dog has come in."]
        assert counted("skipped") - before <= 1

    virtual.run(main())


def test_the_end_of_the_stream_waits_for_what_has_begun_and_for_nothing_else(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        began = clock.now()
        async with narrating(2.0, "A cat on a mat.") as case:
            case.note(0.0)
            await clock.sleep(1.0)
            case.note(1.0)
        assert (case.texts, len(case.asked)) == (["A cat on a mat."], 1)
        assert clock.now() - began == pytest.approx(2.0)

    virtual.run(main())


def test_no_word_of_it_reaches_a_log_line(
    virtual: asyncio.Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        async with narrating("A secret cat ", WorkerError("it died")) as case:
            case.note(0.0, "scene", "A secret dog.")
            await clock.sleep(1.0)
            assert [part.text for part in case.host.of(SceneDelta)] == ["A secret cat", ""]

    virtual.run(main())
    told = "".join(capsys.readouterr())
    assert "worker_failed" in told
    assert "secret" not in told


# --- in a session ---


def captions(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(event["by"], event["text"]) for event in events if event["type"] == "scene.caption"]


def test_a_session_tells_of_a_scene_by_rule_at_once_and_by_the_model_when_it_has_spoken(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        for scenes, told in (
            (True, [("rule", "A cat."), ("model", "A grey cat on a mat.")]),
            (False, [("rule", "A cat.")]),
        ):
            model = Model(tells=[3.0, "A grey cat on a mat."])
            async with Playing(sighted(model, think={"scenes": scenes}, ingest={"video": "full"})) as played:
                played.session.media.attach(Sender(VP8))
                await send(played.session, packets(tmp_path, 6.0, audio=None))
                played.session.end("ended")
                events = await played.ended()
            assert captions(events) == told
            assert kinds(events).count("sight.ready") == kinds(events).count("keyframe.sampled") > 3
            assert max(event["age_ms"] for event in events if event["type"] == "sight.ready") < 300, (
                "nothing waits for the model"
            )
            assert [unit.text for unit in played.session.timeline.scenes] == ["A cat."], (
                "no answer stands on its word"
            )
            ages = [event["ages"] for event in events if event["type"] == "latency.report"][-1]
            assert ages["scene_model"]["p95"] >= 3000 if scenes else "scene_model" not in ages, (
                "and it has its own ages"
            )
            assert "scene" not in ages, "those of the rules are none, on this clock"

    stage.run(main())


def test_a_question_takes_the_model_from_the_scene_that_it_tells_of(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        model = Model(says=[0.5, "A grey cat."], tells=[2.5, "A grey cat on a mat."])
        async with Playing(sighted(model, think={"scenes": True})) as played:
            played.session.media.attach(Sender(VP8))
            sending = asyncio.create_task(send(played.session, packets(tmp_path, 3.0, audio=None)))
            await clock.sleep(1.0)
            assert (model.at_work, len(model.asked)) == (1, 0)
            played.session.answering.queue.ask(QuestionRequest("What colour is the cat?", client="me"))
            await clock.sleep(0.01)
            assert (model.at_work, len(model.asked)) == (1, 1)
            await sending
            played.session.end("ended")
            events = await played.ended()
        assert len(model.aside) == 1
        (done,) = [event for event in events if event["type"] == "answer.done"]
        assert done["text"] == "A grey cat."
        assert captions(events) == [("rule", "A cat.")]

    stage.run(main())


def test_a_model_that_sees_beside_the_one_that_reads_does_all_of_pictures_and_rests_at_the_first_level(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        for level in (0, 1):
            reads, sees = (
                Model(says=["It is said [1]."]),
                Model(says=[0.1, "A grey cat."], tells=["A cat on a mat."]),
            )
            groups: dict[str, Any] = {"models": {"profile": "embedded"}}
            groups["think"] = {"model": "auto", "sees": "tiny", "scenes": True}
            async with Playing(sighted(reads, sees=sees, **groups)) as played:
                played.session.apply_level(level, "test" if level else "")
                played.session.media.attach(Sender(VP8))
                sending = asyncio.create_task(send(played.session, packets(tmp_path, 6.0, audio=None)))
                await clock.sleep(4.0)
                read_before = len(sees.read)
                played.session.answering.queue.ask(QuestionRequest("What colour is the cat?", client="me"))
                await sending
                played.session.end("ended")
                events = await played.ended()
            assert not reads.encoded
            assert not any(item.get("picture") for asked in reads.read for item in asked["items"])
            (done,) = [event for event in events if event["type"] == "answer.done"]
            if level:
                assert (sees.encoded, sees.read, sees.aside) == ([], [], []), "before anything of speech"
            else:
                assert read_before > 0, "in idle time"
                assert all(item["picture"] for asked in sees.read for item in asked["items"])
                assert done["text"] == "A grey cat."
                assert [asked["kept"] for _, asked in sees.aside] == [True]
                assert ("model", "A cat on a mat.") in captions(events)

    stage.run(main())


# --- the real engines ---


async def shown(think: Role, folder: Path, asked_when: threading.Event | None = None) -> list[dict[str, Any]]:
    """All events of a session that is shown a second of a clip, and asked something when it is time."""
    live = sighted(think, think={"scenes": True, "deadline": 30.0})
    try:
        async with Playing(live) as playing:
            live.media.attach(Sender(VP8))
            await send(live, packets(folder, 1.0, audio=None))
            if asked_when is not None:
                assert await asyncio.to_thread(asked_when.wait, 20)
                live.answering.queue.ask(QuestionRequest("What colour is the cat?", client="me"))
            live.end("ended")
            return await playing.ended()
    finally:
        live.context.media.shutdown()


async def test_a_real_vision_language_model_tells_of_a_scene(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the extra `gpu`")
    from tests.engines.tiny_vlm import save, taught

    taught(save("qwen2_vl", tmp_path / "tiny"), "Big dw.")
    async with working("engines.vlm", {"models": str(tmp_path), "model": "tiny"}) as think:
        rule, delta, told = [
            event for event in await shown(think, tmp_path) if event["type"].startswith("scene.")
        ]
    assert (rule["by"], rule["text"]) == ("rule", "A cat.")
    assert (told["by"], told["text"], told["start"]) == ("model", "Big dw.", rule["start"])
    assert [(item["kind"], "url" in item) for item in told["evidence"]] == [("sight", True)]
    assert (delta["type"], delta["text"], delta["index"]) == ("scene.delta", "Big", 0)
    assert (delta["scene_id"], delta["start"], "seq" in delta) == (told["scene_id"], told["start"], False)
    assert "scene_id" not in rule


async def test_a_remote_model_is_sent_the_keyframe_alone_and_tells_of_it(tmp_path: Path) -> None:
    with serving(Fake([stream("A red", " box. ", "It stands")])) as fake:
        remote = config.Remote(url=fake.url, model="seer", text_model="reader").options()
        async with working(
            "engines.remote", {"models": "", "window_tokens": 4096, "remote": remote}
        ) as think:
            events = await shown(think, tmp_path)
        assert [asked["model"] for asked in fake.asked] == ["seer"]
        assert len(fake.pictures()) == 1
    assert captions(events) == [("rule", "A cat."), ("model", "A red box.")]


async def test_a_question_hangs_up_on_the_endpoint_in_the_middle_of_a_caption(tmp_path: Path) -> None:
    before = counted("given_up")
    with serving(Fake([stream("A red", Mark.HOLD, " box. It stands"), stream("A red box.")])) as fake:
        remote = config.Remote(url=fake.url, model="seer").options()
        async with working(
            "engines.remote", {"models": "", "window_tokens": 4096, "remote": remote}
        ) as think:
            events = await shown(think, tmp_path, asked_when=fake.held)
        assert await asyncio.to_thread(fake.left.wait, 5), "though the server would have gone on"
    assert [event["text"] for event in events if event["type"] == "answer.done"] == ["A red box."]
    assert captions(events) == [("rule", "A cat.")]
    assert counted("given_up") - before == 1


async def test_where_the_endpoint_refuses_the_caption_by_rule_stands(tmp_path: Path) -> None:
    before = counted("skipped")
    with serving(Fake([refused(401, "invalid_api_key")])) as fake:
        remote = config.Remote(url=fake.url, model="seer").options()
        async with working(
            "engines.remote", {"models": "", "window_tokens": 4096, "remote": remote}
        ) as think:
            events = await shown(think, tmp_path)
    assert captions(events) == [("rule", "A cat.")]
    assert counted("skipped") - before == 1
