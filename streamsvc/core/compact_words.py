"""What a session keeps for hours, made small. Pure."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Sequence
from typing import overload

from streamsvc.core.types import Stages, Word

TOLD: Stages = {}  # of a unit that is kept: what its stages took has been told

_ROW = struct.Struct("iiB")  # of a word: when it starts and ends, in ms; its probability, in hundredths


class KeptWords(Sequence[Word]):
    """Words in a fifth of a tuple's memory: times to the millisecond, probabilities to two decimals.

    Each is made anew when it is asked for.

    Args:
        words: in order of time.
    """

    __slots__ = ("_begin", "_numbers", "texts")

    def __init__(self, words: Sequence[Word]) -> None:
        self.texts = tuple(sys.intern(word.text) for word in words)
        self._begin = (
            words[0].start if words else 0.0
        )  # the numbers count from there: so they are small however long a stream is
        self._numbers = b"".join(map(self._packed, words))

    def _packed(self, word: Word) -> bytes:
        start, end = (round((at - self._begin) * 1000) for at in (word.start, word.end))
        return _ROW.pack(start, end, round(100 * min(1.0, max(0.0, word.probability))))

    def _word(self, place: int) -> Word:
        start, end, share = _ROW.unpack_from(self._numbers, place * _ROW.size)
        return Word(
            self.texts[place],
            round(self._begin + start / 1000, 3),
            round(self._begin + end / 1000, 3),
            share / 100,
        )

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, place: int) -> Word: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Word, ...]: ...
    def __getitem__(self, place: int | slice) -> Word | tuple[Word, ...]:
        chosen = range(len(self.texts))[place]
        return self._word(chosen) if isinstance(chosen, int) else tuple(map(self._word, chosen))

    def __iter__(self) -> Iterator[Word]:
        return map(self._word, range(len(self.texts)))

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, Sequence) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))
