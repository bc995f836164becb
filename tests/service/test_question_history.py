"""Answers are shown to whom they were for."""

from __future__ import annotations

from dataclasses import replace

from streamsvc.core.errors import Cancelled
from streamsvc.core.types import Answer, Delta
from streamsvc.core.units import Reply
from streamsvc.service.question_history import QuestionHistory, hashed


def reply(name: str, audience: str | None, asker: str) -> Reply:
    return Reply(name, 1.0, 5.0, Answer(name, "Yes.", True), audience, question=f"{name}?", asker=asker)


def test_an_answer_is_seen_by_its_asker_its_client_and_all_whom_it_was_for() -> None:
    history = QuestionHistory()
    history.add(reply("all", None, "token:1"))
    history.add(reply("mine", "asker:x", "token:1"))
    history.add(reply("socket", "page-7", "page-7"))
    for part in (Delta("d", "Ye"), Cancelled("no")):
        history.add(Reply("d", 1.0, 5.0, part, None))
    assert [one.question for one in history.seen_by(["token:1"])] == ["all?", "mine?"]
    assert [one.question for one in history.seen_by(["token:2"])] == ["all?"]
    assert [one.question for one in history.seen_by(["token:2", "page-7"])] == ["all?", "socket?"]


def test_the_oldest_are_forgotten() -> None:
    history = QuestionHistory()
    for number in range(600):
        history.add(reply(str(number), None, "a"))
    seen = history.seen_by(["a"])
    assert (len(seen), seen[0].question_id) == (500, "100")


def test_what_is_restored_is_seen_by_the_same_and_no_others() -> None:
    history = QuestionHistory()
    for name, audience in (("all", None), ("mine", "asker:x")):
        history.restore(hashed("token:1"), replace(reply(name, audience, "token:1"), asker=""))
    assert [one.question for one in history.seen_by(["token:1"])] == ["all?", "mine?"]
    for stranger in ("token:2", "", hashed("token:1")):
        assert [one.question for one in history.seen_by([stranger])] == ["all?"]
