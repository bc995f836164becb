"""Segments and playlists of captions, read by a strict player while a session goes on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streamsvc.core.types import Cue, Speech, Translation
from streamsvc.events import hls_captions
from streamsvc.events.hls_captions import (
    HOLD,
    KEPT,
    LEAD,
    LISTED,
    MARGIN,
    SECONDS,
    Grid,
    Line,
    LiveSegments,
    OpenSpeech,
    PlaylistHead,
    Progress,
    live_entries,
    start_of,
)
from tests.builders.hls import Player, cues_of, parse, ticks_of
from tests.builders.units import cue

STARTED = datetime(2026, 1, 1, tzinfo=UTC)
SEGMENT = float(SECONDS)


class Broadcast:
    """A session as its captions see it: units come, time passes, a player polls."""

    def __init__(self) -> None:
        self.speech = OpenSpeech()
        self.segments = LiveSegments()
        self.cues: list[Cue] = []
        self.now = 0.0
        self.backlog = 0.0
        self.changes: list[float] = []
        self.over = False
        self.player = Player(self.load, "captions.m3u8")
        self.looked: list[int] = []  # lines that each call handed out

    def load(self, url: str) -> str | None:
        if url != "captions.m3u8":
            body = self.segments.body(int(url.removesuffix(".vtt")))
            return None if body is None else hls_captions.segment(body)
        progress = self.speech.progress(self.now, self.backlog)
        if self.over:
            end = SEGMENT * -(-self.now // SEGMENT)
            progress = Progress(end, end)
        self.segments.advance(progress, self.lines)
        entries, before = live_entries(self.segments, self.changes)
        head = PlaylistHead(STARTED, before, ended=self.over)
        return hls_captions.playlist(head, entries, lambda number: f"{number}.vtt")

    def lines(self, since: float) -> Sequence[Line]:
        found = [Line(one.start, one.end, one.text, one.words) for one in self.cues]
        fresh = [line for line in found if line.mark > since]
        self.looked.append(len(fresh))
        return fresh

    def take(self, *units: Cue | Speech) -> None:
        for unit in units:
            self.speech.take(unit)
            if isinstance(unit, Cue) and unit.final:
                self.cues.append(unit)

    def at(self, now: float, *units: Cue | Speech) -> None:
        """Units come at a session second, behind which the player polls."""
        self.now = now
        self.take(*units)
        self.player.poll()

    def body(self, begin: float) -> list[str]:
        """The texts of the segment that begins at a session second."""
        return [one.text for one in cues_of(self.player.bodies[int(begin // SECONDS) + LEAD])]


def speaks(at: float) -> Speech:
    return Speech("s", "main", at, 0.0, True)


def stops(at: float) -> Speech:
    return Speech("s", "main", at, 0.0, False)


def words(count: int) -> str:
    return " ".join(f"w{number}" for number in range(count))


def test_while_nobody_speaks_empty_segments_follow_each_other_and_a_player_finds_three_at_once() -> None:
    live = Broadcast()
    live.at(0.0)
    assert [one.seconds for one in live.player.newest.segments] == [SEGMENT] * LEAD
    assert live.player.newest.segments[LEAD - 1].utc == pytest.approx(STARTED.timestamp() - SEGMENT)
    for now in range(1, 600):
        live.at(float(now))
    assert set(map(tuple, map(cues_of, live.player.bodies.values()))) == {()}
    assert live.player.newest.segments[-1].number == int((599 - MARGIN) // SECONDS) + LEAD - 1
    assert len(live.player.newest.segments) == LISTED
    assert len([one for one in live.player.bodies if live.segments.body(one) is not None]) == KEPT
    live.player.reload()


def test_a_cue_that_crosses_a_border_is_in_both_segments_with_the_same_times() -> None:
    live = Broadcast()
    live.at(5.0, speaks(4.0), cue(words(5), 4.0, final=False))
    live.at(8.0, cue(words(8), 4.0, final=False))
    assert live.player.newest.segments[-1].number < LEAD, "the cue is open"
    live.at(9.0, cue(words(10), 4.0), stops(7.9))
    live.at(15.0)
    live.player.check_places(start_of)
    assert live.body(0.0) == live.body(6.0) == [words(10)]
    assert [(one.start, one.end) for one in live.player.shown()] == [(4.0, 7.9)]


def test_a_segment_waits_for_speech_that_is_not_recognised_yet() -> None:
    live = Broadcast()
    live.at(5.0, speaks(4.9))
    live.at(12.0)
    assert live.player.newest.segments[-1].number < LEAD
    live.at(12.5, cue("At last.", 4.9), stops(5.5))
    assert live.body(0.0) == ["At last."]


def test_a_long_utterance_does_not_hold_back_what_it_has_closed() -> None:
    live = Broadcast()
    live.at(1.0, speaks(0.0))
    live.at(9.0, cue(words(10), 0.0), cue(words(10), 4.0))
    assert live.body(0.0) == [words(10)] * 2, "the second one reaches to 7.9, so the next word comes later"
    live.at(14.0)
    assert live.player.newest.segments[-1].number == LEAD, "what comes behind 7.9 may be in the next one"


def test_audio_that_waits_is_not_taken_for_silence() -> None:
    live = Broadcast()
    live.backlog = 5.0
    live.at(12.0)
    assert live.player.newest.segments[-1].number < LEAD
    live.at(12.5, speaks(5.0), cue("Late.", 5.0), stops(5.3))
    live.at(13.0)
    assert live.body(0.0) == ["Late."]


def test_after_the_hold_a_segment_has_the_stable_words_and_the_next_one_the_rest() -> None:
    live = Broadcast()
    live.at(5.0, speaks(2.0))
    live.at(6.0 + HOLD - 0.1, cue(words(14), 2.0, final=False, stable=5))
    assert live.player.newest.segments[-1].number < LEAD
    live.at(6.0 + HOLD, cue(words(14), 2.0, final=False, stable=5))
    assert live.body(0.0) == [words(5)]
    live.at(20.0, cue(words(14), 2.0), stops(7.5))
    live.at(26.0)
    assert live.body(6.0) == [" ".join(f"w{number}" for number in range(5, 14))]
    assert live.segments.dropped == 0


def test_what_comes_after_its_segment_was_settled_is_counted() -> None:
    live = Broadcast()
    live.at(1.0, speaks(1.0))
    live.at(6.0 + HOLD)
    live.at(20.0, cue("Too late.", 1.0), stops(2.0))
    live.at(26.0)
    assert (live.player.shown(), live.segments.dropped) == ([], 1)


def test_a_cue_stays_for_its_reading_time_but_never_over_the_next_one() -> None:
    live = Broadcast()
    live.at(10.0, cue("Hi.", 0.0), cue("Unmistakably extraordinary characterisations.", 2.0), cue("So.", 3.0))
    assert [(one.start, one.end) for one in live.player.shown()] == [(0.0, 1.0), (2.0, 3.0), (3.0, 4.0)]


def test_random_speech_is_shown_whole_and_by_the_rules_however_a_player_polls() -> None:
    chance = random.Random(18)
    for _ in range(8):
        live = Broadcast()
        now = spoken = 0.0
        texts: list[str] = []
        while now < 200:
            begin = max(spoken, now) + chance.choice([0.1, 1.0, 9.0])
            live.at(begin + 0.3, speaks(begin))
            for _ in range(chance.randint(1, 3)):
                one = cue(words(chance.randint(1, 16)), begin)
                live.at(begin + 1.0, cue(one.text, begin, final=False, stable=chance.randint(0, 1)))
                live.at(one.end + chance.uniform(0.2, 3.0), one)
                texts.append(one.text)
                begin = one.end + 0.05
            spoken, now = begin, live.now
            live.at(now, stops(spoken))
        live.over = True
        live.at(live.now)
        assert live.player.newest.ended
        assert [one.text.replace("\n", " ") for one in live.player.shown()] == texts
        assert live.segments.dropped == 0
        live.player.check_places(start_of)
        live.player.reload()
        assert sum(live.looked) < 12 * len(texts), "a poll looks at what is new, not at the session"


def test_a_player_that_comes_late_gets_the_newest_segments_alone() -> None:
    live = Broadcast()
    live.take(*(cue(f"cue {number}", 2.0 * number) for number in range(1000)))
    live.at(2000.0)
    assert len(live.player.newest.segments) <= LISTED + HOLD / SECONDS
    numbers = sorted(live.player.bodies)
    assert start_of(numbers[-1]) > 2000 - HOLD - SECONDS
    assert live.body(start_of(numbers[1]))
    assert live.segments.dropped == 0
    assert live.looked[0] <= (LISTED * SECONDS + 2 * HOLD) / 2 + 20


def test_another_publisher_begins_a_stretch_that_is_counted_when_it_has_left() -> None:
    live = Broadcast()
    live.changes.append(20.0)
    for now in range(0, 600, 3):
        live.at(float(now))
    stretches = {number: one.stretch for number, one in live.player._seen.items()}
    change = int(20.0 // SECONDS) + LEAD
    assert {number for number, stretch in stretches.items() if stretch == 0} == set(range(change))
    assert "DISCONTINUITY\n" not in str(live.load("captions.m3u8"))


def test_a_translation_is_waited_for_and_no_longer_than_the_hold() -> None:
    segments = LiveSegments()
    lines = [Line(1.0, 2.0, "One."), Line(3.0, 4.0, None), Line(13.0, 14.0, "Three.")]
    segments.advance(Progress(10.0, 10.0), lambda since: [one for one in lines if one.mark > since])
    assert segments.last == LEAD - 1
    segments.advance(Progress(6.0 + HOLD, 18.0), lambda since: [one for one in lines if one.mark > since])
    assert [one.text for one in cues_of(hls_captions.segment(segments.body(LEAD) or ""))] == ["One."]
    assert segments.dropped == 1


@pytest.mark.parametrize("first", [0.0, -7.0, 3.5])
def test_an_ended_session_has_each_cue_in_the_segments_that_it_reaches_into(first: float) -> None:
    cues = [cue(words(8), start) for start in (0.5, 4.0, 11.0, 17.9)]
    grid = Grid(first, 21.0)
    spans = [grid.span(number) for number in range(grid.count)]
    entries = [hls_captions.Entry(n, end - begin, begin) for n, (begin, end) in enumerate(spans)]
    text = hls_captions.playlist(
        PlaylistHead(STARTED, ended=True, whole=True), entries, lambda number: f"{number}.vtt"
    )
    listed = parse(text)
    assert (listed.kind, listed.ended, listed.number) == ("VOD", True, 0)
    assert sum(one.seconds for one in listed.segments) == pytest.approx(21.0 - first)
    assert listed.segments[0].utc == pytest.approx((STARTED + timedelta(seconds=first)).timestamp())
    found = [cues_of(hls_captions.segment(hls_captions.recorded(cues, *span))) for span in spans]
    for (begin, end), shown in zip(spans, found, strict=True):
        whole = cues_of(hls_captions.segment(hls_captions.recorded(cues, -100, 100)))
        assert shown == [one for one in whole if one.start < end and one.end > begin]
    assert {one.text for shown in found for one in shown} == {words(8)}


def test_a_segment_of_a_long_session_is_made_of_what_is_near() -> None:
    cues = [cue("word", float(number)) for number in range(100_000)]
    looked: list[object] = []

    class Counted(list[Cue]):
        def __getitem__(self, key: Any) -> Any:
            looked.append(key)
            return super().__getitem__(key)

    assert len(cues_of(hls_captions.segment(hls_captions.recorded(Counted(cues), 60_000, 60_006)))) == 6
    assert len(looked) < 50


def test_a_timestamp_wraps_as_in_a_transport_stream() -> None:
    assert ticks_of(hls_captions.segment("", -90_000)) == (1 << 33) - 90_000
    assert ticks_of(hls_captions.segment("", (1 << 33) + 5)) == 5


def test_other_units_do_not_open_speech() -> None:
    speech = OpenSpeech()
    speech.take(Translation("s", "main", 1.0, 0.0, "x", "One.", "en", 1.0, 2.0))
    assert speech.progress(10.0, 1.0) == Progress(10.0, 10.0 - 1.0 - MARGIN)
    assert speech.language == ""
