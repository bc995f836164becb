"""How times and quotations are written, and that a finding does not change."""

from __future__ import annotations

import dataclasses

import pytest

from streamsvc.answers.finding import Finding, quoted, timestamp


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.0, "0:00"),
        (9.99, "0:09"),
        (75.2, "1:15"),
        (3599.9, "59:59"),
        (3600.0, "1:00:00"),
        (7325.0, "2:02:05"),
    ],
)
def test_a_time_is_written_in_whole_seconds_with_hours_only_where_there_are_any(
    seconds: float, written: str
) -> None:
    assert timestamp(seconds) == written


def test_a_quotation_keeps_the_first_words_and_says_that_it_was_cut() -> None:
    assert quoted("the ferry  leaves\nat noon", 5) == "the ferry leaves at noon"
    assert quoted("the ferry leaves at noon", 3) == "the ferry leaves …"


def test_a_quotation_holds_no_double_quotes_so_that_it_can_stand_in_them() -> None:
    assert quoted('he said "now" and “then”', 10) == "he said 'now' and 'then'"


def test_a_finding_does_not_change_and_has_no_values_unless_told() -> None:
    found = Finding("Two boats.", ())
    assert found.values == ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.text = "Three boats."  # type: ignore[misc]
