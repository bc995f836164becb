"""Exchanges of askers: what is kept, for how long, and what is searched for a follow-up."""

from __future__ import annotations

from streamsvc.answers.exchanges import ASKERS, KEPT, SECONDS, Exchanges, queries_of
from streamsvc.core.types import Answer, Evidence, Question

WHERE = Evidence(1.0, 2.0, "speech", "the ferry sank")


def question(text: str) -> Question:
    return Question("q", text, 10.0, 1e9)


def noted(exchanges: Exchanges, asker: str, text: str, at: float) -> None:
    exchanges.note(asker, question(text), Answer("q", f"{text}, answered", True, (WHERE,)), at)


def test_an_asker_has_the_last_exchanges_the_oldest_first() -> None:
    exchanges = Exchanges()
    for n in range(KEPT + 2):
        noted(exchanges, "ann", f"question {n}", float(n))
    assert [one.question for one in exchanges.of("ann", 5.0)] == ["question 2", "question 3", "question 4"]
    assert exchanges.of("ann", 5.0)[-1].answer_text == "question 4, answered"
    assert exchanges.of("ann", 5.0)[-1].evidence == (WHERE,)


def test_an_asker_has_no_exchange_of_another() -> None:
    exchanges = Exchanges()
    noted(exchanges, "ann", "what sank", 1.0)
    assert exchanges.of("bob", 1.0) == ()


def test_one_who_cannot_be_told_from_others_has_none() -> None:
    exchanges = Exchanges()
    noted(exchanges, "", "what sank", 1.0)
    assert exchanges.of("", 1.0) == ()


def test_an_exchange_is_forgotten_after_some_minutes() -> None:
    exchanges = Exchanges()
    noted(exchanges, "ann", "what sank", 0.0)
    noted(exchanges, "ann", "where", 100.0)
    assert [one.question for one in exchanges.of("ann", SECONDS + 1)] == ["where"]
    assert exchanges.of("ann", SECONDS + 101) == ()


def test_the_asker_answered_longest_ago_is_forgotten_first() -> None:
    exchanges = Exchanges()
    for n in range(ASKERS):
        noted(exchanges, f"asker {n}", "what sank", float(n))
    noted(exchanges, "asker 0", "where", 70.0)
    noted(exchanges, "late", "who", 71.0)
    assert len(exchanges.of("asker 0", 72.0)) == 2
    assert exchanges.of("asker 1", 72.0) == ()


def test_a_first_question_is_searched_as_it_is() -> None:
    assert queries_of(question("what sank")) == ("what sank",)


def test_a_later_question_is_searched_behind_the_last_exchange_too() -> None:
    exchanges = Exchanges()
    noted(exchanges, "ann", "what sank", 1.0)
    later = Question("q", "where", 10.0, 1e9, history=exchanges.of("ann", 2.0))
    assert queries_of(later) == ("where", "what sank where")


def test_a_question_with_many_words_of_its_own_needs_nothing_before_it() -> None:
    exchanges = Exchanges()
    noted(exchanges, "ann", "what sank", 1.0)
    text = "did the xylophonist postpone her glockenspiel recital"
    assert queries_of(Question("q", text, 10.0, 1e9, history=exchanges.of("ann", 2.0))) == (text,)
