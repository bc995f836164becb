"""Publishers come, stall, return and leave, and full queues drop the oldest."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from streamsvc.core import clock, metrics
from streamsvc.core.errors import Conflict
from streamsvc.core.options import SessionOptions
from streamsvc.core.types import MediaTrack
from streamsvc.service.media_input import State
from streamsvc.service.session import Session
from tests.builders.session import OPUS, Playing, Sender, Tape, kinds, make, packets, send, sends


def at(live: Session, state: State) -> bool:
    return live.state is state


def counted(outcome: str) -> float:
    return float(metrics.frames.labels(outcome)._value.get())


def test_a_second_publisher_is_refused_and_the_first_goes_on(stage: asyncio.Runner) -> None:
    async def main() -> None:
        async with Playing(make()) as played:
            first = Sender()
            played.session.media.attach(first)
            with pytest.raises(Conflict) as caught:
                played.session.media.attach(Sender())
            assert caught.value.code == "already_publishing"
            assert played.session.media.publisher is first
            assert at(played.session, State.LIVE)

    stage.run(main())


def test_a_publisher_that_stalls_and_one_that_returns_are_told(stage: asyncio.Runner) -> None:
    async def main() -> None:
        async with Playing(make()) as played:
            live, peer, again = played.session, Sender(), Sender(OPUS)
            live.media.attach(peer)
            sends(live)
            live.media.publisher_state(peer, "connected", "")
            live.media.publisher_state(peer, "resumed", "")  # it has not stalled
            live.media.publisher_state(Sender(), "stalled", "a stranger")
            assert at(live, State.LIVE)
            live.media.publisher_state(peer, "stalled", "silence")
            assert at(live, State.STALLED)
            live.media.publisher_state(peer, "stalled", "silence")
            live.media.publisher_state(peer, "resumed", "")
            assert at(live, State.LIVE)
            live.media.publisher_state(peer, "closed", "left")
            assert at(live, State.STALLED)
            live.media.publisher_state(peer, "resumed", "too late")
            assert at(live, State.STALLED)
            assert list(live.media.changes) == []
            live.media.attach(again)
            assert at(live, State.LIVE)
            assert list(live.media.changes) == [live.clock.position()]
            live.end("ended")
            events = await played.ended()
            assert kinds(events, "session.") == [
                "session.created",
                "session.updated",
                "session.stalled",
                "session.resumed",
                "session.stalled",
                "session.updated",
                "session.resumed",
                "session.closed",
            ]
            assert events[1]["tracks"] == ["audio", "video"]
            assert events[5]["tracks"] == ["audio"]
            assert live.describe()["tracks"] == ["audio"]

    stage.run(main())


def test_a_session_waits_for_its_publisher_to_come_back_and_no_longer(stage: asyncio.Runner) -> None:
    async def main() -> None:
        async with Playing(make(ingest={"resume_seconds": 30.0})) as played:
            live = played.session
            for _ in range(3):  # each absence has a window of its own
                live.media.attach(Sender())
                sends(live)
                live.media.detach("left")
                await clock.sleep(29.0)
                assert at(live, State.STALLED)
            left = clock.now()
            events = await played.ended()
            assert clock.now() - left == pytest.approx(1.0, abs=0.1)
            assert events[-1]["reason"] == "publisher_left"

    stage.run(main())


def test_a_session_that_nobody_publishes_to_ends(stage: asyncio.Runner) -> None:
    async def main() -> None:
        start = clock.now()
        async with Playing(make(limits={"unpublished_seconds": 70.0})) as played:
            assert (await played.ended())[-1]["reason"] == "never_published"
        assert clock.now() - start == pytest.approx(70.0, abs=1.0)
        async with Playing(make(limits={"unpublished_seconds": 70.0})) as played:
            played.session.media.attach(Sender())
            await clock.sleep(140.0)
            assert at(played.session, State.LIVE)

    stage.run(main())


def test_a_publisher_that_brings_nothing_leaves_a_session_that_waits_as_before(stage: asyncio.Runner) -> None:
    async def main() -> None:
        async with Playing(make(limits={"unpublished_seconds": 70.0})) as played:
            live = played.session
            live.media.attach(peer := Sender())
            await clock.sleep(5.0)
            live.media.publisher_state(peer, "closed", "handshake")
            left = clock.now()
            assert at(live, State.CREATED)
            events = await played.ended()
            assert clock.now() - left == pytest.approx(70.0, abs=1.0)
            told = [(event["tracks"], event.get("reason")) for event in events if "tracks" in event]
            assert told == [([], None), (["audio", "video"], None), ([], "handshake")]
            assert events[-1]["reason"] == "never_published"

    stage.run(main())


def test_full_rings_drop_the_oldest_and_count_it(stage: asyncio.Runner, tmp_path: Path) -> None:
    async def main() -> None:
        before = counted("dropped_audio"), counted("dropped_video")
        async with Playing(make(ingest={"audio_seconds": 0.2, "video_ring": 5, "video": "full"})) as played:
            played.session.media.attach(Sender())
            frames = packets(tmp_path, 1.0)
            for frame in frames:  # all at once: nobody can take them meanwhile
                played.session.media.tap(frame)
            audio = sum(frame.kind == "audio" for frame in frames)
            assert audio - 11 <= counted("dropped_audio") - before[0] <= audio - 10, "0.2 s of 20 ms each"
            assert counted("dropped_video") - before[1] == len(frames) - audio - 5

    stage.run(main())


def test_a_hole_of_a_source_is_told_counts_in_coverage_and_moves_captions(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        frames = [
            replace(frame, at=frame.at + (30.0 if frame.at >= 2.0 else 0.0), loss="missing")
            for frame in packets(tmp_path, 4.0)
        ]
        async with Playing(make(options=SessionOptions(lossless=True))) as played:
            await played.session.play(Tape(frames), None)
            events = await played.ended()
            coverage = played.session.dispatcher.report(0.0)["coverage"]
            gaps = list(played.session.timeline.gaps)
        (gap,) = [event for event in events if event["type"] == "caption.gap"]
        assert (round(gap["start"]), round(gap["end"]), gap["reason"]) == (2, 32, "missing")
        spoken = [event for event in events if event["type"] == "caption.final"]
        assert {round(event["start"]) >= 32 for event in spoken} == {False, True}
        assert not [event for event in spoken if event["start"] < 31.0 and event["end"] > 3.0]
        assert 0.05 < coverage < 0.15, "4 s of 34 s"
        assert [one.reason for one in gaps] == ["missing"]

    stage.run(main())


@pytest.mark.parametrize("joint", [False, True])
def test_an_utterance_ends_where_other_media_begin(
    stage: asyncio.Runner, tmp_path: Path, joint: bool
) -> None:
    async def main() -> None:
        frames = [replace(frame, loss="missing") for frame in packets(tmp_path, 4.0)]
        second = next(n for n, frame in enumerate(frames) if frame.kind == "audio" and frame.at >= 2.0)
        frames[second] = replace(frames[second], joint=joint)
        async with Playing(make(options=SessionOptions(lossless=True))) as played:
            await played.session.play(Tape(frames), None)
            events = await played.ended()
        stops = [event["at"] for event in events if event["type"] == "speech.stopped"]
        assert stops == ([pytest.approx(2.0, abs=0.1)] if joint else []) + [pytest.approx(4.0, abs=0.1)]
        assert "caption.gap" not in kinds(events)

    stage.run(main())


def test_what_a_full_ring_dropped_is_told_as_overload(stage: asyncio.Runner, tmp_path: Path) -> None:
    async def main() -> None:
        async with Playing(make(ingest={"audio_seconds": 0.2})) as played:
            live = played.session
            live.media.attach(Sender())
            frames = [frame for frame in packets(tmp_path, 3.0) if frame.kind == "audio"]
            for frame in frames[:50]:
                await clock.sleep(0.02)
                live.media.tap(replace(frame, arrived=clock.now()))
            for frame in frames[50:]:  # all at once
                live.media.tap(replace(frame, arrived=clock.now()))
            await clock.sleep(3.0)
            live.end("ended")
            events = await played.ended()
        (gap,) = [event for event in events if event["type"] == "caption.gap"]
        assert (round(gap["start"], 1), gap["reason"]) == (1.0, "overload")

    stage.run(main())


def test_frames_after_a_change_are_decoded_with_the_new_parameters(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        async with Playing(make()) as played:
            live = played.session
            live.media.attach(Sender())
            first, second, *rest = [frame for frame in packets(tmp_path, 1.0) if frame.kind == "audio"]
            other = MediaTrack("audio", "opus")
            live.media.tap(first)
            live.media.tap(replace(second, changed=other))
            live.media.tap(rest[0])
            assert live.media.tracks["audio"] is other
            queued = await live.speech.audio.take()
            tracks = [item[0] for item in queued if isinstance(item, tuple)]
            assert [track is other for track in tracks] == [False, True, True]

    stage.run(main())


def test_packets_lost_on_the_way_are_counted_for_each_publisher(stage: asyncio.Runner) -> None:
    async def main() -> None:
        before = metrics.rtp_lost._value.get()
        async with Playing(make()) as played:
            for lost in (100, 50, 60):
                sender = Sender()
                played.session.media.attach(sender)
                sender.lost = lost
                played.session.media.detach("left")
            assert metrics.rtp_lost._value.get() - before == 210

    stage.run(main())


def test_what_comes_in_is_counted_by_track_and_kept_when_the_publisher_leaves(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        async with Playing(make()) as played:
            live, sender = played.session, Sender()
            assert live.media.ingest() == {}
            live.media.attach(sender)
            sender.lost = 3
            frames = packets(tmp_path, 2.0)
            await send(live, frames)
            await clock.sleep(0.5)
            told = live.media.ingest()
            for kind, codec in (("audio", "opus"), ("video", "vp8")):
                sent = [frame for frame in frames if frame.kind == kind]
                assert told[kind]["codec"] == codec
                assert told[kind]["frames"] == len(sent)
                assert told[kind]["bytes"] == sum(len(frame.payload) for frame in sent)
                assert told[kind]["last_packet_age_seconds"] == pytest.approx(0.5, abs=0.1)
                assert told[kind]["kbit_per_second"] > 0
            assert (told["video"]["width"], told["video"]["height"]) == live.vision.picture_size
            assert told["audio_lost"] == 3
            live.media.publisher_state(sender, "closed", "left")
            left = live.media.ingest()
            assert left["audio"]["frames"] == told["audio"]["frames"]
            assert left["audio_lost"] == 3
            live.media.attach(Sender(OPUS))
            assert list(live.media.ingest()) == ["audio_lost", "audio"], "another publisher counts anew"

    stage.run(main())
