"""What a vision language model is shown of a session: text and visual tokens in order of arrival, in a window that only grows at its end.

Pure: no model, no clock. Between drops everything before the end stays as it is, so that its keys and values can be kept. When the window
is full, a quarter of it goes at once: keyframes give way to their text first, oldest first (few visual tokens, much text), then the
head falls away. Dropping a little at every step would change the prefix at every step, and nothing could be kept.

Sources: M-RoPE, P. Wang et al. 2024 (Qwen2-VL), section 2.1: text counts on in all three rows; a picture's tokens share one time, and take
their row and column; text goes on after the larger of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """The visual tokens of one keyframe.

    Args:
        key: names the picture; two of one key hold the same tokens.
        tokens: floats of shape (n, width), of the language model's width.
        rows, columns: the grid that the tokens fill, row by row; 0 where the model's positions know no grid.
    """

    key: str
    tokens: Any = field(compare=False, repr=False)
    rows: int = 0
    columns: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of tokens: text, or text around the visual tokens of one picture.

    Args:
        ids: token ids; where a visual token stands, the model's placeholder.
        picture: what the placeholders stand for.
        first: index of the first placeholder; they are in a row.
    """

    ids: Ids
    picture: Picture | None = None
    first: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing said or shown. It is final: what is told twice under one name is taken once.

    Args:
        name: of this thing.
        at: session seconds.
        text: as text.
        sight: a keyframe as visual tokens; None: text alone.
        seen: whether `sight` is shown.
    """

    name: str
    at: float
    text: Piece
    sight: Piece | None = None
    seen: bool = False

    @property
    def piece(self) -> Piece:
        """As it is shown."""
        return self.sight if self.sight is not None and self.seen else self.text

    @property
    def size(self) -> int:
        """Tokens as it is shown."""
        return len(self.piece.ids)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is shown.

    `tokens`: of the whole window. `visual`: of the pieces with visual tokens. `block`: the share that goes at once when one is reached.
    """

    tokens: int = 4096
    visual: int = 1024
    block: float = 0.25


@dataclass(frozen=True, slots=True)
class Window:
    """What is shown, oldest first.

    `dropped`: the newest `at` that fell off the head. `drops`: how often the head was dropped. `gone`: how many things fell off.
    """

    entries: tuple[Entry, ...] = ()
    dropped: float = float("-inf")
    drops: int = 0
    gone: int = 0

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """What the model is shown."""
        return tuple(entry.piece for entry in self.entries)

    @property
    def tokens(self) -> int:
        """Tokens of the window."""
        return sum(entry.size for entry in self.entries)

    @property
    def visual(self) -> int:
        """Tokens of pieces that hold visual ones."""
        return sum(entry.size for entry in self.entries if entry.piece.picture)

    def knows(self, name: str, at: float) -> bool:
        """Whether a thing of this name is in the window, or lies before what it still holds."""
        return at <= self.dropped or any(entry.name == name for entry in self.entries)


def grown(window: Window, entry: Entry, limits: Limits) -> Window:
    """The window with one more entry at its end; with its head dropped if that fills it.

    A keyframe that alone is over the limits is shown as text.
    """
    seen = entry.sight is not None and len(entry.sight.ids) <= min(limits.visual, limits.tokens)
    window = replace(window, entries=(*window.entries, replace(entry, seen=seen)))
    return (
        window
        if window.tokens <= limits.tokens and window.visual <= limits.visual
        else _dropped(window, limits)
    )


def _dropped(window: Window, limits: Limits) -> Window:
    *older, newest = window.entries
    visual, shown = newest.size if newest.piece.picture else 0, [newest]
    for entry in reversed(older):  # newest first; the first that must give way takes all older ones along
        if entry.seen:
            visual += entry.size
        stays = entry.seen and visual <= limits.visual * (1 - limits.block)
        shown.append(replace(entry, seen=stays))
    tokens, kept = newest.size, 1
    while kept < len(shown) and tokens + shown[kept].size <= limits.tokens * (1 - limits.block):
        tokens, kept = tokens + shown[kept].size, kept + 1
    lost = [entry.at for entry in shown[kept:]]
    return Window(
        tuple(reversed(shown[:kept])), max([window.dropped, *lost]), window.drops + 1, window.gone + len(lost)
    )


def length(pieces: Iterable[Piece]) -> int:
    """Tokens of pieces in a row."""
    return sum(len(piece.ids) for piece in pieces)


def common(old: Sequence[Piece], new: Sequence[Piece]) -> int:
    """How many tokens two sequences have in common at their start. Never ends inside a picture."""
    same = 0
    for left, right in zip(old, new, strict=False):
        if left == right:
            same += len(left.ids)
            continue
        if left.picture is None and right.picture is None:
            pairs = zip(left.ids, right.ids, strict=False)
            same += next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(left.ids), len(right.ids)))
        break
    return same


def positions(pieces: Iterable[Piece]) -> tuple[NDArray[np.int64], int]:
    """M-RoPE: time, row and column of each token, shape (3, tokens), and the position of what comes next.

    Pictures without a grid count on like text, and then all three rows are alike.
    """
    runs: list[NDArray[np.int64]] = [np.zeros((3, 0), np.int64)]
    at = 0

    def text(count: int) -> None:
        nonlocal at
        runs.append(np.tile(np.arange(at, at + count, dtype=np.int64), (3, 1)))
        at += count

    for piece in pieces:
        picture = piece.picture
        if picture is None or not picture.rows:
            text(len(piece.ids))
            continue
        count = picture.rows * picture.columns
        text(piece.first)
        row, column = np.divmod(np.arange(count, dtype=np.int64), picture.columns)
        runs.append(at + np.stack([np.zeros_like(row), row, column]))
        at += max(picture.rows, picture.columns)
        text(len(piece.ids) - piece.first - count)
    return np.concatenate(runs, axis=1), at
