"""Replaces phrases in recognised words, such as names that the model always misspells. Pure.

A phrase is matched case-insensitively, on whole words, and never across punctuation. Only stable words are
replaced; the tail passes unchanged. Stable words that may be the beginning of a phrase stay in the tail until
that is decided: published stable words are never revised, and the result does not depend on how the words
were cut into units.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from streamsvc.core.types import SPACELESS, Word, Words

_BLANKS = re.compile(rf"(?<=[{SPACELESS}])\s+|\s+(?=[{SPACELESS}])")
_EDGES = re.compile(r"^(\W*)(.*?)([^\w+#]*)$", re.DOTALL)  # C++ and C# keep their signs


class _Match(NamedTuple):
    size: int  # words
    text: str | None  # replacement; None: no phrase matches
    undecided: bool  # more words may change it


class Replacer:
    """Replaces phrases in the words of one track.

    Args:
        phrases: recognised text -> replacement, e.g. {"stream service": "streamsvc"}. The longest phrase
            wins.
    """

    def __init__(self, phrases: Mapping[str, str]) -> None:
        self._undecided: tuple[Word, ...] = ()  # stable words that may be the beginning of a phrase
        self.use(phrases)

    def use(self, phrases: Mapping[str, str]) -> None:
        """Replace these phrases from the next unit on, words that are undecided included."""
        self._phrases = {_normalise(phrase): text for phrase, text in phrases.items()}
        self._prefixes = frozenset(
            phrase[:size]
            for phrase in self._phrases
            for size in range(1, len(phrase))
            if _is_boundary(phrase, size)
        )

    def take(self, words: Words) -> Words:
        """The unit with phrases replaced; undecided stable words are the first of its tail."""
        if not self._phrases and not self._undecided:
            return words
        stable = (*self._undecided, *words.words[: words.stable])
        tail = words.words[words.stable :]
        done: list[Word] = []
        index = 0
        while index < len(stable):
            match = self._match(stable[index:])
            if match.undecided and not words.final:
                break
            matched = stable[index : index + match.size]
            done.append(stable[index] if match.text is None else _joined(matched, match.text))
            index += match.size
        self._undecided = stable[index:]
        replaced = (*done, *self._undecided, *tail)
        shift = 0.0
        if replaced and words.words:
            shift = _reference_end(replaced, len(done)) - _reference_end(words.words, words.stable)
        at = replaced[0].start if replaced else words.at
        return replace(words, at=at, arrived=words.arrived + shift, words=replaced, stable=len(done))

    def _match(self, words: tuple[Word, ...]) -> _Match:
        """The longest phrase at the beginning of `words`."""
        size = 1
        replacement: str | None = None
        text = ""
        for count, word in enumerate(words, 1):
            before, core, after = _split_edges(word.text)
            if count > 1 and before:
                return _Match(size, replacement, False)
            text = _normalise(f"{text} {core}")
            if text in self._phrases:
                size = count
                replacement = self._phrases[text]
            if after or text not in self._prefixes:
                return _Match(size, replacement, False)
        return _Match(size, replacement, True)


def _normalise(text: str) -> str:
    """A phrase for comparison: no case, one blank between words (none in spaceless scripts)."""
    return _BLANKS.sub("", " ".join(text.casefold().split()))


def _is_boundary(phrase: str, size: int) -> bool:
    """Whether a word may end after the first `size` characters."""
    return (
        phrase[size] == " "
        or bool(re.match(rf"[{SPACELESS}]", phrase[size]))
        or bool(re.match(rf"[{SPACELESS}]", phrase[size - 1]))
    )


def _split_edges(text: str) -> tuple[str, str, str]:
    """Punctuation before a word, the word, punctuation after it."""
    match = _EDGES.match(text)
    return (match[1], match[2], match[3]) if match is not None else ("", text, "")


def _joined(words: tuple[Word, ...], text: str) -> Word:
    """One word for several, with the punctuation around them and the lowest probability."""
    before = _split_edges(words[0].text)[0]
    after = _split_edges(words[-1].text)[2]
    probability = min(word.probability for word in words)
    return Word(f"{before}{text}{after}", words[0].start, words[-1].end, probability)


def _reference_end(words: tuple[Word, ...], stable: int) -> float:
    """End of the word that `Words.arrived` refers to."""
    return (words[:stable] or words)[-1].end
