"""Holes in stamps stay, stamps that begin again go on behind what came before, and all tracks agree."""

from __future__ import annotations

from itertools import pairwise

import pytest

from streamsvc.core.types import Kind
from streamsvc.ingest.timestamps import HOLE, MediaClock, Stamps, Step, fits_in_a_file

FRAME = 0.02  # seconds


def run(media: MediaClock, kind: Kind, first: float, seconds: float, lasts: float = FRAME) -> list[float]:
    """Place consecutive packets whose stamps begin with `first`; their media seconds."""
    stamps = [first + lasts * number for number in range(round(seconds / lasts))]
    return [media.place(kind, Stamps(stamp, stamp, lasts)) for stamp in stamps]


def test_packets_without_stamps_follow_each_other() -> None:
    media = MediaClock(5.0)
    assert media.place("audio", Stamps(5.0, 5.0, FRAME)) == 0.0
    assert media.place("audio", Stamps(None, None, FRAME)) == pytest.approx(0.02)
    assert media.place("audio", Stamps(5.04, 5.04, FRAME)) == pytest.approx(0.04)


@pytest.mark.parametrize("size", [1.5, 12.0, 30.0, 1800.0])
def test_a_hole_of_any_length_stays_for_every_track(size: float) -> None:
    media = MediaClock(1.4)
    run(media, "audio", 1.4, 2.0)
    run(media, "video", 1.4, 2.0, 0.2)
    assert run(media, "audio", 3.4 + size, 1.0)[0] == pytest.approx(2.0 + size)
    assert run(media, "video", 3.4 + size, 1.0, 0.2)[0] == pytest.approx(2.0 + size)
    assert media.lines == 0


def test_stamps_that_begin_again_go_on_where_the_sound_ended() -> None:
    """The pictures of each part outlast its sound by a second, as `ffmpeg -shortest` leaves them."""
    media = MediaClock(0.0)
    begins = []
    for _ in range(3):
        audio = run(media, "audio", 0.0, 7.0)
        video = run(media, "video", 0.02, 8.0, 0.2)
        begins.append((round(audio[0], 2), round(video[0], 2)))
        assert all(after - before == pytest.approx(FRAME) for before, after in pairwise(audio))
    assert begins == [(0.0, 0.02), (7.0, 7.02), (14.0, 14.02)]
    assert media.lines == 2


def test_the_track_that_begins_again_second_joins_the_first() -> None:
    media = MediaClock(0.0)
    run(media, "video", 0.0, 5.0, 0.2)
    run(media, "audio", 0.0, 5.0)
    assert run(media, "video", 100.0, 1.0, 0.2)[0] == pytest.approx(100.0), "a hole, as far as a file tells"
    assert run(media, "video", 0.0, 1.0, 0.2)[0] == pytest.approx(101.0)
    assert run(media, "audio", 0.0, 1.0)[0] == pytest.approx(101.0)


def test_pictures_without_sound_for_long_are_not_overlaid_by_the_next_time_line() -> None:
    media = MediaClock(0.0)
    run(media, "audio", 0.0, 3.0)
    run(media, "video", 0.0, 20.0, 0.2)
    assert run(media, "audio", 0.0, 1.0)[0] == pytest.approx(20.0)


def test_a_33_bit_stamp_that_falls_back_is_no_hole_of_a_day() -> None:
    assert not fits_in_a_file(Step("audio", 95443.7, HOLE + 1.0))
    media = MediaClock(0.0)
    run(media, "audio", 80.0, 10.0)
    assert run(media, "audio", 95443.7, 1.0)[0] == pytest.approx(media.end - 1.0)
    assert media.lines == 1


def test_a_source_may_know_that_a_step_is_no_hole_and_where_the_next_part_begins() -> None:
    media = MediaClock(0.0, 0.0, lambda step: step.size < 5.0, lambda end: round(end))
    run(media, "audio", 0.0, 6.1)
    assert run(media, "audio", 9.1, 1.0)[0] == pytest.approx(9.1), "a hole"
    assert run(media, "audio", 500.0, 1.0)[0] == pytest.approx(10.0), "as the playlist says"


def test_a_track_that_first_comes_with_a_later_part_begins_there_where_tracks_are_interleaved() -> None:
    for interleaved, at in ((True, 12.0), (False, 0.0)):
        media = MediaClock(0.0, interleaved=interleaved)
        run(media, "video", 0.0, 12.0, 0.2)
        assert run(media, "audio", 0.0, 1.0)[0] == pytest.approx(at)
        assert run(media, "video", 0.0, 1.0, 0.2)[0] == pytest.approx(12.0)


def test_reordered_pictures_and_rounded_stamps_begin_no_time_line() -> None:
    media = MediaClock(0.0)
    for pts in (0.0, 0.6, 0.2, 0.4, 1.2, 0.8, 1.0):
        assert media.place("video", Stamps(pts, None, 0.2)) == pts
    for pts, dts in ((3.0, 2.0), (6.0, 2.2), (4.0, 2.4)):
        assert media.place("video", Stamps(pts, dts, 0.2)) == pts
    run(media, "audio", 0.0, 1.0)
    assert media.place("audio", Stamps(0.98, 0.98, FRAME)) == pytest.approx(0.98)
    assert media.lines == 0


def test_the_spacing_of_stamps_stands_for_missing_durations() -> None:
    """One stamp for each six packets, as of a transport stream whose sound is not known while probing."""
    media = MediaClock(0.0)
    places = []
    for number in range(24):
        stamp = 0.064 * number if number % 6 == 0 else None
        places.append(media.place("audio", Stamps(stamp, stamp, 0.0)))
    assert places[7:] == pytest.approx([0.064 * number for number in range(7, 24)])
    assert media.advance_due("audio", places[-1]) == pytest.approx(24 * 0.064)


def test_a_new_connection_joins_a_time_line_even_if_its_first_packet_has_no_stamp() -> None:
    """GStreamer's RTSP server sends the first picture without a pts."""
    media = MediaClock(0.0)
    run(media, "video", 0.0, 9.0, 0.04)
    assert media.continues("video", 9.1) and not media.continues("video", 99.0)
    assert not media.continues("audio", 9.1) and not media.continues("video", None)
    media.begin_line(20.0, 0.0)
    media.join_line("video", 20.0)
    assert media.place("video", Stamps(None, None, 0.0)) == 20.0
    assert media.place("video", Stamps(0.04, 0.04, 0.04)) == pytest.approx(20.04)


def test_audio_is_due_at_its_end_and_video_never_goes_back() -> None:
    media = MediaClock(0.0)
    assert media.advance_due("audio", run(media, "audio", 0.0, 1.0)[-1]) == pytest.approx(1.0)
    for at, due in ((0.5, 0.5), (0.3, 0.5)):
        assert media.advance_due("video", media.place("video", Stamps(at, None, 0.1))) == due
