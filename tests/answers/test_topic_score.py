"""A passage is on topic by its plain cosine, or by the centred one with what the cross-encoder says."""

from __future__ import annotations

import numpy as np
import pytest

from streamsvc.answers.topic_score import BACKGROUND, ON_TOPIC, PLAIN, centred, score


@pytest.mark.parametrize(
    ("plain", "cosine", "logit", "expected"),
    [
        (0.8, 0.6, None, 0.6),
        (0.8, 0.6, -11.5, 0.6),  # unrelated: nothing is taken off
        (0.8, 0.6, -6.0, 0.675),  # 0.6 + 0.015 * 5
        (PLAIN, 0.3, None, ON_TOPIC),
        (PLAIN, 0.7, 0.0, 0.865),  # 0.7 + 0.015 * 11
    ],
)
def test_either_way_may_find_it(plain: float, cosine: float, logit: float | None, expected: float) -> None:
    assert score(plain, cosine, logit) == pytest.approx(expected)


def test_half_of_what_all_texts_share_is_taken_off() -> None:
    vectors = np.array([[0.6, 0.8], [0.8, 0.6]], np.float32)
    mean = np.array([0.7, 0.7], np.float32)
    # [0.25, 0.45] and [0.45, 0.25], of the length 0.5148
    assert centred(vectors, mean) == pytest.approx(np.array([[0.4856, 0.8742], [0.8742, 0.4856]]), abs=1e-3)
    plain, taken_off = vectors[0] @ vectors[1], np.prod(centred(vectors, mean), axis=0).sum()
    assert taken_off < plain


def test_the_background_is_about_nothing_twice() -> None:
    assert len(set(BACKGROUND)) == len(BACKGROUND) > 10
