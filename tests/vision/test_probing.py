from __future__ import annotations

import asyncio

import numpy as np
import pytest

from streamsvc.core import clock
from streamsvc.core.config import Sample
from streamsvc.core.types import VideoFrame
from streamsvc.vision.frame_difference import Gray
from streamsvc.vision.keyframes import Sampler
from streamsvc.vision.probing import (
    LONGEST_SECONDS,
    OFTEN_SECONDS,
    RARELY_SECONDS,
    STANDS_SECONDS,
    Chosen,
    Prober,
    ProbeTimes,
)


def test_of_a_video_some_pictures_a_second_are_compared_and_none_twice() -> None:
    times = ProbeTimes(0.195)
    compared = []
    for number in range(30):
        at = number / 30
        due = times.due()
        assert due is None or due > at, "no picture stands for so long"
        if times.show(at):
            times.compared(at, settled=False)
            compared.append(round(at, 2))
    assert compared == [0.0, 0.2, 0.4, 0.6, 0.8]


def test_a_picture_that_stays_is_compared_again_until_it_is_known() -> None:
    times = ProbeTimes(0.2)
    assert times.due() is None
    assert times.show(5.0)
    times.compared(5.0, settled=False)
    assert times.due() == pytest.approx(5.0 + STANDS_SECONDS)
    times.compared(5.6, settled=False)
    assert times.due() == pytest.approx(5.8)
    times.compared(5.8, settled=True)
    assert times.due() is None


def test_a_picture_between_two_comparisons_is_compared_if_it_stays() -> None:
    times = ProbeTimes(0.2)
    times.show(0.0)
    times.compared(0.0, settled=True)
    assert not times.show(0.1)
    assert times.due() == pytest.approx(0.1 + STANDS_SECONDS)


def test_what_cannot_be_told_for_long_is_compared_rarely_and_then_given_up() -> None:
    times = ProbeTimes(0.2)
    times.show(0.0)
    times.compared(0.0, settled=False)
    compared = []
    while (due := times.due()) is not None:
        times.compared(due, settled=False)
        compared.append(due)
    assert len([at for at in compared if at < OFTEN_SECONDS]) == 17
    later = [at for at in compared if at > OFTEN_SECONDS + RARELY_SECONDS]
    assert np.diff(later) == pytest.approx(RARELY_SECONDS)
    assert LONGEST_SECONDS - RARELY_SECONDS < compared[-1] <= LONGEST_SECONDS


class Viewer:
    """A prober of pictures that are gray levels, and the keyframes that it chose."""

    def __init__(self) -> None:
        self.chosen: list[Chosen] = []
        self.compared = 0
        self.prober = Prober(Sampler(Sample()), 0.195, self._thumbnail, self._publish)

    async def _thumbnail(self, frame: VideoFrame) -> Gray:
        gray: Gray = frame.handle
        return gray

    async def _publish(self, chosen: Chosen | None) -> None:
        self.compared += 1
        if chosen is not None:
            self.chosen.append(chosen)

    @property
    def keyframes(self) -> list[tuple[float, str]]:
        return [(chosen.frame.at, chosen.change.reason) for chosen in self.chosen]


def picture(at: float, seed: int, arrived: float = 0.0) -> VideoFrame:
    blocks = np.random.default_rng(seed).integers(0, 255, (9, 16), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
    return VideoFrame("s", "main", at, arrived, blocks, 160, 90)


def test_a_slide_is_chosen_with_its_own_second_before_the_next_one_comes(virtual: asyncio.Runner) -> None:
    viewer = Viewer()

    async def main() -> None:
        await viewer.prober.show(picture(0.0, 0))
        await viewer.prober.show(picture(15.0, 1, arrived=100.0))
        assert viewer.keyframes == [(0.0, "first")]
        await viewer.prober.show(picture(30.0, 2))
        assert viewer.keyframes == [(0.0, "first"), (15.0, "scene")]
        assert viewer.chosen[1].seen == pytest.approx(100.0 + STANDS_SECONDS)
        before = viewer.compared
        await viewer.prober.pass_time(float("inf"))
        assert viewer.keyframes == [(0.0, "first"), (15.0, "scene"), (30.0, "scene")]
        assert viewer.compared == before + 1, "a known picture is not compared again"

    virtual.run(main())


def test_a_live_picture_stands_once_nothing_came_for_a_while(virtual: asyncio.Runner) -> None:
    viewer = Viewer()

    async def main() -> None:
        assert viewer.prober.due_at() is None
        await viewer.prober.stand()  # nothing is shown
        await viewer.prober.show(picture(0.0, 0, clock.now()))
        assert viewer.prober.due_at() is None, "it is known"
        await clock.sleep(9.0)
        await viewer.prober.show(picture(9.0, 1, clock.now()))
        assert viewer.prober.due_at() == pytest.approx(clock.now() + STANDS_SECONDS)
        assert not viewer.prober.stands()
        await clock.sleep(STANDS_SECONDS)
        assert viewer.prober.stands()
        await viewer.prober.stand()
        assert viewer.keyframes == [(0.0, "first"), (9.0, "scene")]
        assert viewer.prober.due_at() is None

    virtual.run(main())


def test_time_never_goes_back_where_a_picture_was_held_beyond_the_next_one(virtual: asyncio.Runner) -> None:
    viewer = Viewer()

    async def main() -> None:
        await viewer.prober.show(picture(0.0, 0, clock.now()))
        await clock.sleep(2.0)
        await viewer.prober.stand()  # at 2.0
        await viewer.prober.show(picture(1.9, 1, clock.now()))  # was late
        await clock.sleep(1.0)
        await viewer.prober.stand()
        assert viewer.keyframes == [(0.0, "first"), (1.9, "scene")]

    virtual.run(main())


def test_where_stamps_begin_again_pictures_are_compared_as_before(virtual: asyncio.Runner) -> None:
    viewer = Viewer()

    async def main() -> None:
        for second in range(4):
            await viewer.prober.show(picture(float(second), 0))
        await viewer.prober.show(picture(0.5, 1))
        await viewer.prober.show(picture(2.5, 2))
        await viewer.prober.pass_time(float("inf"))
        assert viewer.keyframes == [(0.0, "first"), (0.5, "scene"), (2.5, "scene")]

    virtual.run(main())
