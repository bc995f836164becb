"""Closed captions of a session, in less than half the memory of `Cue`s. Pure."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from typing import overload

from streamsvc.core.compact_words import ROW, CompactWords
from streamsvc.core.types import Cue

_HEAD = struct.Struct("dddHH")  # at, arrived, what the words' times count from, number of words, kind


class CaptionHistory(Sequence[Cue]):
    """The newest closed captions in the order in which they closed. Each access builds a new `Cue`.

    Words are as precise as in `CompactWords`; stages are not kept.

    Args:
        limit: captions kept; the oldest goes first.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rows: list[bytes] = []
        self._kinds: list[tuple[str, str, str]] = []  # session, track and language: few, and of many cues

    def append(self, cue: Cue) -> None:
        """Keep a closed caption."""
        words = cue.words if isinstance(cue.words, CompactWords) else CompactWords(cue.words)
        kind = (cue.session, cue.track, cue.language)
        if kind not in self._kinds:
            self._kinds.append(kind)
        begin, rows = words.packed()
        head = _HEAD.pack(cue.at, cue.arrived, begin, len(words), self._kinds.index(kind))
        text = "" if cue.text == " ".join(words.texts) else cue.text
        texts = json.dumps([text, *words.texts], ensure_ascii=False, separators=(",", ":"))
        self._rows.append(head + rows + texts.encode("utf-8", "surrogatepass"))
        del self._rows[: -self._limit]

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Cue: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Cue, ...]: ...
    def __getitem__(self, index: int | slice) -> Cue | tuple[Cue, ...]:
        if isinstance(index, slice):
            return tuple(map(self._cue, self._rows[index]))
        return self._cue(self._rows[index])

    def __iter__(self) -> Iterator[Cue]:
        return map(self._cue, self._rows)

    def _cue(self, row: bytes) -> Cue:
        at, arrived, begin, count, kind = _HEAD.unpack_from(row)
        texts_at = _HEAD.size + count * ROW.size
        text, *texts = json.loads(row[texts_at:].decode("utf-8", "surrogatepass"))
        words = CompactWords.unpacked(texts, begin, row[_HEAD.size : texts_at])
        session, track, language = self._kinds[kind]
        return Cue(session, track, at, arrived, text or " ".join(texts), words, count, True, language)
