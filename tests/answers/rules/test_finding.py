"""What a rule found: quotations, times and counts in words."""

from __future__ import annotations

from streamsvc.answers.rules.finding import Finding, counted_words, quote_of, refusal, timestamp


def test_quotes_are_cut_at_a_number_of_words() -> None:
    assert quote_of("one two three four", 2) == "one two …"
    assert quote_of("one two three four", 2, tail=True) == "… three four"


def test_times_are_told_as_a_clock() -> None:
    assert (timestamp(64.9), timestamp(3723.0)) == ("1:04", "1:02:03")


def test_a_count_is_in_words_where_english_has_one() -> None:
    assert [counted_words(count) for count in (1, 2, 3)] == ["Once", "Twice", "3 times"]


def test_a_finding_joins_its_clauses_and_a_refusal_has_no_evidence() -> None:
    assert Finding(("It says", " so."), ()).text == "It says so."
    assert (refusal().supported, refusal().evidence) == (False, ())
