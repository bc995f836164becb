"""The measure of nearness: what counts as pointed, right and invented."""

from __future__ import annotations

from load_tests.nearness import OTHERS, SAME, Row, pairs, questions, thresholds, words


def test_no_question_is_asked_twice_and_only_paraphrases_look_for_a_line() -> None:
    asked = questions()
    assert len({text for _, text, _ in asked}) == len(asked)
    assert all(bool(wanted) == (kind == "paraphrase") for kind, _, wanted in asked)
    assert sum(kind == "near miss" for kind, _, _ in asked) >= 30


def test_the_table_counts_right_wrong_and_invented() -> None:
    text = "What wiped out the settlements?"
    rows = [
        Row("paraphrase", text, False, 0.61, True, ""),
        Row("paraphrase", text, False, 0.41, False, ""),
        Row("near miss", text, False, 0.52, False, ""),
        Row("stranger", text, True, 0.9, False, ""),
    ]
    result = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in thresholds(rows).splitlines()[2:]
    ]
    assert ["0.35", "1", "1", "1"] in result
    assert ["0.50", "1", "0", "1"] in result
    assert ["0.60", "1", "0", "0"] in result
    assert ["0.65", "0", "0", "0"] in result


def test_watches_that_would_fire_are_counted_for_both_kinds_of_pairs() -> None:
    assert {len(pairs(SAME)), len(pairs(OTHERS))} == {18}
    result = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in words([0.65, 0.85], [0.55]).splitlines()[2:]
    ]
    assert result[0] == ["0.50", "2 of 2", "1 of 1"]
    assert result[1] == ["0.60", "2 of 2", "0 of 1"]
    assert result[3] == ["0.80", "1 of 2", "0 of 1"]
