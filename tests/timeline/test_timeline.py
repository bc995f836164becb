"""The time line keeps everything seen and heard, bounded; the window never exceeds its budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.core.types import Box, Cue, Keyframe, ScreenText, Sight, TextLine, VideoFrame, Word
from streamsvc.timeline.timeline import Sentence, Timeline, estimate, sentences
from tests.builders import pages

NO_EMBEDDING = np.zeros(2, np.float32)


def cue(text: str, start: float, final: bool = True, stable: int | None = None) -> Cue:
    words = tuple(Word(word, start + n * 0.4, start + n * 0.4 + 0.3) for n, word in enumerate(text.split()))
    return Cue("s", "main", start, 0.0, text, words, len(words) if stable is None else stable, final)


def sight(at: float, label: str = "cat", blank: bool = False) -> Sight:
    return Sight(
        "s", "main", at, 0.0, NO_EMBEDDING, (), () if blank else (Box(label, 0.9, 0, 0, 1, 1),), blank
    )


def screen(at: float, *lines: str, seen: float | None = None) -> ScreenText:
    told = tuple(TextLine(line, 0.9, 0, 0, 1, 0.1) for line in lines)
    return ScreenText("s", "main", at, 0.0, lines[0] if lines else None, told, at if seen is None else seen)


def test_captions_are_joined_to_sentences_across_their_borders() -> None:
    line = Timeline()
    line.add(cue("He went to the", 0.0))
    line.add(cue("old mill. Then he", 2.0))
    assert [s.text for s in line.said] == ["He went to the old mill.", "Then he"]


def test_only_the_stable_words_of_the_open_caption_count_and_are_not_said_twice() -> None:
    line = Timeline()
    line.add(cue("One two three", 0.0, final=False, stable=2))
    assert line.said[0].text == "One two"
    line.add(cue("One two three.", 0.0))
    assert [s.text for s in line.said] == ["One two three."]


def test_a_pause_ends_a_sentence_and_an_abbreviation_does_not() -> None:
    words = [Word("Mr.", 0, 0.3), Word("Smith", 0.4, 0.8), Word("left", 0.9, 1.2), Word("Later", 5.0, 5.3)]
    assert [s.text for s in sentences(words)] == ["Mr. Smith left", "Later"]


def test_a_picture_is_shown_until_the_next_one() -> None:
    line = Timeline()
    picture = VideoFrame("s", "main", 2.0, 0.0, None, 4, 4)
    line.add(sight(0.0))
    line.add(Keyframe("s", "main", 2.0, 0.0, picture, "scene"))
    line.add(sight(2.0, "dog"))
    assert [(item.start, item.end) for item in line.shown] == [(0.0, 2.0), (2.0, None)]
    assert line.shown[1].reason == "scene"


def test_a_screen_lasts_until_another_is_seen_and_one_read_twice_is_one() -> None:
    line = Timeline()
    line.add(screen(1.0, "First wish", "A rich man"))
    line.add(screen(5.0, "First wish", "A rich man."))
    line.add(screen(9.0, "Palace", seen=8.0))
    assert [(s.title, s.start, s.end) for s in line.screens] == [
        ("First wish", 1.0, 8.0),
        ("Palace", 8.0, None),
    ]


def test_each_line_of_a_screen_has_its_own_time_and_an_edited_one_is_told_as_it_is_now() -> None:
    line = Timeline()
    line.add(
        pages.screen([("Weekly report of the team", 80, 50, 48), ("Tickets closed: 12", 80, 200, 30)], 1.0)
    )
    line.add(
        pages.screen([("Weekly report of the team", 80, 50, 48), ("Tickets closed: 13", 80, 200, 30)], 5.0)
    )
    line.add(sight(9.0, blank=True))
    (screen_,) = line.screens
    assert (screen_.lines, screen_.start, screen_.end) == (
        ("Weekly report of the team", "Tickets closed: 13"),
        1.0,
        9.0,
    )
    assert [(each.quote, each.start, each.end) for each in line.lines() if each.kind == "screen"] == [
        ("Weekly report of the team", 1.0, 9.0),
        ("Tickets closed: 12", 1.0, 5.0),
        ("Tickets closed: 13", 5.0, 9.0),
    ]


def test_lines_beyond_their_limit_are_forgotten_and_counted() -> None:
    line = Timeline(lines=3)
    for n in range(9):
        line.add(screen(float(n), f"Screen number {n}"))
    assert len(line.text.all()) == 4
    assert line.dropped["lines"] == 5


def test_a_screen_that_returns_is_a_new_interval() -> None:
    line = Timeline()
    for at, title in ((1.0, "Alpha text"), (4.0, "Something else"), (7.0, "Alpha text")):
        line.add(screen(at, title))
    assert len(line.screens) == 3


def test_a_blank_picture_ends_the_screen() -> None:
    line = Timeline()
    line.add(screen(1.0, "First wish"))
    line.add(sight(4.0, blank=True))
    assert line.screens[0].end == 4.0


def test_beyond_a_limit_the_oldest_goes_and_is_counted() -> None:
    line = Timeline(shown=3)
    for at in range(10):
        line.add(sight(float(at)))
    assert [item.start for item in line.shown] == [7.0, 8.0, 9.0]
    assert line.dropped["shown"] == 7


def test_old_pictures_that_show_the_same_one_after_the_other_are_one_before_any_goes() -> None:
    line = Timeline(shown=20)
    for at in range(200):
        line.add(sight(float(at), "cat" if at < 100 else "dog"))
    assert len(line.shown) <= 20
    assert (line.shown[0].start, line.dropped["shown"]) == (0.0, 0)
    cats = [item for item in line.shown if item.sight is not None and item.sight.boxes[0].label == "cat"]
    assert (cats[0].start, cats[-1].end) == (0.0, 100.0)
    assert all(earlier.end == later.start for earlier, later in pairwise(line.shown))
    changing = Timeline(shown=20)
    for at in range(200):
        changing.add(sight(float(at), ("cat", "dog")[at % 2]))
    assert len(changing.shown) == 20
    assert changing.dropped["shown"] == 180


def last_of(group: Sequence[Sentence], after: Sequence[Sentence]) -> Sentence:
    return group[-1]


def talk(minutes: int, **limits: int) -> Timeline:
    """Six sentences a minute."""
    line = Timeline(last_of, **limits)
    for n in range(6 * minutes):
        line.add(cue(f"Number {n} is told.", 10.0 * n))
    return line


def test_of_the_oldest_talk_one_sentence_stays_for_each_stretch_and_the_opening() -> None:
    line = talk(60, sentences=30)
    texts = [sentence.text for sentence in line.said]
    assert texts[0] == "Number 0 is told."
    assert texts[-30:] == [f"Number {n} is told." for n in range(330, 360)]
    assert 50 <= len(texts) - 30 <= 62
    starts = [sentence.start for sentence in line.said]
    assert starts == sorted(set(starts))
    assert all(later - earlier <= 61.0 for earlier, later in pairwise(starts))
    assert len(texts) + line.dropped["sentences"] == 360
    assert 3200.0 < line.thin < 3300.0
    first, *others = line.talks
    assert first[-1].start == 3240.0  # where pauses are not known, none is made up
    assert all(len(talk_) == 1 for talk_ in others)


def test_what_stands_for_old_talk_is_bounded_too_and_without_a_choice_nothing_stays() -> None:
    line = talk(60, sentences=30, folded=5)
    assert len(line.said) <= 30 + 5 + 7
    assert len(line.said) + line.dropped["sentences"] == 360
    bare = Timeline(sentences=3)
    for n in range(9):
        bare.add(cue(f"Number {n} is told.", 10.0 * n))
    assert [sentence.text for sentence in bare.said] == [f"Number {n} is told." for n in (5, 6, 7, 8)]
    assert bare.dropped["sentences"] == 5
    assert 40.0 < bare.thin < 50.0


def test_of_old_screens_those_with_a_title_stay_longer() -> None:
    line = Timeline(screens=8)
    for n in range(20):
        line.add(
            replace(
                screen(float(n), "abcdefghijklmnopqrst"[n] * 12), title=f"Slide {n}" if n % 4 == 0 else None
            )
        )
    kept = [screen_.title for screen_ in line.screens]
    assert len(kept) == 8
    assert kept[:3] == ["Slide 4", "Slide 8", "Slide 12"]
    assert line.dropped["screens"] == 12


def test_the_line_does_not_keep_what_no_question_needs_of_a_picture() -> None:
    line = Timeline()
    line.add(sight(1.0))
    kept = line.shown[0].sight
    assert kept is not None
    assert kept.boxes == sight(1.0).boxes
    assert kept.embedding.size == 0


def test_talk_is_cut_at_long_pauses() -> None:
    line = Timeline()
    line.add(cue("First talk.", 0.0))
    line.add(cue("Second talk.", 20.0))
    assert len(line.talks) == 2


TEXT = st.text(alphabet="abc .", min_size=1, max_size=60).filter(lambda t: bool(t.split()))


@given(
    st.lists(st.tuples(st.sampled_from(["cue", "sight", "screen"]), TEXT), max_size=25),
    st.integers(0, 500),
    st.floats(0, 120),
)
def test_the_window_keeps_its_budget_and_the_order_of_time(
    parts: list[tuple[str, str]], budget: int, now: float
) -> None:
    line = Timeline()
    for index, (kind, text) in enumerate(parts):
        at = index * 5.0
        line.add(cue(text, at) if kind == "cue" else sight(at) if kind == "sight" else screen(at, text))
    window = line.window(now, budget)
    assert sum(estimate(item.quote) for item in window.lines) == window.tokens <= budget
    assert [item.start for item in window.lines] == sorted(item.start for item in window.lines)
    assert all(item.start <= now and item.end <= now for item in window.lines)


def test_the_window_mixes_kinds_and_prefers_the_newest() -> None:
    line = Timeline()
    line.add(cue("An old line of talk.", 0.0))
    line.add(sight(5.0))
    line.add(screen(6.0, "A title"))
    assert [item.kind for item in line.window(10.0, 400).lines] == ["speech", "sight", "screen"]
    assert "old line" not in " ".join(item.quote for item in line.window(10.0, 25).lines)


def test_lines_are_what_was_said_read_and_seen_by_time_each_with_the_keyframe_shown_when_it_began() -> None:
    line = Timeline()
    line.add(cue("Too early.", 0.0))
    line.add(sight(2.0))
    line.add(sight(6.0, blank=True))
    line.add(screen(2.0, "Title"))
    line.add(cue("Later on.", 7.0))
    assert [(each.kind, each.quote, each.frame) for each in line.lines()] == [
        ("speech", "Too early.", None),
        ("screen", "Title", 2.0),
        ("sight", "cat", 2.0),
        ("sight", "blank picture", 6.0),
        ("speech", "Later on.", 6.0),
    ]


def test_pictures_are_those_with_a_vector_each_with_its_own_named_or_not() -> None:
    line = Timeline(shown=3)
    for at, label in ((0.0, "dog"), (2.0, "cat"), (4.0, "")):
        vector = np.full(2, at, np.float16)
        line.add(
            replace(sight(at, label), clip=vector)
            if label
            else replace(sight(at, blank=True), blank=False, clip=vector)
        )
    line.add(sight(6.0))  # no vector
    told = [
        (each.start, each.end, each.quote, each.frame, vector.tolist()) for each, vector in line.pictures()
    ]
    assert told == [(2.0, 4.0, "cat", 2.0, [2.0, 2.0]), (4.0, 6.0, "", 4.0, [4.0, 4.0])], (
        "the oldest has gone with its picture"
    )
