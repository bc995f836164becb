"""The sentence that stands for a stretch of speech: the one whose terms its neighbours share. Pure.

Source: H. P. Luhn, "The Automatic Creation of Literature Abstracts" (1958), with inverse document frequencies
as weights: what is frequent in the stretch and rare elsewhere tells most of it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from streamsvc.timeline.text import terms
from streamsvc.timeline.transcript import Sentence

LEAST_WORDS = 5  # of a sentence that may stand for others, where there is one
MOST_WORDS = 24  # of a sentence, beyond which a shorter one is preferred
MOST_REPEATS = 4  # of a term in a stretch, beyond which it counts no more


@dataclass(frozen=True, slots=True)
class Background:
    """How many of `count` texts hold each term: against them a stretch is judged."""

    held: Counter[str]
    count: int

    @classmethod
    def of(cls, texts: Iterable[str]) -> Background:
        """Count the terms of some texts."""
        bags = [frozenset(terms(text)) for text in texts]
        return cls(Counter(term for bag in bags for term in bag), len(bags))

    def rarity(self, term: str) -> float:
        """Inverse document frequency of a term; always above 0."""
        held = self.held[term]
        return math.log(1 + (self.count - held + 0.5) / (held + 0.5))


def centrality(text: str, here: Counter[str], background: Background) -> float:
    """How much a text tells of a stretch; 0 if it has no content word.

    Args:
        text: of the stretch.
        here: how many texts of the stretch hold each term.
        background: of the whole.
    """
    own = frozenset(terms(text))
    shared = math.fsum(background.rarity(term) * min(here[term], MOST_REPEATS) for term in own)
    words = len(text.split())
    return shared / max(1.0, words / MOST_WORDS) / math.sqrt(max(1, len(own)))


def most_central(stretch: Sequence[Sentence], background: Background) -> Sentence:
    """The sentence that tells most of a stretch of at least one; of equals the first."""
    here = Background.of(sentence.text for sentence in stretch).held

    def worth(sentence: Sentence) -> tuple[bool, float]:
        whole = len(sentence.words) >= LEAST_WORDS
        return whole and bool(terms(sentence.text)), centrality(sentence.text, here, background)

    return max(stretch, key=worth)


def standing(stretch: Sequence[Sentence], after: Sequence[Sentence]) -> Sentence:
    """The sentence that stays of a stretch which the timeline lets go (a `Fold`); of equals the first.

    Args:
        stretch: at least one sentence.
        after: what came after it, beside which it is judged.
    """
    return most_central(stretch, Background.of(sentence.text for sentence in (*stretch, *after)))
