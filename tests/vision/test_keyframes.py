from __future__ import annotations

import io
import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from load_tests import screens
from load_tests.keyframes import delays, probes, watched
from streamsvc.core.config import Sample
from streamsvc.vision.frame_difference import Gray
from streamsvc.vision.keyframes import Change, Sampler, TokenBucket


def page(*words: tuple[int, int, int], ground: int = 240) -> Gray:
    """A page with dark words at (row, column, width)."""
    gray = np.full((90, 160), ground, np.uint8)
    for row, column, width in words:
        gray[row : row + 4, column : column + width : 2] = 30
    return gray


def reasons(pictures: list[Gray], fps: float = 5.0) -> list[tuple[float, str]]:
    sampler = Sampler(Sample())
    sampled = [
        (number / fps, sampler.probe(picture, number / fps)) for number, picture in enumerate(pictures)
    ]
    return [(at, change.reason) for at, change in sampled if change is not None]


def test_a_static_picture_is_sampled_once() -> None:
    noise = np.random.default_rng(1)
    pictures = [
        np.clip(page((10, 10, 80)) + noise.normal(0, 2, (90, 160)), 0, 255).astype(np.uint8)
        for _ in range(5 * 120)
    ]
    assert reasons(pictures) == [(0.0, "first")]


def test_a_new_slide_is_sampled_within_a_second() -> None:
    old, new = page((10, 10, 80), (40, 10, 120)), page((10, 20, 100), (40, 10, 60), (60, 10, 130))
    sampled = reasons([old] * 20 + [new] * 20)
    assert [reason for _, reason in sampled] == ["first", "scene"] or [reason for _, reason in sampled] == [
        "first",
        "text",
    ]
    assert sampled[1][0] - 4.0 <= 1.0


def test_a_new_line_of_text_is_sampled_once_it_stands_still() -> None:
    sampled = reasons([page((10, 10, 80))] * 10 + [page((10, 10, 80), (50, 10, 40))] * 20)
    assert [reason for _, reason in sampled] == ["first", "text"]
    assert 2.0 <= sampled[1][0] <= 2.81


def test_a_mouse_cursor_is_no_change() -> None:
    pictures = []
    for number in range(300):
        picture = page((10, 10, 80))
        place = number // 7  # it rests, then moves on
        row, column = 30 + place * 7 % 50, 10 + place * 23 % 140
        picture[row : row + 3, column : column + 2] = 0
        pictures.append(picture)
    assert reasons(pictures) == [(0.0, "first")]


def test_a_cut_to_black_and_back_is_sampled() -> None:
    photo = np.random.default_rng(2).integers(0, 255, (90, 160)).astype(np.uint8)
    sampled = reasons([photo] * 10 + [np.zeros((90, 160), np.uint8)] * 10 + [photo] * 10)
    assert [reason for _, reason in sampled] == ["first", "scene", "scene"]


def test_a_picture_that_never_stands_still_is_sampled_less_and_less() -> None:
    rng = np.random.default_rng(3)
    sampled = reasons([rng.integers(0, 255, (90, 160)).astype(np.uint8) for _ in range(5 * 60)])
    assert 5 < len(sampled) < 20


def test_the_changed_region_lies_around_the_change() -> None:
    sampler = Sampler(Sample())
    sampler.probe(page(), 0.0)
    change = None
    for number in range(1, 10):
        change = change or sampler.probe(page((50, 100, 40)), number / 5)
    assert change is not None
    x, y, w, h = change.changed
    assert x <= 100 / 160 and x + w >= 138 / 160 and y <= 50 / 90 and y + h >= 54 / 90
    assert w * h < 0.2


def test_a_new_size_of_the_picture_is_a_new_scene() -> None:
    assert reasons([page(), np.zeros((120, 160), np.uint8)]) == [(0.0, "first"), (0.2, "scene")]


@pytest.mark.parametrize(("condition", "kind"), [("noise 4", "digit"), ("inset", "bullet")])
def test_a_change_of_a_coded_page_is_sampled_within_a_second(condition: str, kind: str) -> None:
    changes, file = screens.clip(condition, (kind,), 5)
    run = watched(condition, changes, probes(io.BytesIO(file), Sample()))
    assert [change.kind for change, _ in delays(run)] == [kind]
    assert all(wait <= 1.0 for _, wait in delays(run))


@pytest.mark.parametrize("condition", ["noise 8", "exposure", "cursor", "caret"])
def test_a_disturbance_of_a_page_is_no_change(condition: str) -> None:
    script, _, chance = screens.script(condition, (), 5)
    disturb = screens.Disturbance(condition, script, chance)
    pictures = [disturb(screens.shown(script, n / 10), n / 10) for n in range(10 * 15)][::2]
    small = [
        np.asarray(Image.fromarray(picture).resize((320, 180), Image.Resampling.BOX)) for picture in pictures
    ]
    assert [reason for _, reason in reasons(small)] == ["first"]


# --- pictures after which nothing comes


def test_a_picture_that_stays_is_held_against_the_keyframe_until_nothing_is_pending() -> None:
    sampler = Sampler(Sample())

    def pending() -> bool:
        return sampler.pending

    assert sampler.hold(1.0) is None, "nothing has come yet"
    assert sampler.probe(page((10, 10, 80)), 0.0) is not None
    assert not pending()
    assert sampler.probe(page((10, 20, 100), (40, 10, 60), ground=80), 15.0) is None, "it may go on changing"
    assert pending()
    held = sampler.hold(15.6)
    assert held is not None and held.reason == "scene"
    assert not pending()
    assert sampler.hold(15.8) is None


def test_what_the_budget_refuses_stays_pending_and_is_sampled_later() -> None:
    sampler = Sampler(Sample(), TokenBucket(0.1, 1))
    sampler.probe(page(), 0.0)
    sampler.probe(page((10, 10, 80)), 1.0)
    assert sampler.hold(1.6) is None and sampler.pending
    assert sampler.hold(11.6) is not None
    sampler.probe(np.zeros((120, 160), np.uint8), 12.0)
    assert sampler.hold(12.6) is None and sampler.pending, "another size"
    assert sampler.hold(23.0) == Change("scene")


def test_noise_of_a_camera_is_no_change_of_a_picture_that_stays_either() -> None:
    signs = np.random.default_rng(4).choice(np.array([-1, 1], np.int16), (90, 160))
    size = np.full((90, 160), 3.9)
    size[20:60, 20:60] = 9.5  # a dark corner is noisier; within NOISE_FACTOR of the rest
    sampler = Sampler(Sample())
    sampler.probe(np.full((90, 160), 120, np.uint8), 0.0)
    noisy = np.clip(120 + signs * size, 0, 255).astype(np.uint8)
    assert sampler.probe(noisy, 5.0) is None
    assert not sampler.pending
    assert sampler.hold(5.6) is None


def test_slides_that_change_often_are_not_taken_for_a_video() -> None:
    rng = np.random.default_rng(5)
    sampler = Sampler(Sample())
    seen = 0
    for number in range(40):  # every slide has another line, so each change moves the same windows
        slide = page((10, 10, 80), *((row, 10, int(rng.integers(30, 140))) for row in range(20, 80, 10)))
        seen += sampler.probe(slide, number * 3.0) is not None
        seen += sampler.hold(number * 3.0 + 0.6) is not None
    assert seen == 40


def test_a_token_bucket_allows_a_burst_and_then_its_rate_and_counts_refusals() -> None:
    refused: list[int] = []
    bucket = TokenBucket(0.5, 2, lambda: refused.append(1))
    taken = []
    for second in range(8):
        if bucket.has_token(float(second)):
            bucket.take(float(second))
            taken.append(second)
    assert taken == [0, 1, 2, 4, 6]
    assert len(refused) == 3


def test_a_refused_change_is_sampled_once_the_rate_allows() -> None:
    refused: list[int] = []
    sampler = Sampler(Sample(), TokenBucket(0.2, 1, lambda: refused.append(1)))
    pages = [page((10, 10, 80))] * 5 + [page((10, 40, 100), (40, 10, 120), (60, 10, 130))] * 35
    sampled = [
        (n / 5, change.reason) for n, gray in enumerate(pages) if (change := sampler.probe(gray, n / 5))
    ]
    assert [reason for _, reason in sampled] == ["first", "scene"]
    assert sampled[1][0] == pytest.approx(5.0, abs=0.21)
    assert len(refused) >= 19  # each probe from the one after the change on


def test_the_first_picture_of_a_session_is_never_refused_and_others_share_the_rate() -> None:
    everyone = TokenBucket(0.1, 1)
    one, other = Sampler(Sample(), None, everyone), Sampler(Sample(), None, everyone)
    assert one.probe(page(), 0.0, 100.0) == other.probe(page(), 0.0, 100.0) == Change("first")
    new = page((10, 40, 100), (40, 10, 120), (60, 10, 130))
    later = [
        [sampler.probe(new, at, 100.0 + at) is not None for sampler in (one, other)]
        for at in (10.0, 12.0, 21.0, 23.0, 32.0)
    ]
    assert later == [[False, False], [False, False], [True, False], [False, False], [False, True]]


def test_a_restless_picture_is_sampled_more_often_during_speech() -> None:
    rng = np.random.default_rng(4)
    quiet, spoken = Sampler(Sample()), Sampler(Sample())
    spoken.speaking = True
    pictures = [rng.integers(0, 255, (90, 160)).astype(np.uint8) for _ in range(5 * 60)]
    counts = [
        sum(sampler.probe(gray, n / 5) is not None for n, gray in enumerate(pictures))
        for sampler in (quiet, spoken)
    ]
    assert counts[1] > 1.5 * counts[0]


def test_a_question_samples_any_change_at_once_and_nothing_unchanged() -> None:
    sampler = Sampler(Sample())
    sampler.probe(page((10, 10, 80)), 0.0)
    sampler.ask()
    assert sampler.probe(page((10, 10, 80)), 1.0) is None
    sampler.ask()
    change = sampler.probe(page((10, 10, 80), (50, 10, 40)), 1.2)
    assert change is not None
    assert change.reason == "question"


@pytest.mark.media
@pytest.mark.parametrize("name", ["lecture_stone_cutter", "scenes_photos"])
def test_every_change_of_a_real_recording_is_sampled_within_a_second(media: Path, name: str) -> None:
    truth = json.loads((media / "scenarios" / f"{name}.json").read_text())["intervals"]
    sampler, sampled, last = Sampler(Sample()), [], -1.0
    with av.open(str(media / "scenarios" / f"{name}.mp4")) as container:
        for picture in container.decode(video=0):
            if picture.time is not None and picture.time - last >= 0.195:
                last = picture.time
                gray = np.asarray(
                    picture.reformat(width=320, height=180, format="gray", interpolation="AREA").to_ndarray(),
                    np.uint8,
                )
                if sampler.probe(gray, last):
                    sampled.append(last)
    for interval in truth:
        assert any(interval["start"] <= at <= interval["start"] + 1.0 for at in sampled), interval["start"]
    still = [
        at
        for at in sampled
        if not any(
            i["start"] <= at <= i["start"] + 1 or (i["kind"] == "clip" and i["start"] <= at <= i["end"])
            for i in truth
        )
    ]
    assert len(still) <= 2


def test_a_question_is_pending_until_a_picture_has_been_compared() -> None:
    gray = np.full((90, 160), 100, np.uint8)
    sampler = Sampler(Sample())
    pending = []
    for asks, at in (
        (True, 0.0),
        (True, 0.1),
        (False, 2.0),
    ):  # the first picture; one so soon after it that none is compared; nothing new
        if asks:
            sampler.ask()
            assert sampler.question_pending
        sampled = sampler.probe(gray, at)
        assert (sampled is not None) == (at == 0.0)
        pending.append(sampler.question_pending)
    assert pending == [False, True, False]
