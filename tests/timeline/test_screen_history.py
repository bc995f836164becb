"""A screen lasts until another is read; titled ones are kept longer."""

from __future__ import annotations

from dataclasses import replace

from streamsvc.timeline.screen_history import ScreenHistory
from tests.builders.units import screen


def history(limit: int = 100, tracks: int = 100) -> ScreenHistory:
    return ScreenHistory(limit, tracks)


def test_a_screen_lasts_until_another_is_seen_and_one_read_twice_is_one() -> None:
    shown = history()
    shown.read(screen(1.0, "First wish", "A rich man"))
    shown.read(screen(5.0, "First wish", "A rich man."))
    shown.read(screen(9.0, "Palace", seen=8.0))
    assert [(s.title, s.start, s.end) for s in shown.screens] == [
        ("First wish", 1.0, 8.0),
        ("Palace", 8.0, None),
    ]


def test_a_screen_that_returns_is_a_new_interval() -> None:
    shown = history()
    for at, title in ((1.0, "Alpha text"), (4.0, "Something else"), (7.0, "Alpha text")):
        shown.read(screen(at, title))
    assert len(shown.screens) == 3


def test_a_blank_picture_ends_the_screen_and_its_tracks() -> None:
    shown = history()
    shown.read(screen(1.0, "First wish"))
    shown.clear(4.0)
    assert shown.screens[0].end == 4.0
    assert shown.tracks.shown == ()
    assert shown.at(3.0) == shown.screens[0]
    assert shown.at(4.0) is None


def test_over_the_limit_screens_with_a_title_are_kept_longer() -> None:
    shown = history(limit=8)
    for n in range(20):
        text = screen(float(n), "abcdefghijklmnopqrst"[n] * 12)
        shown.read(replace(text, title=f"Slide {n}" if n % 4 == 0 else None))
    titles = [screen_.title for screen_ in shown.screens]
    assert len(titles) == 8
    assert titles[:3] == ["Slide 4", "Slide 8", "Slide 12"]
    assert shown.dropped == 12
