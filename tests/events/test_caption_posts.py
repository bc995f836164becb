"""Formats by the examples of the documents, and what is posted next after each answer. No clock, no network."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.events.caption_posts import (
    PROVIDERS,
    Answer,
    Desk,
    Line,
    Pace,
    State,
    plain,
    server_time,
    stamp,
    youtube_body,
    zoom_body,
)
from streamsvc.speech import captions

STARTED = datetime(2012, 12, 24, tzinfo=UTC)
PACE = Pace(first=0.5, most=8.0, slow=5.0, refusals=5, not_yet=3)


class Counted:
    """A desk, and the cues that it dropped."""

    def __init__(self, to: str) -> None:
        self.dropped = 0
        self.desk = Desk(PROVIDERS[to], PACE, STARTED, self.drop)

    def drop(self, cues: int) -> None:
        self.dropped += cues

    def told(self, status: int | None, body: str = "", sent: float = 0.0, came: float = 0.0) -> float:
        return self.desk.told(Answer(status, body, sent, came))


def line(spoken: float, text: str = "words") -> Line:
    return Line(spoken, text)


# --- formats ---


def test_the_example_of_youtubes_document_comes_out_byte_for_byte() -> None:
    said = [line(6.873, "I'M"), line(6.974, "SENDING"), line(7.03, "SEVERAL"), line(7.104, "CAPTIONS")]
    assert youtube_body(said, STARTED, 0.0) == (
        "2012-12-24T00:00:06.873\nI'M\n2012-12-24T00:00:06.974\nSENDING\n2012-12-24T00:00:07.030\nSEVERAL\n2012-12-24T00:00:07.104\nCAPTIONS\n"
    )


def test_youtubes_lines_are_parted_by_br_and_its_clock_is_followed() -> None:
    assert youtube_body([line(0.25, "one\ntwo")], STARTED, 0.5) == "2012-12-24T00:00:00.750\none<br>two\n"


def test_the_example_of_zooms_document_comes_out_byte_for_byte() -> None:
    assert zoom_body([line(0.0, "SEVERAL CAPTIONS.")]) == "SEVERAL CAPTIONS.\n"
    assert zoom_body([line(0.0, "one\ntwo")]) == "one\ntwo\n"


def test_a_time_stamp_is_utc_whatever_the_zone_of_the_start() -> None:
    assert (
        stamp(datetime(2026, 1, 1, 1, 30, tzinfo=timezone(timedelta(hours=2))), 1.0004)
        == "2025-12-31T23:30:01.000"
    )


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("a <b>bold</b> word", "a \u2039b\u203abold\u2039/b\u203a word"),
        ("&lt;br&gt; &#60; AT&T Q&A", "\uff06lt;br\uff06gt; \uff06#60; AT&T Q&A"),
        ("two\nlines\r\x00", "two lines"),
        (" \n ", ""),
        (
            "that were the best of times, that were the worst of times",
            "that were the best of times,\nthat were the worst of times",
        ),
    ],
)
def test_text_is_plain_and_cut_into_lines(said: str, shown: str) -> None:
    assert plain(said) == shown


@given(st.text(max_size=84))
def test_no_text_brings_a_tag_an_entity_or_a_line_of_its_own_into_a_post(text: str) -> None:
    body = youtube_body([line(0.0, shown)], STARTED, 0.0) if (shown := plain(text)) else ""
    assert body.count("\n") == (2 if shown else 0)
    assert "<" not in body.replace("<br>", "")
    assert all(len(part) <= captions.WIDTH for part in shown.split("\n"))


def test_the_clock_of_youtube_is_read_from_answers_and_nothing_else_is_taken_for_one() -> None:
    moment = datetime(2021, 11, 5, 12, 17, 21, 75000, tzinfo=UTC)
    assert server_time("2021-11-05T12:17:21.075\n") == moment
    assert (
        server_time(
            "2021-11-05T12:17:21.075\nTimestamp skew from local=2021-11-05T12:17:21.074 larger than 60 sec in /x"
        )
        == moment
    )
    for other in ("", "ok", "2021-11-05", "12", "<html>2021-11-05T12:17:21.075"):
        assert server_time(other) is None


# --- decisions ---


@pytest.mark.parametrize("to", ["youtube", "zoom"])
def test_a_new_post_has_the_next_number_and_a_retry_the_same(to: str) -> None:
    counted = Counted(to)
    desk, seqs = counted.desk, []
    for statuses in ((200,), (503, None, 500, 204), (200,)):
        desk.begin([line(0.0)])
        for status in statuses:
            assert desk.post(1.0)
            seqs.append(desk.seq)
            counted.told(status)
        assert not desk.post(1.0), "a post that was taken is not posted again"
    assert seqs == [1, 2, 2, 2, 2, 3]
    assert (desk.sent, desk.retried, counted.dropped, desk.state) == (3, 3, 0, State.READY)


def test_waits_double_from_the_first_up_to_the_most_and_begin_anew_with_the_next_post() -> None:
    counted = Counted("youtube")
    counted.desk.begin([line(0.0)])
    waits = []
    for _ in range(7):
        assert counted.desk.post(1.0)
        waits.append(counted.told(None))
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert counted.desk.state is State.RETRYING
    counted.told(200)
    counted.desk.begin([line(1.0)])
    assert counted.desk.post(1.0)
    assert counted.told(502) == 0.5


def test_a_busy_target_is_left_alone_for_the_slow_wait() -> None:
    counted = Counted("zoom")
    counted.desk.begin([line(0.0)])
    counted.desk.post(1.0)
    assert counted.told(429) == PACE.slow


def test_a_meeting_that_has_not_started_is_tried_slowly_without_end_and_with_newer_words() -> None:
    counted = Counted("zoom")
    desk = counted.desk
    for _ in range(20):
        desk.begin([line(0.0)])
        while desk.post(1.0):
            assert counted.told(400) == PACE.slow
            assert desk.state is State.WAITING
    assert counted.dropped == 20
    desk.begin([line(0.0)])
    assert desk.post(1.0)
    assert desk.seq == 1, "a number that was refused is not used up"
    counted.told(200)
    assert desk.state is State.READY


@pytest.mark.parametrize("status", [403, 405, 401, 404, 410, 302])
@pytest.mark.parametrize("to", ["youtube", "zoom"])
def test_a_refusal_is_retried_some_times_and_then_stops_the_push(to: str, status: int) -> None:
    counted = Counted(to)
    desk = counted.desk
    desk.begin([line(0.0)])
    waits = []
    while desk.post(1.0):
        waits.append(counted.told(status))
    assert waits == [0.5, 1.0, 2.0, 4.0, 0.0]
    assert desk.state is State.FAILED
    assert desk.error is not None
    assert desk.error[0] == f"status_{status}"
    desk.close()
    assert (counted.dropped, desk.state) == (1, State.FAILED)


def test_refusals_with_a_success_between_them_do_not_stop_the_push() -> None:
    counted = Counted("zoom")
    for _ in range(3):
        counted.desk.begin([line(0.0)])
        for status in (403, 403, 403, 403, 200):
            assert counted.desk.post(1.0)
            counted.told(status)
    assert counted.desk.sent == 3


def test_old_words_are_dropped_and_counted_each_provider_by_its_own_age() -> None:
    for to, oldest in (("zoom", 20.0), ("youtube", 55.0)):
        counted = Counted(to)
        counted.desk.begin([line(0.0), line(10.0)])
        assert len(counted.desk.post(oldest)) == 2
        counted.told(503)
        assert counted.desk.post(oldest + 1) == (line(10.0),)
        assert counted.dropped == 1
        assert not counted.desk.post(oldest + 11)
        assert counted.dropped == 2


def test_a_number_that_may_have_been_taken_is_not_used_for_other_words_and_a_refused_one_is() -> None:
    for status, seq in ((None, 2), (500, 2), (429, 1)):
        counted = Counted("youtube")
        counted.desk.begin([line(0.0)])
        counted.desk.post(1.0)
        counted.told(status)
        assert not counted.desk.post(100.0)
        assert counted.desk.seq == seq, status


def test_zoom_is_asked_for_its_last_number_at_the_start_and_after_a_refusal_and_youtube_never() -> None:
    zoom, youtube = Counted("zoom"), Counted("youtube")
    assert zoom.desk.asks
    zoom.desk.last_was(41)
    assert (zoom.desk.seq, zoom.desk.asks) == (42, False)
    for counted in (zoom, youtube):
        counted.desk.begin([line(0.0)])
        counted.desk.post(1.0)
        counted.told(503)
        assert not counted.desk.asks, "a retry has the same number"
        counted.told(403)
    assert (zoom.desk.asks, youtube.desk.asks) == (True, False)


def test_a_target_that_does_not_tell_its_last_number_changes_nothing() -> None:
    counted = Counted("zoom")
    counted.desk.last_was(None)
    assert (counted.desk.seq, counted.desk.asks) == (1, False)


def test_words_that_were_taken_although_the_answer_was_lost_are_not_posted_twice() -> None:
    counted = Counted("zoom")
    desk = counted.desk
    desk.begin([line(0.0)])
    desk.post(1.0)
    counted.told(None)
    desk.post(1.0)
    counted.told(403)  # the number is used up
    desk.last_was(1)
    assert not desk.post(1.0)
    assert (desk.sent, desk.seq, desk.state, counted.dropped) == (1, 2, State.READY, 0)


def test_a_clock_that_is_off_is_corrected_at_once_and_the_post_keeps_its_number() -> None:
    counted = Counted("youtube")
    desk = counted.desk
    desk.begin([line(1.0)])
    desk.post(2.0)
    assert counted.told(400, "2012-12-24T01:00:02.500\nTimestamp skew", sent=2.0, came=3.0) == PACE.first
    assert desk.post(3.5)
    assert (desk.seq, desk.ahead) == (1, 3600.0)
    assert desk.body() == "2012-12-24T01:00:01.000\nwords\n"
    assert counted.told(400, "2012-12-24T01:00:03.500", sent=3.5, came=3.6) == PACE.slow, (
        "the clock was not the reason"
    )


def test_a_difference_that_the_way_there_and_back_explains_is_no_difference() -> None:
    counted = Counted("youtube")
    counted.desk.begin([line(0.0)])
    counted.desk.post(1.0)
    counted.told(200, "2012-12-24T00:00:01.200", sent=1.0, came=1.6)
    assert counted.desk.ahead == 0.0
    counted.told(200, "2012-12-24T00:00:01.800", sent=1.0, came=1.2)
    assert counted.desk.ahead == pytest.approx(0.7)


def test_closing_counts_what_was_being_posted_and_ends() -> None:
    counted = Counted("youtube")
    counted.desk.begin([line(0.0), line(1.0)])
    counted.desk.post(1.0)
    counted.desk.close()
    counted.desk.close()
    assert (counted.dropped, counted.desk.state) == (2, State.ENDED)
