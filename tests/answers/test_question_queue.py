"""Questions are checked at the door, wait in a bounded queue, and none that was taken is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamsvc.answers.question_queue import QuestionQueue, QuestionRequest, QueuedQuestion
from streamsvc.core import clock, config
from streamsvc.core.context import SessionContext
from streamsvc.core.errors import CapacityError, InvalidRequest, NotFound, StreamsvcError, TooLarge
from tests.fakes.host import context

LIMITS: dict[str, Any] = {"questions_waiting": 2, "question_chars": 20, "image_bytes": 10}


def at_work(**limits: Any) -> SessionContext:
    """A session at second 7.5 whose answers have 3 s."""
    made = context(settings=config.load(None, limits=limits or LIMITS, think={"deadline": 3.0}))
    made.clock.restart(media_paced=True)
    made.clock.advance(7.5)
    return made


def inbox(**limits: Any) -> QuestionQueue:
    return QuestionQueue(at_work(**limits))


async def emptied(box: QuestionQueue) -> list[QueuedQuestion]:
    return [asked async for asked in box.questions()]


def test_a_question_carries_its_times_its_deadline_and_its_asker(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        box, now = inbox(), clock.now()
        one = box.ask(QuestionRequest("  What is it? ", client="me"))
        other = box.ask(
            QuestionRequest(
                "And that?",
                question_id="mine",
                deadline_ms=500,
                audience="session",
                client="me",
                image=b"jpeg",
                form={},
            )
        )
        box.close()
        asked = await emptied(box)
        assert [(entry.question, entry.at, entry.client) for entry in asked] == [
            (one, now, "me"),
            (other, now, None),
        ]
        assert (one.text, one.asked, one.deadline) == ("What is it?", 7.5, now + 3.0)
        assert (other.id, other.deadline, other.image, other.form) == ("mine", now + 0.5, b"jpeg", {})
        assert one.id != inbox().ask(QuestionRequest("What is it?")).id

    virtual.run(main())


@pytest.mark.parametrize(
    ("wrong", "error", "code"),
    [
        ({"text": " \n"}, InvalidRequest, "empty_question"),
        ({"text": "x" * 21}, TooLarge, "question_too_long"),
        ({"image": bytes(11)}, TooLarge, "image_too_large"),
        ({"deadline_ms": 0}, InvalidRequest, "bad_deadline"),
        ({"deadline_ms": float("nan")}, InvalidRequest, "bad_deadline"),
        ({"audience": "nobody"}, InvalidRequest, "bad_audience"),
    ],
)
def test_what_is_no_question_is_refused_and_takes_no_place(
    wrong: dict[str, Any], error: type[StreamsvcError], code: str
) -> None:
    box = inbox()
    with pytest.raises(error) as caught:
        box.ask(QuestionRequest(**{"text": "What?", **wrong}))
    assert caught.value.code == code
    box.ask(QuestionRequest("One?"))
    box.ask(QuestionRequest("Two?"))


def test_more_than_may_wait_are_refused_with_a_time_to_come_back() -> None:
    box = inbox()
    box.ask(QuestionRequest("One?"))
    box.ask(QuestionRequest("Two?"))
    with pytest.raises(CapacityError) as caught:
        box.ask(QuestionRequest("Three?"))
    assert (caught.value.code, caught.value.retry_after) == ("too_many_questions", 2.0)


async def test_held_questions_wait_for_room_and_are_the_last() -> None:
    box = inbox()
    ids = box.ask_at_end(["Three?", "Four?"], client="me")
    box.ask(QuestionRequest("One?"))
    box.ask(QuestionRequest("Two?"))
    closing = asyncio.create_task(box.close_after_last())
    asked = [taken.question for taken in await emptied(box)]
    assert [question.text for question in asked] == ["One?", "Two?", "Three?", "Four?"]
    assert [question.id for question in asked[2:]] == ids
    await closing


def test_held_questions_are_checked_when_they_are_handed_in() -> None:
    box = inbox()
    for texts, code in (
        (["a", "b", "c"], "too_many_questions"),
        (["a", " "], "empty_question"),
        (["x" * 21], "question_too_long"),
    ):
        with pytest.raises(StreamsvcError) as caught:
            box.ask_at_end(texts, client="me")
        assert caught.value.code == code


async def test_a_closed_inbox_gives_out_what_it_holds_and_takes_nothing() -> None:
    box = inbox()
    box.ask(QuestionRequest("One?"))
    box.close()
    box.close()
    for take in (lambda: box.ask(QuestionRequest("Two?")), lambda: box.ask_at_end(["Two?"], client="me")):
        with pytest.raises(NotFound) as caught:
            take()
        assert caught.value.code == "session_ended"
    assert [asked.question.text for asked in await emptied(box)] == ["One?"]


def test_it_tells_how_long_the_oldest_question_has_waited(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        box = inbox()
        assert box.waited(clock.now()) == 0.0
        box.ask(QuestionRequest("One?"))
        await clock.sleep(2.0)
        box.ask(QuestionRequest("Two?"))
        assert box.waited(clock.now()) == 2.0
        box.close()
        assert len(await emptied(box)) == 2
        assert box.waited(clock.now()) == 0.0

    virtual.run(main())


def test_while_it_refuses_questions_it_says_why_and_what_waits_is_still_answered() -> None:
    session = at_work()
    box = QuestionQueue(session)
    box.ask(QuestionRequest("One?"))
    session.degradation.apply(6, "sound waits to be processed")
    with pytest.raises(CapacityError, match="sound waits to be processed") as caught:
        box.ask(QuestionRequest("Two?"))
    assert caught.value.code == "capacity"
    session.degradation.apply(0, "")
    box.ask(QuestionRequest("Three?"))


async def test_askers_take_turns_however_much_one_of_them_asks() -> None:
    box = inbox(questions_waiting=8)
    for text in ("A1", "A2", "A3"):
        box.ask(QuestionRequest(text, client="a"))
    box.ask(QuestionRequest("B1", client="b"))
    box.ask(QuestionRequest("H1", audience="session", asker="a host"))
    box.close()
    taken = await emptied(box)
    assert [asked.question.text for asked in taken] == ["A1", "B1", "H1", "A2", "A3"]
    assert [(asked.client, asked.asker) for asked in taken[:3]] == [("a", "a"), ("b", "b"), (None, "a host")]


def test_one_who_floods_leaves_places_for_those_who_have_none() -> None:
    box = inbox(questions_waiting=8)
    for number in range(6):
        box.ask(QuestionRequest(f"A{number}?", client="a"))
    with pytest.raises(CapacityError, match="6 questions wait already"):
        box.ask(QuestionRequest("A6?", client="a"))
    box.ask(QuestionRequest("B0?", client="b"))
    box.ask(QuestionRequest("C0?", client="c"))
    with pytest.raises(CapacityError, match="8 questions wait already"):
        box.ask(QuestionRequest("D0?", client="d"))


async def test_a_cancelled_question_leaves_its_place_and_is_not_handed_out() -> None:
    box = inbox()
    box.ask(QuestionRequest("One?", question_id="x", client="a"))
    box.ask(QuestionRequest("Two?", question_id="x", client="b"))
    assert box.cancel("x", "nobody") is None
    assert box.cancel("y") is None
    assert (gone := box.cancel("x", "b")) is not None
    assert gone.question.text == "Two?"
    box.ask(QuestionRequest("Three?", client="b"))
    assert (gone := box.cancel("x")) is not None
    assert gone.question.text == "One?"
    box.close()
    assert [asked.question.text for asked in await emptied(box)] == ["Three?"]


async def test_two_who_take_get_each_question_once_and_both_end() -> None:
    box = inbox(questions_waiting=8)
    taking = [asyncio.create_task(emptied(box)) for _ in range(2)]
    await asyncio.sleep(0)
    texts = ["One?", "Two?", "Three?"]
    for text in texts:
        box.ask(QuestionRequest(text))
        await asyncio.sleep(0)
    box.close()
    assert sorted(
        asked.question.text for taken in await asyncio.gather(*taking) for asked in taken
    ) == sorted(texts)


def test_an_answer_for_an_asker_without_a_client_has_no_subscriber_for_an_audience() -> None:
    box = inbox(questions_waiting=8)
    box.ask(QuestionRequest("One?", asker="token:a"))
    box.ask(QuestionRequest("Two?", asker="token:b"))
    box.ask(QuestionRequest("Three?", asker="token:c", audience="session"))
    box.close()
    one, two, public = asyncio.run(emptied(box))
    assert one.client
    assert two.client
    assert one.client != two.client
    assert public.client is None
