"""The VLM context of a session.

Text and visual tokens in order of arrival, in a window that only grows at its end. Pure.

Between drops the prefix is stable, so its KV cache can be reused. When the window is full, a quarter of it is
dropped at once: first, keyframes are replaced by their text, oldest first; then the head is cut off. Dropping
a little at every step would change the prefix, and invalidate the KV cache, at every step.

Source of the positions: M-RoPE, P. Wang et al. 2024 (Qwen2-VL), section 2.1. Text advances all three rows; a
picture's tokens share one time and have their row and column; text continues after the larger of these.
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
        key: identifies the picture; equal keys mean equal tokens.
        tokens: floats of shape (n, width), with the language model's width.
        rows, columns: the tokens' grid, row by row; 0 for models without grid positions.
    """

    key: str
    tokens: Any = field(compare=False, repr=False)
    rows: int = 0
    columns: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of tokens: text, or text around the visual tokens of one picture.

    Args:
        ids: token ids, with the model's placeholder for each visual token.
        picture: the picture that replaces the placeholders.
        first: index of the first placeholder; the others follow it.
    """

    ids: Ids
    picture: Picture | None = None
    first: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One item of the session.

    Args:
        number: identifies the item.
        text: the item as text.
        visual: a keyframe as visual tokens; None for an item without a picture.
        visible: whether `visual` is in the window; otherwise `text` is.
    """

    number: int
    text: Piece
    visual: Piece | None = None
    visible: bool = False

    @property
    def piece(self) -> Piece:
        """The item as it is in the window."""
        return self.visual if self.visual is not None and self.visible else self.text

    @property
    def size(self) -> int:
        """Tokens of `piece`."""
        return len(self.piece.ids)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a window.

    `tokens`: of the whole window. `visual`: of pieces with visual tokens. `block`: the share that is dropped
    when a limit is exceeded.
    """

    tokens: int = 4096
    visual: int = 1024
    block: float = 0.25


@dataclass(frozen=True, slots=True)
class Window:
    """The items that the model is shown, oldest first.

    `drops`: number of drops. `gone`: number of dropped items.
    """

    entries: tuple[Entry, ...] = ()
    drops: int = 0
    gone: int = 0

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The token pieces in order."""
        return tuple(entry.piece for entry in self.entries)

    @property
    def tokens(self) -> int:
        """Tokens of the window."""
        return sum(entry.size for entry in self.entries)

    @property
    def visual(self) -> int:
        """Tokens of the pieces with visual tokens."""
        return sum(entry.size for entry in self.entries if entry.piece.picture)


def append_entry(window: Window, entry: Entry, limits: Limits) -> Window:
    """The window with one more entry at its end. If it exceeds the limits, a block is dropped.

    A keyframe that alone exceeds the limits is shown as text.
    """
    visible = entry.visual is not None and len(entry.visual.ids) <= min(limits.visual, limits.tokens)
    window = replace(window, entries=(*window.entries, replace(entry, visible=visible)))
    if window.tokens <= limits.tokens and window.visual <= limits.visual:
        return window
    return _drop_block(window, limits)


def _drop_block(window: Window, limits: Limits) -> Window:
    *older, newest = window.entries
    visual = newest.size if newest.piece.picture else 0
    entries = [newest]
    for entry in reversed(older):  # newest first; once the limit is reached, all older keyframes become text
        if entry.visible:
            visual += entry.size
        stays = entry.visible and visual <= limits.visual * (1 - limits.block)
        entries.append(replace(entry, visible=stays))
    tokens = newest.size
    count = 1  # entries that stay
    while count < len(entries) and tokens + entries[count].size <= limits.tokens * (1 - limits.block):
        tokens += entries[count].size
        count += 1
    return Window(
        entries=tuple(reversed(entries[:count])),
        drops=window.drops + 1,
        gone=window.gone + len(entries) - count,
    )


def token_count(pieces: Iterable[Piece]) -> int:
    """Number of tokens of concatenated pieces."""
    return sum(len(piece.ids) for piece in pieces)


def common_prefix(old: Sequence[Piece], new: Sequence[Piece]) -> int:
    """Length in tokens of the common prefix of two sequences. It never ends inside a picture."""
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
    """M-RoPE positions.

    Time, row and column of each token, shape (3, tokens), and the position of the next token.

    Pictures without a grid advance like text; then all three rows are equal.
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
