"""Formats follow the examples of the documents; posts, numbers and retries follow each result. No I/O."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.events.caption_posts import (
    PROVIDERS,
    CaptionText,
    PostResult,
    PostSequencer,
    PushState,
    RetryPolicy,
    plain_text,
    server_time,
    timestamp,
    youtube_body,
    zoom_body,
)
from streamsvc.speech import captions

STARTED = datetime(2012, 12, 24, tzinfo=UTC)
POLICY = RetryPolicy(first_delay=0.5, max_delay=8.0, slow_delay=5.0, max_refusals=5, max_not_ready=3)


class Counted:
    """A sequencer, and the number of cues that it dropped."""

    def __init__(self, to: str) -> None:
        self.dropped = 0
        self.posts = PostSequencer(PROVIDERS[to], POLICY, STARTED, self.drop)

    def drop(self, cues: int) -> None:
        self.dropped += cues

    def handle(self, status: int | None, body: str = "", sent: float = 0.0, received: float = 0.0) -> float:
        return self.posts.handle(PostResult(status, body, sent, received))


def caption(spoken: float, text: str = "words") -> CaptionText:
    return CaptionText(spoken, text)


# --- formats ---


def test_the_example_of_youtubes_document_comes_out_byte_for_byte() -> None:
    said = [
        caption(6.873, "I'M"),
        caption(6.974, "SENDING"),
        caption(7.03, "SEVERAL"),
        caption(7.104, "CAPTIONS"),
    ]
    assert youtube_body(said, STARTED, 0.0) == (
        "2012-12-24T00:00:06.873\nI'M\n2012-12-24T00:00:06.974\nSENDING\n2012-12-24T00:00:07.030\nSEVERAL\n2012-12-24T00:00:07.104\nCAPTIONS\n"
    )


def test_youtubes_lines_are_separated_by_br_and_times_are_on_its_clock() -> None:
    assert youtube_body([caption(0.25, "one\ntwo")], STARTED, 0.5) == "2012-12-24T00:00:00.750\none<br>two\n"


def test_the_example_of_zooms_document_comes_out_byte_for_byte() -> None:
    assert zoom_body([caption(0.0, "SEVERAL CAPTIONS.")]) == "SEVERAL CAPTIONS.\n"
    assert zoom_body([caption(0.0, "one\ntwo")]) == "one\ntwo\n"


def test_a_time_stamp_is_utc_whatever_the_zone_of_the_start() -> None:
    assert (
        timestamp(datetime(2026, 1, 1, 1, 30, tzinfo=timezone(timedelta(hours=2))), 1.0004)
        == "2025-12-31T23:30:01.000"
    )


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("a <b>bold</b> word", "a \u2039b\u203abold\u2039/b\u203a word"),
        ("&lt;br&gt; &#60; AT&T Q&A", "\uff06lt;br\uff06gt; \uff06#60; AT&T Q&A"),
        ("two\nlines\r\x00", "two lines"),
        ("\u0645\u06cc\u200c\u062e\u0648 \u200fx\u00ady", "\u0645\u06cc\u200c\u062e\u0648 \u200fx\u00ady"),
        (" \n ", ""),
        (
            "that were the best of times, that were the worst of times",
            "that were the best of times,\nthat were the worst of times",
        ),
    ],
)
def test_text_is_plain_and_wrapped(said: str, shown: str) -> None:
    assert plain_text(said) == shown


@given(st.text(max_size=84))
def test_no_text_brings_a_tag_an_entity_or_a_line_of_its_own_into_a_post(text: str) -> None:
    body = youtube_body([caption(0.0, shown)], STARTED, 0.0) if (shown := plain_text(text)) else ""
    assert body.count("\n") == (2 if shown else 0)
    assert "<" not in body.replace("<br>", "")
    assert all(len(part) <= captions.WIDTH for part in shown.split("\n"))


def test_youtubes_time_is_parsed_from_its_responses_and_from_nothing_else() -> None:
    moment = datetime(2021, 11, 5, 12, 17, 21, 75000, tzinfo=UTC)
    assert server_time("2021-11-05T12:17:21.075\n") == moment
    skew = "Timestamp skew from local=2021-11-05T12:17:21.074 larger than 60 sec in /x"
    assert server_time(f"2021-11-05T12:17:21.075\n{skew}") == moment
    for other in ("", "ok", "2021-11-05", "12", "<html>2021-11-05T12:17:21.075"):
        assert server_time(other) is None


# --- decisions ---


@pytest.mark.parametrize("to", ["youtube", "zoom"])
def test_a_new_post_has_the_next_number_and_a_retry_the_same(to: str) -> None:
    counted = Counted(to)
    posts, seqs = counted.posts, []
    for statuses in ((200,), (503, None, 500, 204), (200,)):
        posts.begin([caption(0.0)])
        for status in statuses:
            assert posts.due(1.0)
            seqs.append(posts.seq)
            counted.handle(status)
        assert not posts.due(1.0), "a post that was taken is not posted again"
    assert seqs == [1, 2, 2, 2, 2, 3]
    assert (posts.sent, posts.retried, counted.dropped, posts.state) == (3, 3, 0, PushState.READY)


def test_delays_double_up_to_the_maximum_and_start_again_with_the_next_post() -> None:
    counted = Counted("youtube")
    counted.posts.begin([caption(0.0)])
    waits = []
    for _ in range(7):
        assert counted.posts.due(1.0)
        waits.append(counted.handle(None))
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert counted.posts.state is PushState.RETRYING
    counted.handle(200)
    counted.posts.begin([caption(1.0)])
    assert counted.posts.due(1.0)
    assert counted.handle(502) == 0.5


def test_a_busy_target_is_retried_after_the_slow_delay() -> None:
    counted = Counted("zoom")
    counted.posts.begin([caption(0.0)])
    counted.posts.due(1.0)
    assert counted.handle(429) == POLICY.slow_delay


def test_a_meeting_that_has_not_started_is_retried_slowly_without_end_and_with_newer_words() -> None:
    counted = Counted("zoom")
    posts = counted.posts
    for _ in range(20):
        posts.begin([caption(0.0)])
        while posts.due(1.0):
            assert counted.handle(400) == POLICY.slow_delay
            assert posts.state is PushState.WAITING
    assert counted.dropped == 20
    posts.begin([caption(0.0)])
    assert posts.due(1.0)
    assert posts.seq == 1, "a number that was refused is not used up"
    counted.handle(200)
    assert posts.state is PushState.READY


@pytest.mark.parametrize("status", [403, 405, 401, 404, 410, 302])
@pytest.mark.parametrize("to", ["youtube", "zoom"])
def test_a_refusal_is_retried_some_times_and_then_stops_the_push(to: str, status: int) -> None:
    counted = Counted(to)
    posts = counted.posts
    posts.begin([caption(0.0)])
    waits = []
    while posts.due(1.0):
        waits.append(counted.handle(status))
    assert waits == [0.5, 1.0, 2.0, 4.0, 0.0]
    assert posts.state is PushState.FAILED
    assert posts.error is not None
    assert posts.error[0] == f"status_{status}"
    posts.close()
    assert (counted.dropped, posts.state) == (1, PushState.FAILED)


def test_refusals_with_a_success_between_them_do_not_stop_the_push() -> None:
    counted = Counted("zoom")
    for _ in range(3):
        counted.posts.begin([caption(0.0)])
        for status in (403, 403, 403, 403, 200):
            assert counted.posts.due(1.0)
            counted.handle(status)
    assert counted.posts.sent == 3


def test_cues_over_the_maximum_age_of_their_provider_are_dropped_and_counted() -> None:
    for to, oldest in (("zoom", 20.0), ("youtube", 55.0)):
        counted = Counted(to)
        counted.posts.begin([caption(0.0), caption(10.0)])
        assert len(counted.posts.due(oldest)) == 2
        counted.handle(503)
        assert counted.posts.due(oldest + 1) == (caption(10.0),)
        assert counted.dropped == 1
        assert not counted.posts.due(oldest + 11)
        assert counted.dropped == 2


def test_a_number_that_may_have_been_taken_is_not_used_for_other_words_and_a_refused_one_is() -> None:
    for status, seq in ((None, 2), (500, 2), (429, 1)):
        counted = Counted("youtube")
        counted.posts.begin([caption(0.0)])
        counted.posts.due(1.0)
        counted.handle(status)
        assert not counted.posts.due(100.0)
        assert counted.posts.seq == seq, status


def test_zooms_last_number_is_requested_at_the_start_and_after_a_refusal_and_youtubes_never() -> None:
    zoom, youtube = Counted("zoom"), Counted("youtube")
    assert zoom.posts.needs_last_seq
    zoom.posts.set_last_seq(41)
    assert (zoom.posts.seq, zoom.posts.needs_last_seq) == (42, False)
    for counted in (zoom, youtube):
        counted.posts.begin([caption(0.0)])
        counted.posts.due(1.0)
        counted.handle(503)
        assert not counted.posts.needs_last_seq, "a retry has the same number"
        counted.handle(403)
    assert (zoom.posts.needs_last_seq, youtube.posts.needs_last_seq) == (True, False)


def test_an_unknown_last_number_changes_nothing() -> None:
    counted = Counted("zoom")
    counted.posts.set_last_seq(None)
    assert (counted.posts.seq, counted.posts.needs_last_seq) == (1, False)


def test_a_post_that_was_taken_but_whose_response_was_lost_is_not_posted_twice() -> None:
    counted = Counted("zoom")
    posts = counted.posts
    posts.begin([caption(0.0)])
    posts.due(1.0)
    counted.handle(None)
    posts.due(1.0)
    counted.handle(403)  # the number is used up
    posts.set_last_seq(1)
    assert not posts.due(1.0)
    assert (posts.sent, posts.seq, posts.state, counted.dropped) == (1, 2, PushState.READY, 0)


def test_a_clock_that_is_off_is_corrected_at_once_and_the_post_keeps_its_number() -> None:
    counted = Counted("youtube")
    posts = counted.posts
    posts.begin([caption(1.0)])
    posts.due(2.0)
    assert (
        counted.handle(400, "2012-12-24T01:00:02.500\nTimestamp skew", sent=2.0, received=3.0)
        == POLICY.first_delay
    )
    assert posts.due(3.5)
    assert (posts.seq, posts.clock_offset) == (1, 3600.0)
    assert posts.body() == "2012-12-24T01:00:01.000\nwords\n"
    assert counted.handle(400, "2012-12-24T01:00:03.500", sent=3.5, received=3.6) == POLICY.slow_delay, (
        "the clock was not the reason"
    )


def test_a_clock_offset_within_the_round_trip_counts_as_none() -> None:
    counted = Counted("youtube")
    counted.posts.begin([caption(0.0)])
    counted.posts.due(1.0)
    counted.handle(200, "2012-12-24T00:00:01.200", sent=1.0, received=1.6)
    assert counted.posts.clock_offset == 0.0
    counted.handle(200, "2012-12-24T00:00:01.800", sent=1.0, received=1.2)
    assert counted.posts.clock_offset == pytest.approx(0.7)


def test_closing_counts_the_unfinished_post_as_dropped() -> None:
    counted = Counted("youtube")
    counted.posts.begin([caption(0.0), caption(1.0)])
    counted.posts.due(1.0)
    counted.posts.close()
    counted.posts.close()
    assert (counted.dropped, counted.posts.state) == (2, PushState.ENDED)
