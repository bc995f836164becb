"""Media time of whole sources: holes stay and are told, parts follow each other, late sound is late."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from streamsvc.core import clock
from streamsvc.core.types import Kind
from streamsvc.ingest.source_times import UNTOLD, Connection, SourceTimes
from streamsvc.ingest.timestamps import JUMP, Stamps
from tests.builders.stamped import Heard, Part, hear, joined


def spans(heard: Heard) -> list[tuple[int, int]]:
    """Stretches of sound in tenths of a second."""
    return [(round(10 * start), round(10 * end)) for start, end in heard.sound]


# --- files ---


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.ts", "a.ogg"])
@pytest.mark.parametrize("seconds", [2.0, 30.0])
async def test_a_hole_in_the_stamps_is_told_and_what_follows_lies_in_its_time(
    tmp_path: Path, name: str, seconds: float
) -> None:
    codec = "libopus" if name == "a.ogg" else "aac"
    heard = await hear(Part(seconds=5.0, hole=(2.0, seconds), audio=codec).write(tmp_path / name))
    (gap,) = heard.gaps
    assert gap.end - gap.start == pytest.approx(seconds, abs=0.05)
    assert gap.reason == "missing"
    (first, _), (second, last) = heard.sound
    assert first == pytest.approx(0.0, abs=0.1)
    assert second == pytest.approx(gap.end, abs=0.1)
    assert last == pytest.approx(4.5 + seconds, abs=0.1)


async def test_a_hole_moves_pictures_too_and_stays_between_the_tracks(tmp_path: Path) -> None:
    heard = await hear(Part(seconds=4.0, hole=(2.0, 20.0), video="mpeg4").write(tmp_path / "a.mkv"))
    assert heard.pictures[20] == pytest.approx(22.0, abs=0.1)
    assert heard.sound[1][0] == pytest.approx(22.0, abs=0.1)


@pytest.mark.parametrize(("first", "second"), [(0.0, 0.0), (500.0, 0.0), (70_000.0, 0.0), (20.0, 15.0)])
async def test_files_that_were_joined_follow_each_other(tmp_path: Path, first: float, second: float) -> None:
    """By 60 s and more, libav takes stamps that fall back for a wrap-around: a step of 26 hours."""
    parts = [Part(first=first, video="mpeg4"), Part(first=second, video="mpeg4")]
    heard = await hear(joined(tmp_path / "a.ts", *parts))
    assert spans(heard) == [(0, 26), (30, 56)] or spans(heard) == [(0, 26), (31, 56)]
    assert heard.gaps == []
    assert len(heard.pictures) == 60
    assert heard.pictures[30] == pytest.approx(3.0, abs=0.1)


async def test_matroska_files_that_were_joined_follow_each_other(tmp_path: Path) -> None:
    heard = await hear(joined(tmp_path / "a.mkv", Part(), Part()))
    assert [round(start, 1) for start, _ in heard.sound] == [0.0, 3.0]


async def test_stamps_that_wrap_around_at_33_bits_go_on(tmp_path: Path) -> None:
    part = Part(first=2**33 / 90_000 - 1.5 - 1.4, video="mpeg4")
    heard = await hear(part.write(tmp_path / "a.ts"))
    assert spans(heard) == [(0, 26)]
    assert heard.gaps == [] and len(heard.pictures) == 30
    assert heard.stats["time_lines"] == 0


@pytest.mark.parametrize("name", ["a.ts", "a.mp4", "a.mkv"])
async def test_sound_that_begins_late_is_heard_late_and_its_absence_is_told(
    tmp_path: Path, name: str
) -> None:
    heard = await hear(Part(seconds=8.0, delay=5.0, video="mpeg4").write(tmp_path / name))
    (gap,) = heard.gaps
    assert (gap.start, gap.reason) == (pytest.approx(0.0, abs=0.05), "missing")
    assert gap.end == pytest.approx(5.0, abs=0.1)
    assert heard.sound == [(pytest.approx(5.0, abs=0.1), pytest.approx(7.5, abs=0.1))]


async def test_sound_that_begins_a_moment_later_is_no_gap(tmp_path: Path) -> None:
    heard = await hear(Part(seconds=4.0, delay=0.6, video="mpeg4").write(tmp_path / "a.mkv"))
    assert heard.gaps == []
    assert heard.sound[0][0] == pytest.approx(0.6, abs=0.1)


async def test_a_file_that_was_cut_tells_what_is_missing_at_its_end(tmp_path: Path) -> None:
    path = Part(seconds=8.0, video="mpeg4").write(tmp_path / "a.mkv")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    heard = await hear(path)
    (gap,) = heard.gaps
    assert gap.end == pytest.approx(8.0, abs=0.1)
    assert gap.start == pytest.approx(heard.sound[-1][1], abs=0.1)


# --- live ---


@dataclass
class Plan:
    """A playlist's knowledge, in media seconds."""

    missing_start: float = 0.0
    hole_at: float | None = None
    joints: tuple[float, ...] = ()
    media_start: float | None = None

    def explains(self, at: float) -> bool:
        return self.hole_at is not None and abs(self.hole_at - at) < 1.0

    def joint(self, end: float) -> float | None:
        return next((joint for joint in self.joints if abs(joint - end) < 1.0), None)


class Reel:
    """Packets of one second that are read one behind the other."""

    def __init__(self, plan: Plan | None = None, *, live: bool = True) -> None:
        self.times = SourceTimes()
        self.times.live = live
        self.plan = plan
        self.times.connect(Connection.FIRST, {"audio", "video"}, start=None, plan=plan)

    def read(self, *stamps: float, kind: Kind = "audio", known: bool = False) -> list[float]:
        placed = [self.times.place(kind, Stamps(stamp, stamp, 1.0), known=known) for stamp in stamps]
        return [round(one.at, 3) for one in placed if one is not None]

    def connect(self, connection: Connection, plan: Plan | None = None) -> None:
        self.times.connect(connection, {"audio"}, start=None, plan=plan)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Monotonic seconds, to be set."""
    value = [1000.0]
    monkeypatch.setattr(clock, "now", lambda: value[0])
    return value


def test_a_live_pause_is_a_hole_and_a_step_ahead_of_the_clock_is_a_restart(now: list[float]) -> None:
    reel = Reel()
    assert reel.read(100.0, 101.0) == [0.0, 1.0]
    now[0] += 31.0
    assert reel.read(131.0) == [31.0]
    assert reel.times.lines == 0
    now[0] += 1.0
    assert reel.read(132.0 + JUMP + 50.0) == [32.0], "where the clock is"
    assert reel.times.lines == 1


def test_a_live_restart_goes_on_where_the_clock_is(now: list[float]) -> None:
    reel = Reel()
    reel.read(100.0, 101.0)
    now[0] += 8.0
    assert reel.read(0.0, 1.0) == [8.0, 9.0]


def test_a_playlist_says_what_a_step_is(now: list[float]) -> None:
    plan = Plan(hole_at=20.0, joints=(22.0,))
    reel = Reel(plan)
    assert reel.read(50.0, 51.0) == [0.0, 1.0]
    assert plan.media_start == 0.0
    assert reel.read(70.0, 71.0) == [20.0, 21.0], "segments are missing"
    assert reel.read(400.0, 401.0) == [22.0, 23.0], "a discontinuity"
    assert reel.read(411.0) == [33.0], "a hole that it does not tell of"
    assert reel.read(412.0 + UNTOLD + 1.0) == [34.0], "beyond, it is none"


def test_a_recording_whose_first_segments_are_missing_begins_later(now: list[float]) -> None:
    assert Reel(Plan(missing_start=6.0), live=False).read(50.0, 51.0) == [6.0, 7.0]


def test_a_connection_that_repeats_packets_keeps_its_time_line(now: list[float]) -> None:
    reel = Reel(Plan())
    reel.read(10.0, 11.0, 12.0)
    again = Plan()
    reel.connect(Connection.AGAIN, again)
    assert reel.read(11.0, 12.0, known=True) == []
    assert again.media_start == 1.0
    assert reel.read(13.0) == [3.0]
    assert reel.times.lines == 0


def test_the_same_packet_again_without_a_new_connection_is_heard_again(now: list[float]) -> None:
    """A playlist may name the same advertisement twice."""
    reel = Reel(Plan(joints=(2.0,)))
    reel.read(10.0, 11.0)
    assert reel.read(10.0, 11.0, known=True) == [2.0, 3.0]


def test_a_new_connection_tells_what_was_lost_meanwhile(now: list[float]) -> None:
    reel = Reel()
    reel.read(10.0, 11.0)
    now[0] += 9.0
    reel.connect(Connection.AGAIN)
    placed = reel.times.place("audio", Stamps(500.0, 500.0, 1.0))
    assert placed is not None
    assert (placed.at, placed.gap, placed.first) == (9.0, 7.0, True)


def test_the_next_link_of_a_chain_loses_nothing(now: list[float]) -> None:
    reel = Reel(live=False)
    reel.read(0.0, 1.0)
    now[0] += 9.0
    reel.connect(Connection.LINK)
    placed = reel.times.place("audio", Stamps(0.0, 0.0, 1.0))
    assert placed is not None
    assert (placed.at, placed.gap) == (2.0, 0.0)
    assert (reel.times.end, reel.times.end_of("audio"), reel.times.end_of("video")) == (3.0, 3.0, None)
