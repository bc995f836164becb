"""Codec keyframes alone are decoded where they come each second; nothing is lost where they fail to come."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from streamsvc.core.types import EncodedFrame, MediaTrack
from streamsvc.vision.intra import ANSWER_SECONDS, KEPT_FRAMES, RETRY_SECONDS, IntraFilter

PEER = MediaTrack("video", "vp8", keyframes_on_request=True)
SOURCE = MediaTrack("video", "h264")
FPS = 20
SMALL, LARGE = 1000, 100_000  # bytes


def frame(number: int, keyframe: bool, size: int = SMALL) -> EncodedFrame:
    at = number / FPS
    return EncodedFrame("s", "main", at, 50.0 + at, "video", bytes(size), "vp8", keyframe)


@dataclass
class Run:
    """What became of a sender's frames: `decoded` as (at, keyframe, alone), `asked` as seconds."""

    decoded: list[tuple[float, bool, bool]] = field(default_factory=list)
    asked: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)

    @property
    def keyframes(self) -> list[float]:
        return [at for at, keyframe, _ in self.decoded if keyframe]


def sent(
    tested: IntraFilter,
    seconds: float,
    *,
    track: MediaTrack = PEER,
    every: float | None = None,
    answers: Callable[[float], int | None] = lambda at: SMALL,
    surges: Iterable[int] = (),
    start: float = 0.0,
) -> Run:
    """Send frames. every: seconds between keyframes that come by themselves; answers: size of the keyframe
    that follows a request at a second, a tenth of a second later; None: none comes."""
    run, wanted = Run(), dict[int, int]()
    first = round(start * FPS)
    for number in range(first, first + round(seconds * FPS)):
        own = number % round(every * FPS) == 0 if every else number == 0
        size = SMALL if own else wanted.pop(number, 0)
        keyframe = bool(size)
        inter = SMALL * 20 if number in set(surges) else SMALL // 5
        chosen, request = tested.take((track, frame(number, keyframe, size or inter)))
        run.decoded += [(one.at, one.keyframe, one.alone) for _, one in chosen]
        run.gaps += [one.at for _, one in chosen if one.gap]
        if request:
            run.asked.append(number / FPS)
            if (size_of := answers(number / FPS)) is not None:
                wanted[number + FPS // 10] = size_of
    return run


def test_a_sender_that_answers_is_asked_once_a_second_and_keyframes_alone_are_decoded() -> None:
    tested = IntraFilter()
    run = sent(tested, 10.0)
    assert all(keyframe and alone for _, keyframe, alone in run.decoded)
    assert 9 <= len(run.decoded) <= 10
    assert run.asked[:2] == [1.0, 2.1]
    assert tested.left_out == 200 - len(run.decoded)


def test_where_two_requests_bring_no_keyframe_every_frame_since_the_last_one_is_decoded() -> None:
    run = sent(IntraFilter(), 8.0, answers=lambda at: None)
    assert run.asked == [1.0, 2.0]
    given_up = run.asked[0] + ANSWER_SECONDS
    assert [at for at, *_ in run.decoded] == [0.0, *(number / FPS for number in range(160))], (
        "the keyframe twice"
    )
    assert run.decoded[0] == (0.0, True, True)
    assert run.decoded[1] == (0.0, True, False)
    assert run.gaps == []
    assert given_up == 3.0


def test_all_frames_are_decoded_until_a_sender_is_asked_again_and_answers() -> None:
    run = sent(IntraFilter(), 45.0, answers=lambda at: SMALL if at > 10.0 else None)
    first = next(at for at in run.asked if at > 5.0)
    assert first == 3.0 + RETRY_SECONDS
    assert all(alone for at, _, alone in run.decoded if at > first + 0.15)


def test_keyframes_that_cost_too_much_are_requested_no_more() -> None:
    run = sent(IntraFilter(kbps=300.0), 20.0, answers=lambda at: LARGE)
    assert len(run.asked) == 3
    assert [alone for at, _, alone in run.decoded if at > run.asked[-1]] == [False] * len(
        [at for at, *_ in run.decoded if at > run.asked[-1]]
    )
    assert run.decoded[-1][0] == 399 / FPS


def test_keyframes_that_come_each_second_by_themselves_cost_nothing() -> None:
    tested = IntraFilter(kbps=1.0)  # as soon as one is requested, it is too dear
    run = sent(tested, 20.0, every=1.0)
    assert tested.alone
    assert run.asked == []


def test_after_dear_keyframes_the_sender_s_own_are_decoded_alone() -> None:
    tested = IntraFilter(kbps=1.0)
    dear = sent(tested, 10.0)
    assert dear.decoded[-1] == (9.95, False, False)
    run = sent(tested, 10.0, every=1.0, start=10.0)
    assert run.asked == []
    assert run.decoded[-1] == (19.0, True, True)


@pytest.mark.parametrize(("every", "alone"), [(0.5, True), (1.0, True), (2.0, False), (10.0, False)])
def test_of_a_source_keyframes_alone_are_decoded_where_they_come_each_second(
    every: float, alone: bool
) -> None:
    tested = IntraFilter()
    run = sent(tested, 20.0, track=SOURCE, every=every)
    assert tested.alone is alone
    assert run.asked == []
    if not alone:
        assert len(run.decoded) == 400


def test_no_picture_of_a_source_is_lost_where_its_keyframes_become_rare() -> None:
    tested = IntraFilter()
    sent(tested, 5.0, track=SOURCE, every=1.0)
    assert tested.alone
    last = tested.take((SOURCE, frame(100, True)))[0]
    assert [one.alone for _, one in last] == [True]
    found: list[EncodedFrame] = []
    for number in range(101, 160):
        found += [one for _, one in tested.take((SOURCE, frame(number, False)))[0]]
    assert [one.at for one in found] == [number / FPS for number in range(100, 160)]


def test_of_a_source_that_waits_for_us_all_frames_are_decoded() -> None:
    assert len(sent(IntraFilter(lossless=True), 20.0, track=SOURCE, every=0.5).decoded) == 400
    assert len(sent(IntraFilter("keyframes", lossless=True), 20.0, track=SOURCE, every=2.0).decoded) == 10


def test_the_setting_decides_where_it_is_set() -> None:
    full = sent(IntraFilter("full"), 10.0)
    assert (len(full.decoded), full.asked) == (200, [])
    dear = sent(IntraFilter("keyframes", kbps=1.0), 10.0, answers=lambda at: LARGE)
    assert len(dear.decoded) <= 10
    rare = sent(IntraFilter("keyframes"), 60.0, answers=lambda at: None)
    assert rare.keyframes == [0.0]
    assert len(rare.decoded) == 1


def test_a_change_of_the_picture_is_asked_for_at_once() -> None:
    run = sent(IntraFilter(), 3.0, surges=[12])
    assert run.asked[0] == 0.6
    assert sent(IntraFilter(), 3.0, surges=[2]).asked[0] == 1.0, "right after a keyframe there is none"


def test_a_request_for_a_question_counts_as_one() -> None:
    tested = IntraFilter()
    sent(tested, 0.5)
    tested.note_request()
    assert not any(tested.take((PEER, frame(number, False)))[1] for number in range(10, 29))
    assert tested.take((PEER, frame(30, False)))[1]


def test_what_was_left_out_is_bounded_and_a_decoder_then_waits_for_a_keyframe() -> None:
    tested, fast = IntraFilter(), KEPT_FRAMES * 2
    chosen: list[Any] = []
    for number in range(fast):
        one = replace(frame(0, number == 0), at=3.5 * number / fast)
        chosen += tested.take((PEER, one))[0]
        assert len(tested._kept) <= KEPT_FRAMES
    assert chosen[0][1].keyframe
    assert chosen[1][1].gap > 0
    assert not chosen[1][1].keyframe


def test_another_publisher_begins_anew() -> None:
    tested = IntraFilter()
    sent(tested, 8.0, answers=lambda at: None)
    assert not tested.alone
    tested.take((replace(PEER, codec="h264"), frame(160, True)))
    assert tested.alone


def test_stamps_that_begin_again_are_no_wait_for_a_keyframe() -> None:
    tested = IntraFilter()
    sent(tested, 10.0, track=SOURCE, every=1.0)
    assert tested.alone
    assert len(sent(tested, 2.0, track=SOURCE, every=1.0).decoded) == 40, "all, until it is known again"
