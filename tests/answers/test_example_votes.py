"""Examples vote: the near ones most, and those that say the same do not count twice."""

from __future__ import annotations

import numpy as np

from streamsvc.answers.example_votes import Votes, words_of

TEXTS = ["where is it", "where was it", "who sings", "who sang", "how many"]
TARGETS = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 0]], np.float64)


def test_a_text_is_what_its_nearest_examples_are() -> None:
    votes = Votes(TEXTS, TARGETS, np.eye(5, dtype=np.float32))
    for text, vector, kind in zip(TEXTS, np.eye(5, dtype=np.float32), (0, 0, 1, 1), strict=False):
        assert votes.shares(text, vector).argmax() == kind
    assert votes.means.tolist() == [0.4, 0.4]


def test_equal_first_words_count_beside_the_vectors() -> None:
    votes = Votes(TEXTS, TARGETS, np.eye(5, dtype=np.float32))
    nowhere = np.full(5, 5**-0.5, np.float32)
    where, who = votes.shares("where to", nowhere), votes.shares("who else", nowhere)
    assert where[0] - where[1] > 0 > who[0] - who[1]


def test_words_are_without_punctuation_and_keep_their_apostrophes() -> None:
    assert words_of("What's 'that', Mr. Smith-Jones?") == ["what's", "that", "mr", "smith", "jones"]
