"""What each asker was answered lately, so that follow-ups have what they refer to."""

from __future__ import annotations

from collections import deque

from streamsvc.answers.example_votes import words_of
from streamsvc.answers.intents import rarity
from streamsvc.core.types import Answer, Exchange, Question

SECONDS = 180.0  # after so long an exchange is forgotten
ASKERS = 64  # whose exchanges are kept; beyond them those of the one answered longest ago are forgotten
KEPT = 3  # exchanges of one asker
# Words that no example question has, in a question that may need the one before. Chosen on the develop half:
# all 17 follow-ups there have at most so many, 16 of 65 others more.
_OWN_WORDS = 2


class Exchanges:
    """The last exchanges of each asker who can be told from others; bounded.

    Args:
        seconds: after which an exchange is forgotten.
        askers: limit; beyond it, the one who was answered longest ago is forgotten.
    """

    def __init__(self, seconds: float = SECONDS, askers: int = ASKERS) -> None:
        self._seconds, self._askers = seconds, askers
        self._by_asker: dict[str, deque[Exchange]] = {}  # the one answered last at the end

    def of(self, asker: str, now: float) -> tuple[Exchange, ...]:
        """An asker's exchanges that are not forgotten at monotonic second `now`, the oldest first."""
        kept = self._by_asker.get(asker, ())
        return tuple(exchange for exchange in kept if now - exchange.at <= self._seconds)

    def note(self, asker: str, question: Question, answer: Answer, now: float) -> None:
        """Keep an answer of monotonic second `now`; one that states nothing too, for its question."""
        if not asker:
            return
        kept = self._by_asker.pop(asker, deque(maxlen=KEPT))
        kept.append(Exchange(question.text, answer.text, answer.evidence, now))
        self._by_asker[asker] = kept
        while len(self._by_asker) > self._askers:
            del self._by_asker[next(iter(self._by_asker))]


def queries_of(question: Question) -> tuple[str, ...]:
    """What to search for: the question, and for what may be a follow-up the same behind the question before.

    A passage counts with the better of its scores for pointing at it; to state an answer, count the first
    query alone: the second also finds what the last question was about. The last answer is left out, for it
    finds itself. A question with many words of its own needs nothing before it.
    """
    own = sum(rarity(word) == 1.0 for word in words_of(question.text))
    if not question.history or own > _OWN_WORDS:
        return (question.text,)
    return (question.text, f"{question.history[-1].question} {question.text}")
