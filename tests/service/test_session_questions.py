"""A session that has ended is asked: one task answers, ends by itself, and begins again."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from streamsvc.answers.answer import Answerer
from streamsvc.answers.question_queue import QuestionRequest
from streamsvc.core import clock
from streamsvc.core.errors import CapacityError, NotFound
from streamsvc.core.types import Answer
from streamsvc.service.session import Session
from tests.builders.session import Playing, Sender, kinds, make


async def ended(session: Session) -> None:
    """Play nothing, and end."""
    playing = asyncio.create_task(session.run())
    await asyncio.sleep(0)
    session.media.attach(Sender())
    session.end("ended")
    await playing


async def told(session: Session, question: str, client: str = "me") -> dict[str, Any]:
    """The whole answer to a question, as its asker gets it."""
    subscription = session.log.subscribe(["answer.done"], client, lasting=True)
    asked = session.questions.ask(QuestionRequest(question, client=client))
    event = json.loads((await subscription.next() or [])[0][1])
    assert event["question_id"] == asked.id
    return dict(event)


def test_questions_after_the_end_are_answered_one_after_the_other(stage: asyncio.Runner) -> None:
    async def main() -> None:
        session = make()
        await ended(session)
        for question in ("First?", "Second?"):
            answer = await told(session, question)
            assert (answer["outcome"], answer["reason"]) == ("declined", "nothing_yet")
            await clock.sleep(0.1)
        entries, _ = await session.log.since(0, None, session.log.seq)
        assert [entry.type for entry in entries][-3:] == ["session.closed", "answer.done", "answer.done"]
        assert session.store.read(0, 100, 100)[-1][1] == "answer.done", "they are stored"

    stage.run(main())


def test_a_question_asked_while_the_last_ones_are_answered_is_not_lost(
    stage: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(*_: Any) -> Any:
        await clock.sleep(2.0)
        yield Answer("q", "It was.", True, ())

    monkeypatch.setattr(Answerer, "answer", slow)

    async def main() -> None:
        async with Playing(make()) as played:
            played.session.questions.ask(QuestionRequest("First?", client="me"))
            played.session.end("ended")
            await clock.sleep(1.0)
            subscription = played.session.log.subscribe(["answer.done"], "me", lasting=True)
            played.session.questions.ask(QuestionRequest("Last?", client="me"))
            events = await played.ended()
            assert kinds(events).count("answer.done") >= 1
            seen = 0
            while seen < 2:
                seen += len(await subscription.next() or [])

    stage.run(main())


def test_the_bounds_hold_and_the_level_does(stage: asyncio.Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: Any) -> Any:
        await clock.sleep(99.0)
        yield Answer("q", "It was.", True, ())

    monkeypatch.setattr(Answerer, "answer", never)

    async def main() -> None:
        session = make(limits={"questions_waiting": 2})
        await ended(session)
        for _ in range(2):
            session.questions.ask(QuestionRequest("Wait?", client="me"))
        with pytest.raises(CapacityError):
            session.questions.ask(QuestionRequest("Wait?", client="me"))
        seq = session.log.seq
        session.apply_level(6, "sound waits to be processed")
        assert session.log.seq == seq, "its log has ended"
        with pytest.raises(CapacityError, match="sound waits"):
            session.questions.ask(QuestionRequest("Wait?", client="you"))
        await session.questions.close()

    stage.run(main())


def test_once_it_is_closed_nothing_is_answered_and_nobody_waits_for_ever(
    stage: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: Any) -> Any:
        await clock.sleep(99.0)
        yield Answer("q", "It was.", True, ())

    monkeypatch.setattr(Answerer, "answer", never)

    async def main() -> None:
        session = make()
        await ended(session)
        subscription = session.log.subscribe(["answer.done"], "me", lasting=True)
        session.questions.ask(QuestionRequest("Wait?", client="me"))
        await clock.sleep(1.0)
        await session.questions.close()
        told = await subscription.next()
        assert told is not None
        assert '"reason":"cancelled"' in told[0][1]
        assert await subscription.next() is None
        with pytest.raises(NotFound):
            session.questions.ask(QuestionRequest("Anybody?", client="me"))

    stage.run(main())
