from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

from streamsvc.config import Sample
from streamsvc.sample import Gray, Sampler, Wants, wants
from streamsvc.types import EncodedFrame


def frame(keyframe: bool, kind: str = "video") -> EncodedFrame:
    return EncodedFrame("s", "main", 0.0, 0.0, kind, b"x", "vp8", keyframe)  # type: ignore[arg-type]


def page(*words: tuple[int, int, int], ground: int = 240) -> Gray:
    """A page with dark words at (row, column, width)."""
    gray = np.full((90, 160), ground, np.uint8)
    for row, column, width in words:
        gray[row : row + 4, column : column + width : 2] = 30
    return gray


def reasons(pictures: list[Gray], fps: float = 5.0) -> list[tuple[float, str]]:
    sampler = Sampler(Sample())
    found = [(number / fps, sampler.look(picture, number / fps)) for number, picture in enumerate(pictures)]
    return [(at, change.reason) for at, change in found if change is not None]


def test_the_tap_takes_only_keyframes_when_told_and_opens_at_a_keyframe() -> None:
    state = Wants()
    assert wants(frame(False), state)
    state.intra_only = True
    assert [wants(frame(key), state) for key in (False, True, False)] == [False, True, False]
    assert wants(frame(False, "audio"), state)
    state.intra_only = False
    assert [wants(frame(key), state) for key in (False, True, False)] == [False, True, True]


def test_a_static_picture_is_looked_at_once_for_ever() -> None:
    noise = np.random.default_rng(1)
    pictures = [np.clip(page((10, 10, 80)) + noise.normal(0, 2, (90, 160)), 0, 255).astype(np.uint8) for _ in range(5 * 120)]
    assert reasons(pictures) == [(0.0, "first")]


def test_a_new_slide_is_found_within_a_second() -> None:
    old, new = page((10, 10, 80), (40, 10, 120)), page((10, 20, 100), (40, 10, 60), (60, 10, 130))
    found = reasons([old] * 20 + [new] * 20)
    assert [reason for _, reason in found] == ["first", "scene"] or [reason for _, reason in found] == ["first", "text"]
    assert found[1][0] - 4.0 <= 1.0


def test_one_new_line_of_text_is_found_once_it_stands_still() -> None:
    found = reasons([page((10, 10, 80))] * 10 + [page((10, 10, 80), (50, 10, 40))] * 20)
    assert found == [(0.0, "first"), (pytest.approx(2.4, abs=0.41), "text")]


def test_a_mouse_cursor_is_no_change() -> None:
    pictures = []
    for number in range(300):
        picture = page((10, 10, 80))
        place = number // 7  # it rests, then moves on
        row, column = 30 + place * 7 % 50, 10 + place * 23 % 140
        picture[row : row + 3, column : column + 2] = 0
        pictures.append(picture)
    assert reasons(pictures) == [(0.0, "first")]


def test_a_cut_to_black_and_back_is_found() -> None:
    photo = np.random.default_rng(2).integers(0, 255, (90, 160)).astype(np.uint8)
    found = reasons([photo] * 10 + [np.zeros((90, 160), np.uint8)] * 10 + [photo] * 10)
    assert [reason for _, reason in found] == ["first", "scene", "scene"]


def test_a_picture_that_never_stands_still_is_looked_at_less_and_less() -> None:
    rng = np.random.default_rng(3)
    found = reasons([rng.integers(0, 255, (90, 160)).astype(np.uint8) for _ in range(5 * 60)])
    assert 5 < len(found) < 20


def test_the_changed_region_lies_around_the_change() -> None:
    sampler = Sampler(Sample())
    sampler.look(page(), 0.0)
    change = None
    for number in range(1, 10):
        change = change or sampler.look(page((50, 100, 40)), number / 5)
    assert change is not None
    x, y, w, h = change.changed
    assert x <= 100 / 160 and x + w >= 138 / 160 and y <= 50 / 90 and y + h >= 54 / 90
    assert w * h < 0.2


def test_a_new_size_of_the_picture_is_a_new_scene() -> None:
    assert reasons([page(), np.zeros((120, 160), np.uint8)]) == [(0.0, "first"), (0.2, "scene")]


@pytest.mark.media
@pytest.mark.parametrize("name", ["lecture_stone_cutter", "scenes_photos"])
def test_every_change_of_a_real_recording_is_found_within_a_second(media: Path, name: str) -> None:
    truth = json.loads((media / "scenarios" / f"{name}.json").read_text())["intervals"]
    sampler, found, last = Sampler(Sample()), [], -1.0
    with av.open(str(media / "scenarios" / f"{name}.mp4")) as container:
        for picture in container.decode(video=0):
            if picture.time is not None and picture.time - last >= 0.195:
                last = picture.time
                gray = np.asarray(picture.reformat(width=160, height=90, format="gray", interpolation="AREA").to_ndarray(), np.uint8)
                if sampler.look(gray, last):
                    found.append(last)
    for interval in truth:
        assert any(interval["start"] <= at <= interval["start"] + 1.0 for at in found), interval["start"]
    still = [
        at
        for at in found
        if not any(i["start"] <= at <= i["start"] + 1 or (i["kind"] == "clip" and i["start"] <= at <= i["end"]) for i in truth)
    ]
    assert len(still) <= 2
