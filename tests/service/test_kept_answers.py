"""An answer is kept for whoever asked, and for nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from streamsvc.core.errors import NotFound
from streamsvc.core.types import Event
from streamsvc.service import kept_answers
from streamsvc.service.kept_answers import KeptAnswers


def event(question: str, kind: str = "answer.done", audience: str | None = None, **body: Any) -> Event:
    body = {"question_id": question, **body}
    return Event("s", "main", "e", "e.1", kind, 1.0, 0.0, {}, body, 1, audience=audience)


def test_an_answer_is_read_by_its_asker_alone() -> None:
    kept = KeptAnswers()
    kept.expect("q", "me", "me", "here")
    kept.take(event("q", "answer.delta", "here", text="a part"))
    assert kept.read("q", "me") is None
    kept.take(event("q", audience="here", text="whole"))
    assert kept.read("q", "me") == {"question_id": "q", "text": "whole"}
    for question, asker in (("q", "you"), ("other", "me")):
        with pytest.raises(NotFound):
            kept.read(question, asker)


def test_an_answer_for_the_session_is_read_by_anybody_and_one_that_is_not_expected_by_nobody() -> None:
    kept = KeptAnswers()
    kept.expect("q", "me", "me", None)
    kept.take(event("q", text="whole"))
    kept.take(event("asked elsewhere", text="private"))
    kept.take(Event("s", "main", "e", "e.1", "speech.started", 1.0, 0.0, {}, {}, 1))
    assert kept.read("q", "you") is not None
    assert kept.asker("q", "me") == "me"
    with pytest.raises(NotFound):
        kept.asker("q", "you")
    with pytest.raises(NotFound):
        kept.read("asked elsewhere", "me")


def test_an_answer_to_another_who_chose_the_same_id_is_not_kept_in_its_place() -> None:
    kept = KeptAnswers()
    kept.expect("q", "me", "me", "my client")
    kept.take(event("q", audience="your client", text="yours"))
    assert kept.read("q", "me") is None
    kept.take(event("q", audience="my client", text="mine"))
    kept.take(event("q", audience="my client", text="later"))
    assert kept.read("q", "me") == {"question_id": "q", "text": "mine"}


def test_only_so_many_are_kept() -> None:
    kept = KeptAnswers()
    for number in range(kept_answers._MOST + 1):
        kept.expect(f"q{number}", "me", "me", "here")
    assert kept.read("q1", "me") is None
    with pytest.raises(NotFound):
        kept.read("q0", "me")


def test_what_is_restored_is_read_by_the_same_and_no_others() -> None:
    before, after = KeptAnswers(), KeptAnswers()
    before.expect("q", "token:1", "token:1", "asker:x")
    before.expect("all", "token:1", "token:1", None)
    for name, audience in (("q", "asker:x"), ("all", None)):
        reader = before.reader(name, audience)
        assert reader is not None
        assert "token" not in reader
        after.restore(reader, audience, {"question_id": name})
    assert before.reader("q", "another's") is None
    assert before.reader("none", None) is None
    assert after.read("q", "token:1") == {"question_id": "q"}
    assert after.read("all", "token:2") == {"question_id": "all"}
    for stranger in ("token:2", "", before.reader("q", "asker:x") or ""):
        with pytest.raises(NotFound):
            after.read("q", stranger)
