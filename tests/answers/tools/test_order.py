"""What came first is told by the times of pictures, slides and words."""

from __future__ import annotations

import pytest

from streamsvc.answers.route import Arguments
from streamsvc.answers.tools.order import came, order, steps_of
from streamsvc.timeline.timeline import Timeline
from tests.builders.timelines import ferries

NOW = 50.0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            Arguments(text="lighthouse", other="shipyard"),
            '"shipyard" came first, at 0:09; "lighthouse" at 0:30.',
        ),
        (Arguments(label="cat", other="car"), "The cat came first, at 0:00; the car at 0:12."),
        (
            Arguments(label="car", other="cat", form="yes/no"),
            "No, the cat came first, at 0:00; the car at 0:12.",
        ),
        (
            Arguments(label="car", other="cat", form="yes/no", ordinal=-1),
            "Yes, the cat came first, at 0:00; the car at 0:12.",
        ),
        (Arguments(text="castle", other="shipyard"), None),
        (Arguments(label="cat", other="cat"), None),
        (Arguments(label="cat"), "After it: a car, at 0:12."),
        (Arguments(label="car", ordinal=-1), "A cat, at 0:00."),
        (Arguments(text="Prices and tickets", ordinal=1), '"Questions", at 0:44.'),
        (
            Arguments(text="Prices and tickets"),
            'Before it: "The night ferry", at 0:20; after it: "Questions", at 0:44.',
        ),
        (Arguments(text="castle"), None),
        (Arguments(), '"Prices and tickets", at 0:34; after it: "Questions", at 0:44.'),
        (Arguments(ordinal=1), "A cat, at 0:00."),
        (Arguments(ordinal=3), '"The night ferry", at 0:20.'),
        (Arguments(ordinal=9), None),
        (
            Arguments(form="list"),
            'A cat (0:00), a car (0:12), "The night ferry" (0:20), "Prices and tickets" (0:34), '
            '"Questions" (0:44).',
        ),
    ],
)
def test_order_is_told_by_the_times_of_what_was_shown_and_said(
    arguments: Arguments, text: str | None
) -> None:
    found = order(ferries(), arguments, NOW)
    assert (found and found.text) == text
    assert found is None or len(found.evidence) >= 1


def test_the_values_of_a_list_are_the_names_alone() -> None:
    found = order(ferries(), Arguments(form="list"), NOW)
    assert found is not None
    assert found.values == ("a cat", "a car", "The night ferry", "Prices and tickets", "Questions")


def test_what_was_first_seen_or_said_or_written_has_its_time() -> None:
    for name, start in (("car", 12.0), ("tickets", 34.0), ("mayor", 24.4)):
        found = came(ferries(), name)
        assert found is not None
        assert found[1].start == pytest.approx(start)
    assert came(ferries(), "castle") is None


def test_nothing_shown_has_no_order() -> None:
    assert steps_of(Timeline()) == []
    assert order(Timeline(), Arguments(), NOW) is None
    assert [name for name, _ in steps_of(ferries(), 13.0)] == ["a cat", "a car"]
