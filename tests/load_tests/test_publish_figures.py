"""Latencies are counted from the sender's clock, coverage from its words, capacity from whole steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from load_tests.publish_figures import (
    PACKET,
    Heard,
    Machine,
    Published,
    Step,
    bottleneck,
    capacity,
    changes,
    covered,
    scored,
    snapshots,
    step,
)
from streamsvc.evaluation.score_captions import Reference

SPOKEN = Reference(("one", "two", "three"), (1.0, 2.0, 3.0))
MACHINE = Machine({"event loop": 0.2, "worker hear": 0.5}, {"serve": 100.0}, {"publishers": 0.1})


def partial(at: float, text: str, stable: int) -> tuple[float, dict[str, Any]]:
    return at, {"type": "caption.partial", "text": text, "stable": stable}


def final(at: float, text: str, zero: float = 7.0) -> tuple[float, dict[str, Any]]:
    """A closed caption whose words are spoken a second after the other, "-" for none."""
    words = [
        {"text": word, "start": zero + end - 0.3, "end": zero + end}
        for end, word in enumerate(text.split(), 1)
        if word != "-"
    ]
    return at, {"type": "caption.final", "text": text, "words": words}


def published(*events: tuple[float, dict[str, Any]], began: float = 100.0) -> Published:
    return Published(began, events, {"audio": {"packets": 50, "nacks": 2, "late": 0.01}}, missing=3)


GOOD = published(
    partial(101.2, "One", 1),
    partial(102.3, "One two", 1),
    partial(102.5, "One two", 2),
    final(103.4, "One two three."),
)


def figures(*of: Published) -> Step:
    heard = Heard({"a": [7.01, 7.03], "b": [8.0]}, {"a": 7.0}, subscribers=2, seconds=10.0)
    return step(of, SPOKEN, (), heard, MACHINE)


def test_what_is_shown_is_what_was_closed_then_what_is_stable_then_the_rest() -> None:
    events = [final(101.0, "One."), partial(102.0, "two three", 1), (103.0, {"type": "sight.ready"})]
    assert snapshots(events, 100.0) == [(1.0, "One.", ""), (2.0, "One. two", "three")]


def test_a_word_is_as_late_as_its_event_behind_the_packet_that_ends_it() -> None:
    score = scored(GOOD, SPOKEN)
    assert score.commit == pytest.approx((0.2 + PACKET, 0.5 + PACKET, 0.4 + PACKET))
    assert score.first == pytest.approx((0.2 + PACKET, 0.3 + PACKET, 0.4 + PACKET))
    assert score.edits == 0


@pytest.mark.parametrize(
    ("written", "share"),
    [
        ("One two three", 1.0),
        ("One x three.", 1.0),
        ("One - three", 2 / 3),
        ("One - three four five", 2 / 3),
        ("x y z", 0.0),
        ("", 0.0),
    ],
)
def test_coverage_counts_the_words_at_whose_time_there_is_none(written: str, share: float) -> None:
    assert covered(published(final(103.5, written)), SPOKEN) == pytest.approx(share)


def test_a_word_left_out_by_a_recogniser_between_two_others_is_covered() -> None:
    close = Reference(SPOKEN.words, (1.0, 1.3, 1.6))
    words = [{"text": word, "start": end - 0.2, "end": end} for word, end in (("one", 4.0), ("three", 4.6))]
    caption = 103.0, {"type": "caption.final", "text": "one three", "words": words}
    assert covered(published(caption), close) == 1.0


def test_the_worst_publisher_is_told_beside_the_mean() -> None:
    found = figures(published(final(103.5, "One two three four five")), published(final(103.5, "One")))
    assert found.coverage == pytest.approx((1 + 1 / 3) / 2)
    assert found.worst_coverage == pytest.approx(1 / 3)
    assert figures(published()).coverage == 0.0


def test_a_new_picture_is_seen_by_its_own_keyframe_alone() -> None:
    def sampled(at: float) -> tuple[float, dict[str, Any]]:
        return at, {"type": "keyframe.sampled"}

    one = published(sampled(100.1), sampled(103.4), sampled(109.5))
    assert changes(one, (3.0, 9.0, 20.0)) == pytest.approx([0.4, 0.5])
    assert changes(one, (3.0, 3.2)) == pytest.approx([0.2]), "by then the picture was another"
    assert changes(published(sampled(108.5)), (3.0,)) == [], "too late to be of it"


def test_the_figures_of_a_step() -> None:
    found = figures(GOOD)
    assert (found.publishers, found.subscribers, found.packets, found.missing, found.nacks) == (
        1,
        2,
        50,
        3,
        2,
    )
    assert found.delivery == pytest.approx((0.02, 0.03), abs=0.001)
    assert (found.events_a_second, found.late) == (0.3, 0.01)
    assert found.emission == pytest.approx((0.2 + 0.3 + 0.4) / 3 + PACKET, abs=0.001)


def test_capacity_is_the_largest_step_in_time_and_whole() -> None:
    fine = replace(figures(GOOD), publishers=4)
    late = replace(fine, publishers=8, stable=(0.5, 1.5, 1.6))
    cut = replace(fine, publishers=16, coverage=0.98)
    refused = replace(fine, publishers=32, refused=1)
    silent = replace(fine, publishers=64, stable=(None, None, None))
    assert capacity([fine, late, cut, refused, silent], 1.4, 0.99) == 4
    assert capacity([late], 1.4, 0.99) == 0
    assert capacity([late], 1.6, 0.99) == 8


def test_what_is_used_most_is_named() -> None:
    busy = replace(figures(GOOD), machine=replace(MACHINE, cpu={"event loop": 0.9, "worker hear": 0.3}))
    assert bottleneck(busy, 2).startswith("the event loop's thread: 0.90")
    busy = replace(busy, machine=replace(MACHINE, cpu={"event loop": 0.4, "worker hear": 1.5}))
    assert bottleneck(busy, 2) == "all cores: 1.90 of 2"
