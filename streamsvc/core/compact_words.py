"""Memory-saving storage of the words of a session. Pure."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Sequence
from typing import overload

from streamsvc.core.types import Stages, Word

NO_STAGES: Stages = ()  # shared by all stored units: their stages have been published

ROW = struct.Struct("iiB")  # of a word: start and end in ms, probability in hundredths


class CompactWords(Sequence[Word]):
    """An immutable sequence of words in a fifth of a tuple's memory.

    Times are kept to the millisecond, probabilities to two decimals. Each access builds a new `Word`.

    Args:
        words: in order of time.
    """

    __slots__ = ("_begin", "_rows", "texts")

    def __init__(self, words: Sequence[Word]) -> None:
        self.texts = tuple(sys.intern(word.text) for word in words)
        # Times are stored relative to the first word, so they fit 32 bits however long the stream is.
        self._begin = round(words[0].start, 3) if words else 0.0
        self._rows = b"".join(map(self._pack, words))

    def _pack(self, word: Word) -> bytes:
        # Rounded first, so that words of an event, which are rounded too, are stored as the same words.
        start, end = (round((round(at, 3) - self._begin) * 1000) for at in (word.start, word.end))
        return ROW.pack(start, end, round(100 * min(1.0, max(0.0, word.probability))))

    def packed(self) -> tuple[float, bytes]:
        """Times and probabilities, for `unpacked`."""
        return self._begin, self._rows

    @classmethod
    def unpacked(cls, texts: Sequence[str], begin: float, rows: bytes) -> CompactWords:
        """Words again, of their texts and what `packed` returned."""
        words = cls.__new__(cls)
        words.texts, words._begin, words._rows = tuple(texts), begin, rows
        return words

    def _unpack(self, index: int) -> Word:
        start, end, percent = ROW.unpack_from(self._rows, index * ROW.size)
        return Word(
            self.texts[index],
            round(self._begin + start / 1000, 3),
            round(self._begin + end / 1000, 3),
            percent / 100,
        )

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, index: int) -> Word: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Word, ...]: ...
    def __getitem__(self, index: int | slice) -> Word | tuple[Word, ...]:
        chosen = range(len(self.texts))[index]
        return self._unpack(chosen) if isinstance(chosen, int) else tuple(map(self._unpack, chosen))

    def __iter__(self) -> Iterator[Word]:
        return map(self._unpack, range(len(self.texts)))

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, Sequence) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))
