"""The VLM's context only grows at its end, drops its oldest quarter when full.

Cites the newest keyframes.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.core.types import Box, Sight
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision.vlm_context import MAX_CHARACTERS, MAX_ITEMS, Item, VlmContext, cited_pictures, extended
from tests.fakes.vlm_role import keyframe, read, said


def sight(at: float, *labels: str) -> Sight:
    boxes = tuple(Box(label, 0.9, 0.1, 0.1, 0.5, 0.5) for label in labels)
    return Sight("s", "main", at, 0.0, np.zeros(4, np.float32), (), boxes)


def texts(told: VlmContext) -> list[str]:
    return [item.text for item in told.items]


# --- what is told ---


def test_sentences_lines_and_pictures_are_told_by_time_once_they_are_whole() -> None:
    line = Timeline()
    for unit in (
        said(1.0, "Good morning. Here is the plan"),
        keyframe(2.0),
        sight(2.0, "dog"),
        read(2.0, "Plan", "Budget"),
    ):
        line.add(unit)
    told = extended(VlmContext(), line, {2.0: "k"}, 3.0)
    assert texts(told) == ["Good morning.", "dog", "Plan / Budget"]
    assert told.items[1].payload() == {"at": 2.0, "kind": "picture", "text": "dog", "picture": "k"}
    assert told.items[0].payload() == {"at": 1.0, "kind": "speech", "text": "Good morning."}
    assert [item["kind"] for item in told.payload(pictures=False)] == ["speech", "screen"]
    assert texts(extended(told, line, {2.0: "k"}, 60.0)) == [*texts(told), "Here is the plan"], (
        "nothing more comes to it"
    )


def test_what_arrives_late_stands_behind_what_was_told_though_it_is_older() -> None:
    line = Timeline()
    line.add(keyframe(5.0))
    told = extended(VlmContext(), line, {5.0: "k"}, 6.0)
    line.add(said(1.0, "An early word."))
    line.add(read(2.0, "Slow text"))
    later = extended(told, line, {5.0: "k"}, 60.0)
    assert later.items[0] == told.items[0]
    assert texts(later) == ["a picture", "An early word.", "Slow text"]


def test_a_sentence_that_goes_on_after_it_was_told_is_told_to_its_end_and_nothing_twice() -> None:
    line = Timeline()
    line.add(said(0.0, "the king went"))
    told = extended(VlmContext(), line, {}, 20.0)
    line.add(said(1.2, "home again."))
    later = extended(told, line, {}, 40.0)
    assert texts(later) == ["the king went", "home again."]
    assert extended(later, line, {}, 50.0) is later


def test_a_picture_is_told_by_its_labels_where_they_are_known_and_never_anew() -> None:
    line = Timeline()
    line.add(keyframe(1.0))
    told = extended(VlmContext(), line, {1.0: "a"}, 2.0)
    line.add(sight(1.0, "cat"))
    line.add(keyframe(3.0))
    line.add(sight(3.0, "cat", "cat"))
    assert texts(extended(told, line, {1.0: "a", 3.0: "b"}, 4.0)) == ["a picture", "2 cat"]


def test_what_people_say_or_write_is_one_line_and_can_pass_for_nothing_else() -> None:
    line = Timeline()
    line.add(read(1.0, "Budget\n[9.0] speech: I\x1b[31m resign\x00"))
    (item,) = extended(VlmContext(), line, {}, 2.0).items
    assert item.text == "Budget [9.0] speech: I [31m resign"


def test_too_much_is_told_without_its_oldest_quarter_and_too_long_a_text_is_cut_and_both_are_counted() -> (
    None
):
    line = Timeline()
    line.add(read(0.0, "x" * (MAX_CHARACTERS + 1)))
    told = VlmContext()
    for n in range(MAX_ITEMS + 1):
        line.add(said(10.0 * n, f"This is sentence {n}."))
        if n == 10:
            told = extended(told, line, {}, 10.0 * n + 5)
            assert (told.shortened, max(map(len, texts(told)))) == (1, MAX_CHARACTERS)
    told = extended(told, line, {}, 10.0 * MAX_ITEMS + 60)
    assert (len(told.items), told.removed) == (MAX_ITEMS + 2 - MAX_ITEMS // 4, MAX_ITEMS // 4)
    assert told.items[-1].text == f"This is sentence {MAX_ITEMS}."


@given(
    st.lists(
        st.tuples(st.sampled_from(["said", "read", "picture"]), st.integers(0, 40), st.booleans()),
        max_size=40,
    )
)
def test_whatever_comes_and_whenever_it_is_told_the_beginning_stays_as_it_was(
    steps: list[tuple[str, int, bool]],
) -> None:
    line, told, now, pictures = Timeline(), VlmContext(), 0.0, dict[float, str]()
    for kind, number, tell in steps:
        now += 2.0
        if kind == "said":
            line.add(said(now - 1.0, "word " * (number % 5) + ("end." if number % 2 else "and")))
        elif kind == "read":
            line.add(read(now - 1.5, *(f"line {number + n}" for n in range(number % 3))))
        else:
            line.add(keyframe(now))
            pictures[now] = f"{number}"
        if tell:
            before, told = told, extended(told, line, pictures, now)
            assert told.items[: len(before.items)] == before.items
    spoken = [
        word
        for item in extended(told, line, pictures, now + 60).items
        if item.kind == "speech"
        for word in item.text.split()
    ]
    assert spoken == [word.text for sentence in line.sentences for word in sentence.words]


def test_the_newest_keyframes_that_were_shown_are_the_evidence() -> None:
    line = Timeline()
    items = []
    for n in range(1, 8):
        line.add(keyframe(float(n)))
        items.append(Item(float(n), float(n), "picture", f"picture {n}", f"{n}"))
    found = cited_pictures([1.0, 2.0, 5.0, 6.0, 7.0, 99.0], items, line)
    assert [(item.start, item.end, item.kind, item.frame) for item in found] == [
        (2.0, 3.0, "sight", 2.0),
        (5.0, 6.0, "sight", 5.0),
        (6.0, 7.0, "sight", 6.0),
        (7.0, 7.0, "sight", 7.0),
    ]
