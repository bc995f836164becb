"""An hour in one session: what is played and asked, what is recorded, and when the figures are wrong."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from load_tests.long_session import (
    ALIGNED,
    LECTURE,
    OTHERS,
    SERVING,
    STORY,
    Result,
    Weight,
    anonymous,
    growth,
    padded,
    program,
    questions,
    slope,
    stored,
    table,
    verdict,
    weighed,
)
from streamsvc.core.malloc import trim


def rows(*verdicts: str) -> list[dict[str, Any]]:
    return [
        {"id": f"q{number}", "verdict": each, "text": "", "seconds": 0.1}
        for number, each in enumerate(verdicts)
    ]


def weights(grown: float, disk: float, model: float = 0.0, minutes: int = 60) -> list[Weight]:
    """Memory that settles for ten minutes, then grows by so many MB an hour in this process and in a model's; and so many MB of disk."""
    late = [max(0, minute - 10) / 60 for minute in range(minutes + 1)]
    return [
        Weight(
            float(minute),
            100.0 + 10 * min(minute, 10) + grown * more,
            {"asr": 300.0 + model * more},
            disk * minute / 60,
        )
        for minute, more in enumerate(late)
    ]


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


def test_the_slope_is_that_of_the_minutes_after_the_beginning() -> None:
    points = [(weight.minute, weight.serving) for weight in weights(1.5, 0.0)]
    assert slope(points, 10.0) == pytest.approx(1.5)
    assert (slope(points, 0.0) or 0.0) > 10
    assert slope(points[:11], 9.0) is None


def test_a_process_that_began_later_is_weighed_from_then_on() -> None:
    late = [Weight(float(minute), 100.0, {"llm": 200.0} if minute > 20 else {}, 0.0) for minute in range(60)]
    assert growth(Result(weights=late), "llm", 10.0) == pytest.approx(0.0)
    assert growth(Result(weights=late), SERVING, 10.0) == pytest.approx(0.0)


def test_this_process_and_others_are_weighed_apart(tmp_path: Path) -> None:
    (tmp_path / "session.db").write_bytes(b"x" * 2_000_000)
    weight = weighed(1.0, {"asr": os.getpid(), "not begun": None}, tmp_path)
    assert weight.models == {"asr": pytest.approx(weight.serving, rel=0.2)}
    assert weight.disk == 2.0


def test_what_a_process_takes_for_itself_is_weighed_and_what_it_maps_is_not(tmp_path: Path) -> None:
    (tmp_path / "library").write_bytes(b"x" * 50_000_000)
    trim()  # else what is taken may come from what other tests have freed
    before = anonymous(os.getpid())
    mapped = np.memmap(tmp_path / "library", mode="r")
    assert mapped.sum() == 50_000_000 * ord("x")
    assert anonymous(os.getpid()) < before + 10
    taken = np.ones(50_000_000, np.uint8)
    assert anonymous(os.getpid()) > before + 40
    assert len(taken) == len(mapped)


def test_an_hour_within_its_limits_has_nothing_wrong_and_is_told_in_a_table() -> None:
    result = Result(
        60.0,
        weights(1.5, 40.0, 0.5),
        rows("right", "right", "declined"),
        rows("right", "right", "declined"),
        {"sentences": 700},
        known=20.0,
    )
    assert verdict(result) == []
    told = table(result)
    assert "2 of 3" in told
    assert told.count("+1.5 MB an hour") == 2
    assert told.count("+0.5 MB an hour") == 2
    assert "40.0 MB an hour" in told
    assert "700 sentences" in told
    assert "then" not in told


def test_memory_and_disk_that_grow_and_answers_that_are_forgotten_are_wrong() -> None:
    early, late = rows("right", "right", "right"), rows("right", "wrong", "declined")
    wrong = verdict(Result(60.0, weights(9.0, 150.0, 7.0), early, late))
    assert len(wrong) == 4
    assert "3 questions were answered right when just heard, 1 at the end" in wrong[0]
    assert "the memory of serving grew by 9.0 MB" in wrong[1]
    assert "the memory of asr grew by 7.0 MB" in wrong[2]
    assert "150 MB" in wrong[3]
    assert "- q1: right, then wrong" in table(Result(60.0, weights(9.0, 150.0), early, late))


def test_what_is_stored_is_counted_in_all_folders_below(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "session.db").write_bytes(b"x" * 100)
    (tmp_path / "other").write_bytes(b"x" * 10)
    assert stored(tmp_path) == 110
