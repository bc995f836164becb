"""Questions that follow another are answered from its evidence, or made to stand alone.

Others are left as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from streamsvc.answers.answer import Answerer
from streamsvc.answers.deadline import Plan
from streamsvc.answers.question_queue import QuestionRequest
from streamsvc.answers.rules import follow_ups
from streamsvc.answers.rules.follow_ups import ASKERS, SECONDS, Memory, followed, refers, standalone
from streamsvc.answers.rules.parse import ParsedQuestion, parse, parsed
from streamsvc.core import clock
from streamsvc.core.config import Think
from streamsvc.core.types import Answer, Before, Delta, Evidence, Question
from streamsvc.timeline.timeline import Timeline
from tests.builders.questions import find
from tests.builders.session import Playing, make
from tests.builders.units import cue, screen, sight

WORDS = "We begin with the budget. It was cut in half last year. Nobody liked it, I think."


def line() -> Timeline:
    """Speech from 2 s on, a cat from 10 s, a dog from 20 s, and a slide from 30 s on."""
    found = Timeline()
    found.add(cue(WORDS, 2.0))
    for at, label in ((10.0, "cat"), (20.0, "dog")):
        found.add(sight(at, label))
    found.add(screen(30.0, "Budget 2026", "half of it"))
    found.latest = 40.0
    return found


def told(first: str, *then: str, now: float = 40.0) -> str:
    """What the last of some questions of one asker is answered."""
    known, memory = line(), Memory()
    text = ""
    for asked in (first, *then):
        question = standalone(parsed(Question("q", asked, now, 0.0)), memory.before("me", 0.0))
        found = followed(question, known, now) or find(question.question.text, known, now)
        assert found.supported == bool(found.evidence)
        memory.note(
            "me", question, Answer("q", found.text, found.supported, found.evidence, {}, found.values), 0.0
        )
        text = found.text
    return text


@pytest.mark.parametrize(
    ("first", "then", "answer"),
    [
        ("What did they say about the budget?", "And when was that?", "At 0:0"),
        ("Is a cat visible at 0:12?", "when was that", "At 0:10"),
        ("What did they say about the budget?", "Who said that?", "I cannot tell who speaks."),
        (
            "Which slide is about the budget?",
            "Who said that?",
            "It was not said, it stood on the screen at 0:30.",
        ),
        (
            "What did they say about the budget?",
            "How do you know that?",
            'It was said at 0:02: "We begin with the budget.',
        ),
        ("What did they say about the budget?", "what did he say after that?", "At 0:0"),
        ("When was a cat shown?", "what was shown after that?", "A dog"),
        ("When was a dog shown?", "And what was shown before that?", "A cat"),
        ("When was a cat shown?", "how long was it visible?", "10 s, from 0:10 to 0:20."),
        ("When was a cat shown?", "when did it disappear?", "At 0:20"),
        ("When was a dog shown?", "when did it disappear?", "It is still shown, since 0:20."),
        ("When was a cat shown?", "and the dog?", "At 0:20"),
        ("When was a cat shown?", "what about the dog?", "At 0:20"),
        ("What was shown at 0:12?", "and at 0:22?", "A dog."),
        ('When did they say "liked"?', 'and "half"?', "At 0:0"),
        ("When was a cat shown?", "is it still there?", "No, no cat"),
        ("What has been shown so far?", "what about the second one?", '"dog", from 0:20.'),
        ("What has been shown so far?", "what about the fifth one?", "I have not"),
        ("Did they mention tea?", "And when was that?", "I have not"),
        ("When was a zebra shown?", "and what came next?", "I have not"),
    ],
)
def test_a_question_that_follows_another_is_answered_as_if_it_had_said_all(
    first: str, then: str, answer: str
) -> None:
    assert told(first, then).startswith(answer)


def test_what_comes_next_goes_on_from_answer_to_answer() -> None:
    after = told("What did they say about the budget?", "what did he say after that?")
    more = told("What did they say about the budget?", "what did he say after that?", "and then?")
    assert after != more
    assert "Nobody liked it" in after + more
    assert told("What has been shown so far?", "what about the first one?", "and the third?").startswith(
        '"Budget 2026", from 0:30'
    )
    assert told("When was a cat shown?", "and when was that?", "and the dog?").startswith("At 0:20"), (
        "the question before is still known"
    )


@pytest.mark.parametrize(
    "question",
    [
        "What is it about?",
        "Is it raining?",
        "When was the cat shown?",
        "What did they say about the king?",
        "Who wrote the book?",
        "What time is it?",
    ],
)
def test_a_question_that_stands_alone_follows_none(question: str) -> None:
    assert not refers(parse(question))
    asked = parsed(Question("q", question, 1.0, 1.0))
    before = Before(
        "When was the dog shown?", Answer("p", "At 0:20.", True, (Evidence(20.0, 30.0, "sight", "dog"),)), 0.0
    )
    assert standalone(asked, before).question.text == question
    assert followed(standalone(asked, before), line(), 1.0) is None


def test_without_an_answer_before_or_with_a_picture_a_question_is_left_alone() -> None:
    asked = parsed(Question("q", "and the dog?", 1.0, 1.0))
    assert standalone(asked, None) is asked
    before = Before("When was the cat shown?", Answer("p", "At 0:10.", True, ()), 0.0)
    assert standalone(asked, before).question.text == "when was the dog shown"
    pictured = parsed(Question("q", "and the dog?", 1.0, 1.0, image=b"jpeg"))
    assert standalone(pictured, before) is pictured
    of_image = Before(
        "Is this a cat?",
        Answer("p", "Yes.", True, (Evidence(1.0, 1.0, "image", "cat 0.9"),)),
        0.0,
        image=True,
    )
    assert standalone(asked, of_image).question.text == "and the dog?", "the picture is gone"
    found = followed(standalone(parsed(Question("q", "when was that?", 1.0, 1.0)), of_image), line(), 1.0)
    assert found is not None
    assert not found.supported


def test_what_was_told_is_forgotten_after_some_minutes_and_for_the_oldest_askers() -> None:
    memory = Memory()
    question, answer = parsed(Question("q", "What is shown?", 1.0, 1.0)), Answer("q", "A cat.", True, ())
    memory.note("", question, answer, 0.0)
    assert memory.before("", 0.0) is None, "nobody who can be told from others"
    memory.note("me", question, answer, 0.0)
    kept = memory.before("me", SECONDS)
    assert kept is not None
    assert kept.question == "What is shown?"
    assert memory.before("me", SECONDS + 0.1) is None
    assert memory.before("you", 0.0) is None
    for number in range(ASKERS):
        memory.note(f"a{number}", question, answer, 1.0)
    assert memory.before("me", 1.0) is None
    assert memory.before("a0", 1.0) is not None


def test_a_session_knows_what_each_asker_was_told_and_waits_for_what_is_followed(
    stage: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Answerer.answer

    async def slow(self: Answerer, parsed: ParsedQuestion, *rest: Any) -> AsyncIterator[Delta | Answer]:
        if "cat" in parsed.question.text:
            await clock.sleep(1.0)
        async for part in whole(self, parsed, *rest):
            yield part

    monkeypatch.setattr(Answerer, "answer", slow)

    async def main() -> None:
        async with Playing(make()) as played:
            live = played.session
            live.timeline.add(sight(0.1, "cat"))
            live.timeline.add(sight(0.2, "dog"))
            for number, text, asker in (
                ("a", "When was a cat shown?", "me"),
                ("b", "and the dog?", "me"),
                ("c", "and the dog?", "you"),
            ):
                live.answering.queue.ask(QuestionRequest(text, question_id=number, client="me", asker=asker))
            live.end("ended")
            done = {
                event["question_id"]: event
                for event in await played.ended()
                if event["type"] == "answer.done"
            }
        assert done["a"]["text"] == "At 0:00 (0.1 s)."
        assert done["b"]["text"] == "At 0:00 (0.2 s)."
        assert not done["c"]["supported"]

    stage.run(main())


async def test_an_answer_from_the_last_evidence_comes_without_a_model() -> None:
    before = Before(
        "Is there a cat?", Answer("p", "Yes.", True, (Evidence(10.0, 20.0, "sight", "cat 0.9", 10.0),)), 0.0
    )
    question = parsed(Question("q", "and when was that?", 40.0, 1e12, before=before))
    parts = [part async for part in Answerer(line(), Think()).answer(question, Plan())]
    assert parts[0] == Delta("q", "At 0:10 (10.0 s).")
    assert follow_ups.refers(question.ask)
