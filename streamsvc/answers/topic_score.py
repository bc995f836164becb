"""How much a passage is about a topic: cosines of sentence vectors, and what a cross-encoder adds. Pure.

Vectors of sentences are all near each other, short and general ones most: an absolute cosine that keeps false
alerts away misses what is said in other words. So half of the mean vector of texts that are about nothing in
particular is also taken off each side before they are compared, and what is then near is shown to the
cross-encoder. A passage is on topic by either way.

Chosen on the half of load_tests/search.py that may be tuned on (36 topics, a session of 25 minutes), on 50
invented topics with a sentence each and 20 sentences about nothing, all against all, and on the decoys of
load_tests/watches.py, of which "winter" at sentences on summer comes nearest (0.68): the plain cosine alone
found 16 of 36 at 1.6 false alerts an hour and 4 of the 50; both ways find 16 at 1.8 and 16 of the 50, and
none of 3,450 other pairs. With twice the weight from 0.64 it would be 22 at 2.4, 33 and 3, but decoys fire.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]

SHARE = 0.5  # of the mean vector that is taken off
ON_TOPIC = 0.7  # score from which a passage is on topic
PLAIN = 0.84  # cosine of the vectors as they are from which it is so too
NEAR = 0.55  # centred cosine from which the cross-encoder is asked
_WEIGHT = 0.015  # of its logit
_UNRELATED = -11.0  # logit of what has nothing to do with each other
# Passages about nothing in particular.
BACKGROUND = (
    "let us move on to the next point on the list",
    "can everybody hear me at the back",
    "that is a good question and I will come back to it",
    "I think we should take a break now",
    "he said that he would call again on Thursday",
    "so, as I was saying, it depends on what you want",
    "thank you for having me here today",
    "could you repeat that please, the line was bad",
    "we have about ten minutes left",
    "I am not sure whether that is true",
    "look at the left side of this picture",
    "and then she opened the door and went in",
    "there are three of them in the box",
    "it was a long day and we were tired",
    "please sign here and keep the copy",
    "what do you think about it",
    "the second one is bigger than the first",
    "I will send you the link after the meeting",
    "once upon a time there was a king",
    "they waited for a while and then went home",
)


def centred(vectors: Vector, mean: Vector) -> Vector:
    """Vectors, shape (n, d), without SHARE of a mean, shape (d,); unit length."""
    moved = vectors - SHARE * mean
    unit: Vector = moved / np.maximum(np.linalg.norm(moved, axis=-1, keepdims=True), 1e-9)
    return unit


def score(plain: float, cosine: float, logit: float | None) -> float:
    """How much a passage is about a topic.

    Args:
        plain: cosine of the vectors as they are.
        cosine: of the centred ones.
        logit: of the cross-encoder; None: it was not asked, or there is none.
    """
    known = _UNRELATED if logit is None else max(logit, _UNRELATED)
    relative = cosine + _WEIGHT * (known - _UNRELATED)
    return max(relative, ON_TOPIC) if plain >= PLAIN else relative
