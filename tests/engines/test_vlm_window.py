"""The window grows at its end and drops items in blocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.vlm_window import (
    Entry,
    Limits,
    Picture,
    Piece,
    Window,
    append_entry,
    common_prefix,
    positions,
    token_count,
)

LIMITS = Limits(tokens=100, visual=40)


def line(n: int, size: int = 5) -> Entry:
    return Entry(n, Piece((n,) * size))


def frame(n: int, size: int = 10) -> Entry:
    return Entry(
        n,
        Piece((n,) * 3),
        Piece((n,) * size, Picture(f"{n}", np.zeros((size - 2, 4))), 1),
    )


def filled(*entries: Entry, limits: Limits = LIMITS) -> Window:
    window = Window()
    for entry in entries:
        window = append_entry(window, entry, limits)
    return window


def test_the_window_only_grows_at_its_end_until_it_is_full() -> None:
    window = Window()
    for n in range(20):
        more = append_entry(window, line(n), LIMITS)
        assert more.pieces[:-1] == window.pieces
        window = more
    assert (window.tokens, window.drops) == (100, 0)


def test_a_full_window_loses_a_quarter_of_its_head_at_once_and_then_grows_again() -> None:
    window = filled(*map(line, range(21)))
    assert (window.tokens, window.drops, window.gone) == (75, 1, 6)
    assert [entry.number for entry in window.entries] == list(range(6, 21))
    after = filled(*map(line, range(26)))
    assert after.drops == 1
    assert after.pieces[:15] == window.pieces  # stable between drops


def test_old_keyframes_give_way_to_their_text_and_the_text_stays() -> None:
    window = filled(line(0), frame(1), frame(2), line(3), frame(4), frame(5), frame(6))
    assert [entry.visible for entry in window.entries] == [False, False, False, False, True, True, True]
    assert window.drops == 1
    assert (window.gone, window.visual) == (0, 30)
    assert window.entries[1].piece.ids == (1, 1, 1)


def test_a_keyframe_that_alone_is_over_the_limit_is_shown_as_text() -> None:
    assert filled(frame(1, 41)).visual == 0
    assert filled(frame(1, 40)).visual == 40


def test_the_newest_keyframe_stays_visual_at_a_drop_whatever_its_size() -> None:
    window = filled(frame(1), frame(2, 38))
    assert [entry.visible for entry in window.entries] == [False, True]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(3, 45)), max_size=60),
    st.integers(20, 120),
    st.integers(0, 60),
)
def test_no_window_is_ever_over_its_limits_or_without_its_newest(
    kinds: list[tuple[bool, int]], tokens: int, visual: int
) -> None:
    window, limits = Window(), Limits(tokens, visual)
    for n, (seen, size) in enumerate(kinds):
        entry = frame(n, size) if seen else line(n, min(size, tokens))
        window = append_entry(window, entry, limits)
        assert window.tokens <= tokens
        assert window.visual <= visual
        assert window.entries[-1].number == entry.number
        fitting = [
            one
            for one in window.entries
            if one.visual is not None and len(one.visual.ids) <= min(tokens, visual)
        ]
        assert [one.visible for one in fitting] == sorted(
            one.visible for one in fitting
        )  # what is seen is the newest


def test_the_common_start_ends_inside_text_but_never_inside_a_picture() -> None:
    tokens = np.zeros((2, 4))
    first = (Piece((1, 2)), Piece((3, 9, 9, 4), Picture("a", tokens), 1), Piece((5, 6, 7)))
    assert common_prefix(first, first) == token_count(first) == 9
    assert common_prefix(first, (*first[:2], Piece((5, 6, 8)))) == 8
    other = replace(first[1], picture=Picture("b", tokens))
    assert common_prefix(first, (first[0], other, first[2])) == 2
    assert common_prefix(first, (first[0], Piece((3, 9, 9, 4)))) == 2
    assert common_prefix(first, ()) == 0


def test_positions_of_a_picture_are_rows_and_columns_and_text_continues_after_the_larger() -> None:
    rows, after = positions(
        [Piece((1, 1)), Piece((1, *[0] * 6, 1), Picture("a", np.zeros((6, 4)), 2, 3), 1), Piece((1,))]
    )
    assert rows.tolist() == [
        [0, 1, 2, 3, 3, 3, 3, 3, 3, 6, 7],
        [0, 1, 2, 3, 3, 3, 4, 4, 4, 6, 7],
        [0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7],
    ]
    assert after == 8


@pytest.mark.parametrize("count", [0, 3])
def test_positions_of_text_and_of_pictures_without_a_grid_just_count(count: int) -> None:
    rows, after = positions([Piece((1,) * count), Piece((1, 0, 0), Picture("a", np.zeros((2, 4))), 1)])
    assert rows.tolist() == [list(range(count + 3))] * 3
    assert after == count + 3
