"""PAUC with a penalty for needless alerts, by values computed by hand."""

from __future__ import annotations

import pytest

from load_tests.time_aware import Moment, Score, Told, area, cells, score

SPAN = Moment(10.0, 14.0)


@pytest.mark.parametrize(
    ("published", "expected"),
    [
        (10.0, 1.0),  # at once: 4 s * 2 / (4 s * 2)
        (12.0, 0.8125),  # counted at 11: (1 * 0.5 + 3 * 2) / 8
        (14.0, 0.625),  # counted at 12: (2 * 0.5 + 2 * 2) / 8
        (14.1, 0.25),  # after its end as of no alert: 4 * 0.5 / 8
        (None, 0.25),
        (9.0, 1.0),  # not better than at once
    ],
)
def test_a_moment_is_worth_less_the_later_it_is_told(published: float | None, expected: float) -> None:
    assert area(SPAN, published) == pytest.approx(expected)


def test_by_the_weight_of_the_paper_all_or_nothing_depends_on_the_time() -> None:
    assert area(SPAN, 14.0, timeliness=0.0) == pytest.approx(0.25)  # (4 * 0.5) / 8
    assert area(SPAN, 14.0, timeliness=1.0) == pytest.approx(1.0)


def test_the_example_of_the_paper_with_one_reply() -> None:
    """Figure 3, its span and its first right reply alone: (344 - 311) * 0.5 + (360 - 344) * 2 of 98."""
    assert area(Moment(311.0, 360.0), 344.0, timeliness=0.0) == pytest.approx(48.5 / 98)


def test_each_needless_alert_is_a_turn_of_score_nothing() -> None:
    of = score([SPAN], [Told(10.0, 10.0), Told(40.0, 40.0), Told(50.0, 50.0)])
    assert (of.told, of.needless) == (1, 2)
    assert of.pauc == pytest.approx(1.0)
    assert of.penalised == pytest.approx(1 / 3)
    assert of.precision == pytest.approx(1 / 3)


def test_to_be_silent_is_better_than_to_be_wrong() -> None:
    silent = score([SPAN], [])
    wrong = score([SPAN], [Told(30.0, 30.0)])
    assert silent.penalised == pytest.approx(0.25)
    assert wrong.penalised == pytest.approx(0.125)


def test_a_second_alert_of_the_same_moment_is_needless() -> None:
    of = score([SPAN], [Told(10.5, 11.0), Told(11.0, 12.0)])
    assert (of.told, of.needless) == (1, 1)
    assert of.delays == (1.0,)


def test_each_alert_is_of_one_moment_alone() -> None:
    moments = [Moment(10.0, 14.0), Moment(12.0, 16.0)]
    assert score(moments, [Told(12.5, 12.5)]).told == 1
    both = score(moments, [Told(12.5, 12.5), Told(13.0, 13.0)])
    assert (both.told, both.needless, both.delays) == (2, 0, (2.5, 1.0))


def test_an_alert_that_is_told_late_is_not_needless() -> None:
    of = score([SPAN], [Told(13.0, 20.0)])
    assert (of.told, of.needless) == (1, 0)
    assert of.pauc == pytest.approx(0.25)
    assert of.delays == (10.0,)


def test_times_of_words_may_be_a_little_early() -> None:
    assert score([SPAN], [Told(9.5, 9.5)], early=0.7).delays == (0.0,)
    assert score([SPAN], [Told(9.2, 9.2)], early=0.7).needless == 1


def test_a_silent_lure_changes_nothing_and_one_that_fires_is_needless() -> None:
    right = score([SPAN], [Told(10.0, 10.0)])
    assert (right + score([], [])).penalised == pytest.approx(1.0)
    assert (right + score([], [Told(1.0, 1.0)])).penalised == pytest.approx(0.5)


def test_sums_of_watches_are_shown() -> None:
    of = score([SPAN, Moment(20.0, 24.0)], [Told(12.0, 12.0), Told(30.0, 30.0)])
    # PAUC (0.8125 + 0.25) / 2, with the needless one / 3
    assert cells(of) == ("1 of 2", "1", "50.0", "50.0", "53.1", "35.4", "2.00 / 2.00")
    assert cells(Score()) == ("0 of 0", "0", "-", "-", "-", "-", "- / -")
