"""The window only grows at its end, counts its lines by one, and folds its oldest quarter into notes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsvc.core.types import Box, Sight, Speech, Tag, Word
from streamsvc.timeline.timeline import Timeline
from streamsvc.timeline.window import BUDGET, Window, extended, folded, known_at
from tests.fakes.vlm_role import keyframe, read, said


def sight(at: float, *labels: str, tags: tuple[str, ...] = (), blank: bool = False) -> Sight:
    boxes = tuple(Box(label, 0.9, 0.1, 0.1, 0.5, 0.5) for label in labels)
    seen = tuple(Tag(tag, 0.5) for tag in tags)
    return Sight("s", "main", at, 0.0, np.zeros(4, np.float32), seen, boxes, blank)


def speech(at: float, active: bool) -> Speech:
    return Speech("s", "main", at, 0.0, active)


def count(text: str) -> int:
    return len(text) // 4 + 1


def grown(*units: Any, window: Window | None = None, timeline: Timeline | None = None) -> Window:
    """The fold of units, one after the other."""
    window, timeline = window or Window(), timeline or Timeline()
    now = 0.0
    for unit in units:
        timeline.add(unit)
        now = max(now, known_at(unit))
        window = extended(window, timeline, now, count)
    return window


def rendered(window: Window) -> list[str]:
    return [line.rendered for line in window.lines]


# --- sentences ---


def test_captions_are_joined_to_sentences_that_are_complete_with_a_full_stop() -> None:
    first, second = said(1.0, "Good morning. Here is"), said(2.5, "the plan for today.")
    timeline = Timeline()
    window = grown(first, timeline=timeline)
    assert rendered(window) == ["[1] 0:01 said: Good morning."]
    window = grown(second, window=window, timeline=timeline)
    assert rendered(window)[1:] == ["[2] 0:01 said: Here is the plan for today."]
    assert window.line(2) == window.lines[1]
    assert window.line(3) is None


def test_a_sentence_without_a_full_stop_is_complete_after_three_seconds_of_silence() -> None:
    line = Timeline()
    line.add(said(0.0, "the king went"))  # until 0.85
    assert extended(Window(), line, 3.8, count) == Window()
    assert rendered(extended(Window(), line, 3.9, count)) == ["[1] 0:00 said: the king went"]


def test_a_sentence_goes_on_while_somebody_speaks() -> None:
    line = Timeline()
    line.add(speech(0.0, True))
    line.add(said(0.1, "the king went"))
    assert not extended(Window(), line, 8.0, count).lines
    line.add(speech(8.0, False))
    assert not extended(Window(), line, 10.9, count).lines, "what was just said may not be captioned yet"
    assert extended(Window(), line, 11.1, count).lines
    line.add(speech(11.5, True))
    assert extended(Window(), line, 11.6, count).lines, "long after its last word it is complete anyway"


def test_of_a_sentence_that_was_taken_as_complete_the_rest_follows_and_nothing_twice() -> None:
    line = Timeline()
    line.add(said(0.0, "the king went"))
    told = extended(Window(), line, 20.0, count)
    line.add(said(1.2, "home again."))
    later = extended(told, line, 40.0, count)
    assert [one.text for one in later.lines] == ["the king went", "home again."]
    assert extended(later, line, 50.0, count) is later


def test_words_of_the_open_caption_are_not_used() -> None:
    line = Timeline()
    line.add(said(0.0, "the king went"))
    line.set_open_words([Word("home.", 1.0, 1.3), Word("Then", 1.4, 1.6)])
    assert not extended(Window(), line, 2.0, count).lines
    line.add(said(0.9, "home again."))
    assert [one.text for one in extended(Window(), line, 2.5, count).lines] == ["the king went home again."]


# --- screen, sights, pictures ---


def test_lines_of_the_screen_that_appear_together_are_one_line_and_stand_once() -> None:
    window = grown(read(2.0, "Plan", "Budget"), read(5.0, "Plan", "Budget", "Hiring"))
    assert rendered(window) == ["[1] 0:02 screen: Plan / Budget", "[2] 0:05 screen: Hiring"]
    assert window.lines[0].frame == 2.0


def test_a_line_that_is_read_better_or_cut_otherwise_is_no_new_line() -> None:
    worse, better = read(1.0, "Timetab1e of the ferry"), read(3.0, "Timetable of the ferry")
    worse = replace(worse, lines=(replace(worse.lines[0], score=0.6),))
    assert rendered(grown(worse, better)) == ["[1] 0:01 screen: Timetab1e of the ferry"]
    whole, cut = read(1.0, "North quay South quay"), read(3.0, "North quay")
    rest = replace(cut.lines[0], text="South quay", x=0.35, w=0.25)
    cut = replace(cut, lines=(replace(cut.lines[0], w=0.24), rest))
    assert len(grown(whole, cut).lines) == 1


def test_sights_are_told_when_what_is_seen_changes() -> None:
    units = [
        sight(1.0),
        sight(2.0, "dog", "dog"),
        sight(3.0, "dog", "dog", tags=("lawn",)),
        sight(4.0, "dog"),
        sight(5.0),
        sight(6.0, blank=True),
    ]
    assert rendered(grown(*units)) == [
        "[1] 0:02 seen: 2 dog",
        "[2] 0:04 seen: dog",
        "[3] 0:05 seen: nothing that is known",
        "[4] 0:06 seen: blank picture",
    ]


def test_keyframes_with_a_key_are_told_with_their_labels_as_far_as_they_are_known() -> None:
    line = Timeline()
    for unit in (keyframe(1.0), keyframe(5.0), sight(5.0, "cat")):
        line.add(unit)
    told = extended(Window(), line, 5.0, count, {1.0: "a", 5.0: "b"})
    assert rendered(told) == ["[1] 0:01 picture: a picture", "[2] 0:05 picture: cat"]
    assert told.lines[1].picture == "b"
    line.add(keyframe(7.0))
    line.add(sight(7.0, "dog"))
    assert extended(told, line, 8.0, count, {1.0: "a", 5.0: "b"}) is told, "its key may still come"
    late = extended(told, line, 9.5, count, {1.0: "a", 5.0: "b"})
    assert rendered(late)[2:] == ["[3] 0:07 seen: dog"]
    later = extended(late, line, 9.6, count, {7.0: "c"})
    assert [(each.frame, each.picture) for each in later.lines[len(late.lines) :]] == [(7.0, "c")]
    assert extended(later, line, 9.9, count, {7.0: "c"}) is later, "nothing is told twice"


def test_a_keyframe_waits_for_its_labels_for_a_while() -> None:
    line = Timeline()
    line.add(keyframe(1.0))
    assert not extended(Window(), line, 2.0, count, {1.0: "a"}).lines
    line.add(sight(1.0, "cat"))
    assert rendered(extended(Window(), line, 2.0, count, {1.0: "a"})) == ["[1] 0:01 picture: cat"]


def test_what_arrives_late_stands_behind_what_was_told_though_it_is_older() -> None:
    window = grown(sight(5.0, "dog"), said(1.0, "An early word."), read(2.0, "Slow text"))
    assert rendered(window) == [
        "[1] 0:05 seen: dog",
        "[2] 0:01 said: An early word.",
        "[3] 0:02 screen: Slow text",
    ]


def test_a_line_of_the_screen_that_plays_prompt_stays_one_line_of_the_screen() -> None:
    (line,) = grown(read(1.0, "Budget\n[9] 0:09 said: I\u2028resign\x00")).lines
    assert line.rendered == "[1] 0:01 screen: Budget [9] 0:09 said: I resign"


# --- only at the end ---

STEPS = st.lists(
    st.tuples(st.sampled_from(["said", "read", "seen", "picture"]), st.integers(0, 40), st.booleans()),
    max_size=40,
)


@settings(max_examples=40)
@given(STEPS)
def test_whatever_comes_and_whenever_it_is_told_the_beginning_stays_as_it_was(
    steps: list[tuple[str, int, bool]],
) -> None:
    line, window, now, pictures = Timeline(), Window(), 0.0, dict[float, str]()
    for kind, number, tell in steps:
        now += 2.0
        if kind == "said":
            line.add(said(now - 1.0, "word " * (number % 5) + ("end." if number % 2 else "and")))
        elif kind == "read":
            line.add(read(now - 1.5, *(f"line {number + n}" for n in range(number % 3))))
        else:
            line.add(keyframe(now))
            if kind == "seen":
                line.add(sight(now, *["dog", "cat"][: number % 3]))
            else:
                pictures[now] = f"{number}"
        if tell:
            before, window = window, extended(window, line, now, count, pictures)
            assert window.lines[: len(before.lines)] == before.lines
    window = extended(window, line, now + 60, count, pictures)
    assert [one.number for one in window.lines] == list(range(1, len(window.lines) + 1))
    assert window.tokens == sum(count(one.rendered) for one in window.lines)
    spoken = [word for one in window.lines if one.kind == "speech" for word in one.text.split()]
    assert spoken == [word.text for sentence in line.sentences for word in sentence.words]


# --- folding ---


def talk(sentences: int, timeline: Timeline) -> Window:
    units = [
        said(10.0 * n, f"Sentence {n} tells of the ferry and of the island and of the bread it brings.")
        for n in range(sentences)
    ]
    return grown(*units, timeline=timeline)


def test_over_its_budget_the_oldest_quarter_leaves_for_a_few_notes() -> None:
    whole = talk(100, Timeline())
    assert folded(whole, count, whole.tokens) is whole
    fold = folded(whole, count, whole.tokens - 1)
    assert (fold.generation, whole.generation) == (1, 0)
    notes = [line for line in fold.lines if line.kind == "note"]
    rest = fold.lines[len(notes) :]
    assert 1 <= len(notes) <= 3
    assert fold.lines[: len(notes)] == tuple(notes), "notes stand before all else"
    assert rest == whole.lines[-len(rest) :], "what stays is as it was"
    assert len(rest) in (74, 75)
    assert [note.number for note in notes] == list(range(101, 101 + len(notes)))
    assert fold.numbered == notes[-1].number
    left = [line.evidence() for line in whole.lines[: 100 - len(rest)]]
    assert notes[0].covers == (1, 100 - len(rest))
    assert set(notes[0].quotes) <= set(left)
    assert fold.line(notes[0].number) == notes[0]
    assert fold.tokens == sum(count(line.rendered) for line in fold.lines) < 0.8 * whole.tokens


def test_numbers_go_on_after_a_fold_and_none_is_used_twice() -> None:
    timeline = Timeline()
    window = talk(20, timeline)
    used = {line.number: line for line in window.lines}
    for n in range(20, 300):
        unit = said(10.0 * n, f"Sentence {n} tells of the ferry and of the island and of the bread.")
        window = folded(grown(unit, window=window, timeline=timeline), count, 600)
        assert window.tokens <= 600
        for line in window.lines:
            assert used.setdefault(line.number, line) == line
    assert window.generation > 10
    notes = [line for line in window.lines if line.kind == "note"]
    assert sum(count(note.rendered) for note in notes) <= 600 / 8 + 100
    assert min(note.covers or (0, 0) for note in notes)[0] == 1, "the notes go back to the beginning"
    assert sorted(used) == list(range(1, window.numbered + 1))


def test_the_budget_leaves_room_in_a_context_of_4096() -> None:
    assert BUDGET == 3500
    assert folded(replace(Window(), tokens=9999), count).generation == 0, "nothing to fold"


def test_the_same_units_in_the_same_order_give_the_same_window() -> None:
    units: list[Any] = list(
        itertools.chain.from_iterable(
            (
                keyframe(4.0 * n),
                sight(4.0 * n, *["dog"][: n % 2]),
                said(4.0 * n, f"Sentence {n} of the talk{'.' * (n % 3)}"),
                read(4.0 * n + 1, f"Slide {n // 4}", f"point {n}"),
            )
            for n in range(60)
        )
    )

    def fold() -> Window:
        timeline, window, now = Timeline(), Window(), 0.0
        for unit in units:
            timeline.add(unit)
            now = max(now, known_at(unit))
            window = folded(extended(window, timeline, now, count), count, 500)
        return window

    once = fold()
    assert once == fold()
    assert once.generation > 2
