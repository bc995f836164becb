"""A session of an hour: what is played and what is asked."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from load_tests.long_session import ALIGNED, LECTURE, OTHERS, STORY, padded, program, questions


def test_the_talk_and_the_story_come_once_and_all_others_each_time_round_in_another_order() -> None:
    heard = [part.heard for part in itertools.islice(program(), 2 + 4 * len(OTHERS))]
    assert heard[:2] == [LECTURE, STORY]
    rounds = [tuple(heard[first : first + len(OTHERS)]) for first in range(2, len(heard), len(OTHERS))]
    assert all(sorted(each) == sorted(OTHERS) for each in rounds)
    assert len(set(rounds)) > 1
    assert heard == [
        part.heard for part in itertools.islice(program(), len(heard))
    ]  # and the same ones in the next run


def test_a_recording_is_followed_by_a_pause_and_ends_where_packets_and_windows_of_speech_do() -> None:
    spoken = np.full(16_000, 0.5, np.float32)
    made = np.frombuffer(padded(spoken), "<i2")
    assert len(made) % ALIGNED == 0
    assert len(made) >= 16_000 + 3 * 16_000
    assert set(made[:16_000]) == {16383}
    assert not made[16_000:].any()


@pytest.mark.media
def test_at_least_ten_questions_are_about_minute_three_and_each_can_be_graded(media: Path) -> None:
    asked = questions(media, 160.0)
    third = [question for question in asked if 120 <= question["evidence_s"][0] < 240]
    assert len(third) >= 10
    assert len({question["id"] for question in asked}) == len(asked)
    for question in asked:
        assert question["type"] in ("open", "yes/no", "when")
        assert 0 <= question["evidence_s"][0] < question["evidence_s"][1] < 300
        assert question["type"] != "open" or question["keywords"]
