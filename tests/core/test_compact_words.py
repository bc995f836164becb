"""Words that are kept are the words that were said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.core.compact_words import KeptWords
from streamsvc.core.types import Word

MILLISECONDS = st.integers(0, 10**8)
WORDS = st.builds(
    lambda text, start, length, share: Word(text, start / 1000, (start + length) / 1000, share / 100),
    st.text(max_size=5),
    MILLISECONDS,
    st.integers(0, 60_000),
    st.integers(0, 100),
)


@given(st.lists(WORDS, max_size=6).map(tuple))
def test_words_that_are_kept_are_the_same_to_the_millisecond(words: tuple[Word, ...]) -> None:
    kept = KeptWords(words)
    assert tuple(kept) == words == kept[:]
    assert kept == words
    assert hash(kept) == hash(KeptWords(list(words)))
    assert len(kept) == len(words)
    assert kept[1:] == words[1:]
    assert kept.texts == tuple(word.text for word in words)
    if words:
        assert kept[-1] == words[-1]
    with pytest.raises(IndexError):
        kept[len(words)]


def test_words_that_are_kept_share_their_texts_and_are_rounded() -> None:
    words = [Word("".join(("mi", "ll")), 1.23456 + n, 1.5 + n, 0.98765) for n in range(12)]
    one, other = KeptWords(words), KeptWords(words)
    assert one.texts[0] is other.texts[11]
    assert (one[0].start, one[0].probability) == (1.235, 0.99)
