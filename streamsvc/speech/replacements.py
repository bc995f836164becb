"""Words on their way out, with some of them replaced: names that the model always writes wrongly. Pure.

A phrase is matched without regard to case, on whole words, and never across punctuation. Only stable words are replaced; the
tail passes as it was heard. Stable words that may still become a phrase wait in the tail until it is known: what was told as
stable is never revised, and the result does not depend on where the units were cut.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from streamsvc.core.types import SPACELESS, Word, Words

_BLANKS = re.compile(rf"(?<=[{SPACELESS}])\s+|\s+(?=[{SPACELESS}])")
_EDGES = re.compile(r"^(\W*)(.*?)([^\w+#]*)$", re.DOTALL)  # C++ and C# keep their signs


class Replacer:
    """Replaces phrases in the words of one track.

    Args:
        phrases: what is heard -> what is to be written, e.g. {"stream service": "streamsvc"}. The longest phrase wins.
    """

    def __init__(self, phrases: Mapping[str, str]) -> None:
        self._phrases = {_plain(phrase): text for phrase, text in phrases.items()}
        self._begun = frozenset(
            phrase[:size] for phrase in self._phrases for size in range(1, len(phrase)) if _cut(phrase, size)
        )
        self._held: tuple[Word, ...] = ()  # stable already, but perhaps the beginning of a phrase

    def take(self, words: Words) -> Words:
        """The unit as it goes out: some words joined to one, some stable ones kept back as the first of the tail."""
        if not self._phrases:
            return words
        stable, tail = (*self._held, *words.words[: words.stable]), words.words[words.stable :]
        done: list[Word] = []
        place = 0
        while place < len(stable):
            size, text, open_ = self._match(stable[place:])
            if open_ and not words.final:
                break
            done.append(_joined(stable[place : place + size], text) if text is not None else stable[place])
            place += size
        self._held = stable[place:]
        out = (*done, *self._held, *tail)
        shift = _last(out, len(done)) - _last(words.words, words.stable) if out and words.words else 0.0
        at = out[0].start if out else words.at
        return replace(words, at=at, arrived=words.arrived + shift, words=out, stable=len(done))

    def _match(self, words: tuple[Word, ...]) -> tuple[int, str | None, bool]:
        """The longest phrase at the beginning: how many words it takes, what stands for it, and whether more words may change that."""
        found: tuple[int, str | None] = (1, None)
        heard = ""
        for count, word in enumerate(words, 1):
            before, core, after = _edges(word.text)
            if count > 1 and before:
                return *found, False
            heard = _plain(f"{heard} {core}")
            if heard in self._phrases:
                found = count, self._phrases[heard]
            if after or heard not in self._begun:
                return *found, False
        return *found, True


def _plain(text: str) -> str:
    """A phrase as it is compared: no case, one blank between words, none where the script has none."""
    return _BLANKS.sub("", " ".join(text.casefold().split()))


def _cut(phrase: str, size: int) -> bool:
    """Whether a word may end behind the first `size` characters."""
    return (
        phrase[size] == " "
        or bool(re.match(rf"[{SPACELESS}]", phrase[size]))
        or bool(re.match(rf"[{SPACELESS}]", phrase[size - 1]))
    )


def _edges(text: str) -> tuple[str, str, str]:
    """A word without the punctuation around it, and that."""
    found = _EDGES.match(text)
    return (found[1], found[2], found[3]) if found is not None else ("", text, "")


def _joined(words: tuple[Word, ...], text: str) -> Word:
    """One word for several, with the punctuation around them; as probable as the least of them."""
    before, after = _edges(words[0].text)[0], _edges(words[-1].text)[2]
    return Word(
        f"{before}{text}{after}", words[0].start, words[-1].end, min(word.probability for word in words)
    )


def _last(words: tuple[Word, ...], stable: int) -> float:
    """The end of the word that a unit's `arrived` is about."""
    return (words[:stable] or words)[-1].end
