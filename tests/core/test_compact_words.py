"""Compact words equal the words that they store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.core.compact_words import CompactWords
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
def test_compact_words_are_equal_to_the_millisecond(words: tuple[Word, ...]) -> None:
    compact = CompactWords(words)
    assert tuple(compact) == words == compact[:]
    assert compact == words
    assert hash(compact) == hash(CompactWords(list(words)))
    assert len(compact) == len(words)
    assert compact[1:] == words[1:]
    assert compact.texts == tuple(word.text for word in words)
    if words:
        assert compact[-1] == words[-1]
    with pytest.raises(IndexError):
        compact[len(words)]


def test_compact_words_intern_their_texts_and_are_rounded() -> None:
    words = [Word("".join(("mi", "ll")), 1.23456 + n, 1.5 + n, 0.98765) for n in range(12)]
    one, other = CompactWords(words), CompactWords(words)
    assert one.texts[0] is other.texts[11]
    assert (one[0].start, one[0].probability) == (1.235, 0.99)
