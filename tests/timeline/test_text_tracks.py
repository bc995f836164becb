"""A line of text keeps its own start and end when it is misread, scrolled, or its neighbours are edited."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from streamsvc.core.types import TextLine
from streamsvc.timeline.text_tracks import TextTracks, follow, normalized, page_shift, same_text
from tests.builders import pages


def line(text: str, y: float, x: float = 0.1, score: float = 0.9, w: float | None = None) -> TextLine:
    return TextLine(text, score, x, y, 0.015 * len(text) if w is None else w, 0.05)


def page(*texts: str, score: float = 0.9) -> list[TextLine]:
    return [line(text, 0.1 + 0.1 * n, score=score) for n, text in enumerate(texts)]


def times(tracks: TextTracks) -> dict[str, tuple[float, float | None]]:
    return {track.text: (track.start, track.end) for track in tracks.all()}


def test_a_line_lasts_from_the_first_keyframe_that_shows_it_to_the_first_that_does_not() -> None:
    tracks = TextTracks()
    tracks.read(page("Agenda for today", "Budget"), 1.0)
    tracks.read(page("Agenda for today", "Budget", "Hiring plan"), 4.0)
    tracks.read([line("Agenda for today", 0.1), line("Hiring plan", 0.3)], 9.0)
    tracks.read([line("Agenda for today", 0.1), line("Hiring plan", 0.3)], 20.0)
    assert times(tracks) == {
        "Agenda for today": (1.0, None),
        "Budget": (1.0, 9.0),
        "Hiring plan": (4.0, None),
    }


def test_a_misread_letter_does_not_end_a_line_and_the_better_reading_is_kept() -> None:
    tracks = TextTracks()
    tracks.read(page("The rnountain spirit", score=0.8), 1.0)
    tracks.read(page("The mountain spirit", score=0.95), 2.0)
    tracks.read(page("The mountaln spirlt", score=0.7), 3.0)
    (only,) = tracks.all()
    assert (only.text, only.start, only.end, only.frame) == ("The mountain spirit", 1.0, None, 2.0)


def test_a_digit_or_a_word_that_changes_ends_the_line_and_begins_a_new_one() -> None:
    tracks = TextTracks()
    tracks.read(page("Total: 120 euros", "Room Lisbon"), 1.0)
    tracks.read(page("Total: 150 euros", "Room Athens"), 5.0)
    assert times(tracks) == {
        "Total: 120 euros": (1.0, 5.0),
        "Room Lisbon": (1.0, 5.0),
        "Total: 150 euros": (5.0, None),
        "Room Athens": (5.0, None),
    }


def test_one_letter_is_an_edit_where_both_readings_are_sure() -> None:
    assert same_text(
        line("meet the cat at the station", 0.1, score=0.8),
        line("meet the car at the station", 0.1, score=0.99),
    )
    assert not same_text(
        line("meet the cat at the station", 0.1, score=0.99),
        line("meet the car at the station", 0.1, score=0.99),
    )


def test_a_scrolled_page_keeps_its_lines() -> None:
    text = [
        f"{word} paragraph of the long document"
        for word in ("first", "second", "third", "fourth", "fifth", "sixth")
    ]
    whole = page(*text)
    tracks = TextTracks()
    tracks.read(whole[:5], 1.0)
    tracks.read([*pages.moved(whole[:5], -0.2), replace(whole[5], y=0.4)], 3.0)
    assert times(tracks) == {
        text[0]: (1.0, 3.0),
        **dict.fromkeys(text[1:5], (1.0, None)),
        text[5]: (3.0, None),
    }


def test_the_same_text_elsewhere_is_another_line_unless_the_page_moved() -> None:
    tracks = TextTracks()
    tracks.read([line("OK", 0.1), line("Some other words here", 0.5)], 1.0)
    tracks.read([line("OK", 0.9), line("Some other words here", 0.5)], 2.0)
    assert [(track.start, track.end) for track in tracks.all() if track.text == "OK"] == [
        (1.0, 2.0),
        (2.0, None),
    ]


def test_similar_lines_do_not_take_each_others_times() -> None:
    tracks = TextTracks()
    tracks.read(page("item number 1 of the list", "item number 2 of the list"), 1.0)
    tracks.read(
        page("item number 1 of the list", "item number 2 of the list", "item number 3 of the list"), 2.0
    )
    assert [(track.text[12], track.start) for track in tracks.all()] == [("1", 1.0), ("2", 1.0), ("3", 2.0)]


def test_a_line_missing_once_continues_and_one_that_stays_away_ended_when_first_missing() -> None:
    tracks = TextTracks()
    tracks.read(page("Title of the page", "Budget"), 1.0)
    tracks.read(page("Title of the page"), 2.0)
    assert times(tracks)["Budget"] == (1.0, 2.0)
    tracks.read(page("Title of the page", "Budget"), 3.0)
    assert times(tracks)["Budget"] == (1.0, None)
    tracks.read(page("Title of the page"), 10.0)
    tracks.read(page("Title of the page", "Budget"), 30.0)
    assert sorted(
        (track.start, track.end) for track in tracks.all() if track.text == "Budget" and track.end
    ) == [(1.0, 10.0)]
    assert times(tracks)["Budget"] == (30.0, None)


def test_a_line_that_ocr_cuts_in_two_and_joins_again_keeps_its_start() -> None:
    tracks = TextTracks()
    tracks.read([line("Due date", 0.1, 0.1, w=0.2), line("11 April", 0.1, 0.35, w=0.15)], 1.0)
    tracks.read([line("Due date 11 April", 0.1, 0.1, w=0.4)], 2.0)
    assert [(track.text, track.start) for track in tracks.shown] == [("Due date 11 April", 1.0)]
    tracks.read([line("Due date", 0.1, 0.1, w=0.2), line("11 April", 0.1, 0.35, w=0.15)], 9.0)
    assert [(track.text, track.start) for track in tracks.shown] == [("Due date", 1.0), ("11 April", 1.0)]


def test_a_number_that_loses_a_digit_is_a_new_line() -> None:
    now, gone = follow(follow([], page("Total 150"), 1.0)[0], page("Total 15"), 2.0)
    assert [track.start for track in now] == [2.0]
    assert [track.text for track in gone] == ["Total 150"]


def test_tracks_shown_at_a_time_are_in_reading_order() -> None:
    tracks = TextTracks()
    tracks.read([line("below", 0.5), line("right", 0.1, 0.6), line("left", 0.1, 0.1)], 1.0)
    tracks.clear(5.0)
    assert [track.text for track in tracks.at(3.0)] == ["left", "right", "below"]
    assert tracks.at(5.0) == tracks.at(0.5) == ()
    assert tracks.shown == ()


def test_beyond_the_limit_the_oldest_go_and_are_counted() -> None:
    tracks = TextTracks(limit=5)
    for n in range(20):
        tracks.read(page(f"line number {n}"), float(n))
    assert len(tracks.all()) == 6
    assert tracks.dropped == 14
    assert tracks.all()[0].text == "line number 14"


def test_a_page_shift_needs_enough_letters_of_lines_that_are_unique() -> None:
    before, _ = follow([], page("Ok", "Ok", "the long words of a line"), 1.0)
    assert page_shift(before, pages.moved(page("Ok", "Ok", "the long words of a line"), 0.2))[1] > 0.19
    assert page_shift(before, pages.moved(page("Ok", "Ok"), 0.2)) == (0.0, 0.0)


def test_normalized_texts_differ_only_in_what_ocr_can_tell_apart() -> None:
    assert normalized("Invoice No. 1O0") == normalized("lnv0ice no 100")
    assert normalized("12") != normalized("13")


@given(st.integers(0, 500), st.lists(st.floats(0.1, 5.0), min_size=2, max_size=6))
def test_misreadings_of_a_letter_never_break_a_page_in_two(seed: int, steps: list[float]) -> None:
    tracks, now = TextTracks(), 0.0
    page_ = [track for track in pages.lines(pages.BULLETS) if len(normalized(track.text)) >= 16]
    for n, step in enumerate(steps):
        now += step
        tracks.read(
            [replace(track, text=pages.garbled(track.text, seed + n), score=0.9) for track in page_], now
        )
    # Two readings differ by two letters at most, one of track; a line of 16 letters is allowed that.
    assert [track.start for track in tracks.all()] == [steps[0]] * len(page_)


@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from(["alpha beta", "gamma", "12 of 13", "", "..."]), st.floats(0, 0.9)),
            max_size=6,
        ),
        max_size=8,
    )
)
def test_any_readings_give_one_track_a_line_and_no_end_before_its_start(
    readings: list[list[tuple[str, float]]],
) -> None:
    tracks = TextTracks()
    for at, reading in enumerate(readings):
        tracks.read([line(text, y) for text, y in reading], float(at))
        assert len(tracks.shown) == sum(bool(text) for text, _ in reading)
    assert all(track.end is None or track.start <= track.end for track in tracks.all())
