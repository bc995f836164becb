"""Questions wait their turn, are answered, cancelled or not begun, and each that fails costs itself alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from streamsvc.answers import intents
from streamsvc.answers.answer import Answerer
from streamsvc.answers.deadline import Plan
from streamsvc.answers.question_queue import QuestionRequest
from streamsvc.answers.route import Route
from streamsvc.core import clock, metrics
from streamsvc.core.errors import NotFound, WorkerError
from streamsvc.core.idle_gate import idle_class
from streamsvc.core.options import SessionOptions
from streamsvc.core.types import Answer, Delta, Question
from streamsvc.timeline.index import Index
from tests.builders.session import VP8, Models, Playing, Sender, Tape, kinds, make, packets, send
from tests.fakes.embed_role import routing_role
from tests.fakes.role import FakeRole
from tests.fakes.vlm_role import Model, image, said, sighted


def test_held_questions_are_asked_when_all_is_understood(stage: asyncio.Runner, tmp_path: Path) -> None:
    async def main() -> None:
        async with Playing(
            make(options=SessionOptions(lossless=True), limits={"questions_waiting": 2})
        ) as played:
            live = played.session
            live.answering.queue.ask_at_end(["What is shown?", "What was said?"], client="me")
            await live.play(Tape(packets(tmp_path, 2.0)), None)
            live.answering.queue.ask(QuestionRequest("Now?", client="me"))
            live.answering.queue.ask(QuestionRequest("And now?", client="me"))
            events = await played.ended()
        got = kinds(events)
        assert got.count("answer.done") == 4
        last = len(got) - 1 - got[::-1].index("caption.final")
        assert [event["type"] for event in events[last:]].count("answer.done") >= 2
        assert events[-1]["reason"] == "source_ended"

    stage.run(main())


def test_a_question_before_any_content_is_answered_as_unknown(stage: asyncio.Runner) -> None:
    async def main() -> None:
        async with Playing(make()) as played:
            question = played.session.answering.queue.ask(QuestionRequest("What is shown?", client="me"))
            await clock.sleep(1.0)
            played.session.end("ended")
            (done,) = [event for event in await played.ended() if event["type"] == "answer.done"]
            assert done["question_id"] == question.id
            assert not done["supported"]
            assert done["evidence"] == []
            assert done["text"]

    stage.run(main())


def test_a_question_is_answered_or_refused_up_to_the_very_end(
    stage: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(*_: Any) -> Any:
        await clock.sleep(2.0)
        yield Answer("q", "It was.", True, ())

    monkeypatch.setattr(Answerer, "answer", slow)

    async def main() -> None:
        async with Playing(make()) as played:
            played.session.answering.queue.ask(QuestionRequest("First?", client="me"))
            played.session.end("ended")
            await clock.sleep(1.0)  # the last answers are being given
            with pytest.raises(NotFound) as caught:
                played.session.answering.queue.ask(QuestionRequest("Too late?", client="me"))
            assert caught.value.code == "session_ended"
            assert kinds(await played.ended()).count("answer.done") == 1

    stage.run(main())


def test_an_answer_that_fails_costs_no_other(stage: asyncio.Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Answerer.answer

    def sometimes(self: Answerer, question: Question, *rest: Any) -> Any:
        if question.text == "Worse?":
            raise ValueError("a secret")
        if question.text == "Bad?":
            raise WorkerError("the think worker died")
        return whole(self, question, *rest)

    monkeypatch.setattr(Answerer, "answer", sometimes)

    async def main() -> None:
        async with Playing(make()) as played:
            for text in ("Worse?", "Bad?", "What is shown?"):
                played.session.answering.queue.ask(QuestionRequest(text, client="me", question_id=text))
            await clock.sleep(1.0)
            played.session.end("ended")
            done = {
                event["question_id"]: event
                for event in await played.ended()
                if event["type"] == "answer.done"
            }
            assert done["Worse?"]["error"]["code"] == "internal"
            assert "secret" not in str(done)
            assert done["Bad?"]["error"] == WorkerError("the think worker died").body()["error"]
            assert "error" not in done["What is shown?"]
            assert played.session.failure is None

    stage.run(main())


def test_a_question_whose_time_has_passed_is_not_begun_and_says_so(
    stage: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(*_: Any) -> Any:
        await clock.sleep(2.0)
        yield Answer("q", "It was.", True, ())

    monkeypatch.setattr(Answerer, "answer", slow)

    async def main() -> None:
        before = metrics.deadline_missed.labels("answer", "not_started")._value.get()
        async with Playing(make()) as played:
            played.session.answering.queue.ask(QuestionRequest("First?", question_id="one", client="me"))
            played.session.answering.queue.ask(
                QuestionRequest("At the same time?", question_id="beside", client="me")
            )
            played.session.answering.queue.ask(
                QuestionRequest("Second?", question_id="two", deadline_ms=500, client="me")
            )
            await clock.sleep(1.0)
            assert played.session.load(clock.now()).think_wait == pytest.approx(1.0)
            await clock.sleep(4.0)
            assert played.session.load(clock.now()).think_wait == 0.0
            played.session.end("ended")
            done = {
                event["question_id"]: event
                for event in await played.ended()
                if event["type"] == "answer.done"
            }
        assert "error" not in done["one"]
        assert done["two"]["error"]["code"] == "deadline_missed"
        assert metrics.deadline_missed.labels("answer", "not_started")._value.get() == before + 1

    stage.run(main())


def test_a_question_can_be_cancelled_while_it_waits_and_while_it_is_answered_but_not_after(
    stage: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(_: Answerer, question: Question, *rest: Any) -> Any:
        yield Delta(question.id, "It ")
        await clock.sleep(2.0)
        yield Answer(question.id, "It was.", True, ())

    monkeypatch.setattr(Answerer, "answer", slow)

    async def main() -> None:
        async with Playing(make()) as played:
            live = played.session
            for number in ("answered", "begun", "waits"):
                live.answering.queue.ask(QuestionRequest("What?", question_id=number, client="me"))
            await clock.sleep(1.0)
            for number, asker in (("begun", "another"), ("waits", "another"), ("unknown", None)):
                with pytest.raises(NotFound) as caught:
                    live.answering.cancel(number, asker)
                assert caught.value.code == "no_question"
            live.answering.cancel("begun", "me")
            live.answering.cancel("waits")
            await clock.sleep(2.0)
            with pytest.raises(NotFound):
                live.answering.cancel("answered")
            live.end("ended")
            events = await played.ended()
        done = {
            event["question_id"]: event.get("error", {}).get("code")
            for event in events
            if event["type"] == "answer.done"
        }
        assert done == {"answered": None, "begun": "cancelled", "waits": "cancelled"}
        assert kinds(events).count("answer.done") == 3
        assert [event["question_id"] for event in events if event["type"] == "answer.delta"] == [
            "answered",
            "begun",
        ]

    stage.run(main())


def test_a_question_that_waits_for_a_model_does_not_hold_up_the_next(
    stage: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sometimes_slow(_: Answerer, question: Question, *rest: Any) -> Any:
        await clock.sleep(2.0 if question.text == "Slow?" else 0.0)
        yield Answer(question.id, "It was.", True, ())

    monkeypatch.setattr(Answerer, "answer", sometimes_slow)

    async def main() -> None:
        async with Playing(make()) as played:
            played.session.answering.queue.ask(
                QuestionRequest("Slow?", question_id="slow", audience="session")
            )
            played.session.answering.queue.ask(
                QuestionRequest("Quick?", question_id="quick", audience="session")
            )
            await clock.sleep(3.0)
            played.session.end("ended")
            done = [event["question_id"] for event in await played.ended() if event["type"] == "answer.done"]
        assert done == ["quick", "slow"]

    stage.run(main())


def test_what_a_question_may_spend_follows_from_what_the_model_has_cost(
    stage: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent: list[bool] = []

    async def noted(self: Answerer, question: Question, way: Route, plan: Plan, *rest: Any) -> Any:
        spent.append(plan.asks_model)
        yield Answer(question.id, "It was.", True, ())

    monkeypatch.setattr(Answerer, "answer", noted)

    async def main() -> None:
        async with Playing(make()) as played:
            for _ in range(3):
                played.session.answering.queue.ask(QuestionRequest("What was said?"))
                await clock.sleep(1.0)
                for _ in range(3):
                    played.session.context.roles.cost_tracker.record("think", "token", 5.0, 1)

    stage.run(main())
    assert spent == [True, False, False], "a slow model is not asked"


# --- beside it, while nobody asks ---


def test_the_router_is_made_ready_once_and_what_is_new_is_indexed_batch_by_batch_while_nobody_asks(
    stage: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, settled, idle = [0], [], []

    async def settle(self: Index) -> int:
        idle.append(idle_class())
        settled.append(clock.now())
        await clock.sleep(0.1)
        left[0] = max(0, left[0] - 1)
        return left[0]

    monkeypatch.setattr(Index, "settle", settle)

    async def main() -> None:
        embed = routing_role()
        live = make(Models(embed=embed))
        async with Playing(live):
            await clock.sleep(3.0)
            examples = len(intents.examples())
            assert sum(len(payload["texts"]) for payload in embed.payloads("texts")) == examples
            assert len(settled) <= 4, "nothing is new: it looks once a second"
            monkeypatch.setattr(Index, "pause", 4.0)
            await clock.sleep(1.0)
            before = len(settled)
            await clock.sleep(9.0)
            assert 2 <= len(settled) - before <= 3, "a long talk is gone through more seldom"
            monkeypatch.setattr(Index, "pause", 0.0)
            await clock.sleep(4.0)
            left[0] = 10
            before = len(settled)
            await clock.sleep(2.0)
            assert len(settled) - before >= 10, "as long as something is left it goes on"
            left[0] = 99
            await clock.sleep(1.0)
            with live.context.roles.idle.question():
                await clock.sleep(0.0)
                before = len(settled)
                await clock.sleep(5.0)
                assert len(settled) == before, "somebody asks"
        assert all(idle)
        count = len(settled)
        await clock.sleep(5.0)
        assert len(settled) == count, "the session is over"

    stage.run(main())


def test_a_router_whose_model_is_away_is_made_ready_later(stage: asyncio.Runner) -> None:
    async def main() -> None:
        embed = FakeRole({"texts": WorkerError("it loads")})
        async with Playing(make(Models(embed=embed))):
            await clock.sleep(70.0)
        assert [round(call.at - embed.calls[0].at) for call in embed.calls] == [0, 30, 60]

    stage.run(main())


def test_reading_along_ends_with_the_session_and_with_each_question_after_its_end(
    stage: asyncio.Runner,
) -> None:
    async def main() -> None:
        model = Model()
        live = sighted(model)
        async with Playing(live) as played:
            live.dispatch(said(0.0, "The ferry leaves at seven."))
            await clock.sleep(4.0)
            live.dispatch(said(9.0, "It is late."))
            await clock.sleep(3.0)
            assert model.read
            live.end("ended")
            await played.ended()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            assert not others, "no task is left"
            subscription = live.log.subscribe(["answer.done"], "me", lasting=True)
            live.questions.ask(QuestionRequest("Why now?", client="me"))
            assert await subscription.next()
            await clock.sleep(1.0)
            assert asyncio.all_tasks() == {asyncio.current_task()}, "nor after a question"

    stage.run(main())


# --- a model that sees ---


def test_a_question_of_pictures_is_asked_of_the_model_that_sees_and_told_as_its_own_with_the_keyframes(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        model = Model(says=["A grey", " cat. NONE"])
        async with Playing(sighted(model)) as played:
            played.session.media.attach(Sender())
            await send(played.session, packets(tmp_path, 3.0))
            played.session.answering.queue.ask(
                QuestionRequest("What colour is the cat?", question_id="look", client="me")
            )
            played.session.answering.queue.ask(
                QuestionRequest("When was the cat shown?", question_id="time", client="me")
            )
            played.session.answering.queue.ask(
                QuestionRequest("How many cats are in the picture?", question_id="count", client="me")
            )
            await clock.sleep(1.0)
            played.session.answering.queue.ask(
                QuestionRequest("Is the collar of the cat red?", question_id="again", client="me")
            )
            played.session.end("ended")
            events = await played.ended()
        done = {event["question_id"]: event for event in events if event["type"] == "answer.done"}
        shown = {
            round(event["at"], 3): event["url"] for event in events if event["type"] == "keyframe.sampled"
        }
        assert done["look"]["text"] == "A grey cat."
        assert [e["text"] for e in events if e["type"] == "answer.delta" and e["question_id"] == "look"] == [
            done["look"]["text"]
        ]
        assert (done["look"]["supported"], done["look"]["by"]) == (False, "model")
        assert {(item["kind"], item["url"]) for item in done["look"]["evidence"]} <= {
            ("sight", url) for url in shown.values()
        }
        assert len(model.asked) == 2, "times and counts are never asked of the model"
        assert done["time"]["supported"]
        first, second = (asked["items"] for asked in model.asked)
        assert second[: len(first)] == first
        assert any(item.get("picture") for item in first)

    stage.run(main())


@pytest.mark.parametrize("says", [["NONE"], [WorkerError("the think worker died")], [9.0, "A grey cat."]])
def test_a_refusal_stands_where_the_model_that_sees_does_not_know_fails_or_is_late(
    stage: asyncio.Runner, tmp_path: Path, says: list[Any]
) -> None:
    async def main() -> None:
        async with Playing(sighted(Model(says=says))) as played:
            played.session.media.attach(Sender(VP8))
            await send(played.session, packets(tmp_path, 1.0, audio=None))
            played.session.answering.queue.ask(QuestionRequest("What colour is the cat?", client="me"))
            played.session.end("ended")
            done = [event for event in await played.ended() if event["type"] == "answer.done"]
        assert (done[0]["outcome"], done[0]["reason"]) == ("declined", "cannot_tell")
        assert (done[0]["supported"], done[0]["evidence"], "error" in done[0]) == (False, [], False)
        assert done[0]["age_ms"] < 3000, "and is not late itself"

    stage.run(main())


def test_an_image_that_comes_with_a_question_is_looked_at_by_the_model_that_sees(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        model = Model(says=["A blue square."])
        async with Playing(sighted(model)) as played:
            played.session.answering.queue.ask(
                QuestionRequest("What colour is this?", question_id="q1", client="me", image=image())
            )
            await clock.sleep(1.0)
            played.session.end("ended")
            (done,) = [event for event in await played.ended() if event["type"] == "answer.done"]
        assert done["text"] == "A blue square."
        assert [item["kind"] for item in done["evidence"]] == ["image"]
        assert [(asked["session"], len(asked["items"])) for asked in model.asked] == [("s 0 image", 1)]

    stage.run(main())
