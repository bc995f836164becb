"""Times, counts and lists are told as people tell them."""

from __future__ import annotations

import pytest

from streamsvc.answers.tools.wording import (
    duration,
    fitting,
    lasted,
    listed,
    moment,
    nth,
    repeated,
    sentence,
    words_in,
)
from streamsvc.core.types import Evidence

SPANS = [Evidence(start, start + 5.0, "sight", "cat") for start in (1.0, 75.0, 130.0)]


def test_words_are_counted_as_people_count_them() -> None:
    assert words_in("At 1:15: the stone-cutter's tools") == 7
    assert words_in("") == 0


def test_a_sentence_has_a_capital_letter_and_one_full_stop() -> None:
    assert sentence("at 0:01") == "At 0:01."
    assert sentence('at 0:01: "Stop!"') == 'At 0:01: "Stop!"'
    assert sentence("No.") == "No."


def test_lists_are_cut_where_the_words_end() -> None:
    assert listed(["a cat"]) == "a cat"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert fitting(["one two", "three four", "five"], 4) == ("one two, three four", 2)
    assert fitting(["one two three"], 2) == ("one two three", 1)
    assert fitting([], 2) == ("", 0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 seconds"),
        (1, "1 second"),
        (60, "1 minute"),
        (125.4, "2 minutes 5 seconds"),
        (3780, "1 hour 3 minutes"),
        (3723, "1 hour 2 minutes"),
    ],
)
def test_durations_are_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_findings_of_time_cite_what_they_tell() -> None:
    assert moment(SPANS[1]).text == "At 1:15."
    assert moment(SPANS[1]).evidence == (SPANS[1],)
    assert lasted(SPANS[1], 200.0).text == "5 seconds, from 1:15 to 1:20."
    assert lasted(SPANS[1], 80.0).text == "5 seconds so far, since 1:15."
    assert repeated(SPANS).text == "3 times, at 0:01, 1:15, 2:10."
    assert repeated(SPANS[:1]).text == "Once, at 0:01."
    assert repeated(SPANS).values == ("3",)


def test_an_ordinal_chooses_from_the_front_or_the_back() -> None:
    assert [nth(SPANS, ordinal) for ordinal in (None, 2, -1, 4, -4)] == [
        SPANS[0],
        SPANS[1],
        SPANS[2],
        None,
        None,
    ]
