"""Viewers that send too much or read nothing: what they cost is told, and the control run frees no place."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from load_tests import fairness
from load_tests.fairness import FREE, Figures, frame, queued, run, server_in, told, verdict
from load_tests.subscriber import Came

FINE = Figures({"on": [11.0], "off": [10.0]}, {"on": [2.0], "off": [1.0]}, free=1.0)


@pytest.mark.parametrize("size", [15, 70_000])
def test_a_frame_is_one_of_a_websocket_client(size: int) -> None:
    reader = StreamReader()
    reader.feed_data(frame(b"x" * size))
    parsing = Frame.parse(reader.read_exact, mask=True)
    with pytest.raises(StopIteration) as ended:
        next(parsing)
    assert ended.value.value == Frame(Opcode.TEXT, b"x" * size)


def test_the_queue_wait_is_that_of_captions_in_the_phase() -> None:
    def came(at: float, kind: str, queue: float) -> Came:
        return Came(at, {"type": kind, "words": [{"end": 1.0}], "stages": {"queue": queue}})

    of = [
        came(1.0, "caption.final", 1.0),
        came(3.0, "caption.final", 2.0),
        came(3.5, "sight.ready", 3.0),
        came(9.0, "caption.partial", 4.0),
    ]
    assert queued(of, 1.0, 9.0) == [2.0]


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({}, ""),
        ({"queue": {"on": [15.5], "off": [10.0]}}, "the queue wait of the captions moved by 5.5 ms"),
        ({"queue": {"on": [], "off": [10.0]}}, "the queue wait of the captions moved by - ms"),
        ({"health": {"on": [51.0], "off": [1.0]}}, "/healthz took 51 ms (1 without)"),
        ({"free": FREE + 1}, "a place that a slow viewer held was not free in time"),
        ({"free": None}, "a place that a slow viewer held was not free in time"),
    ],
)
def test_each_promise_that_is_missed_is_told(change: dict[str, object], wrong: str) -> None:
    assert verdict(replace(FINE, **change)) == ([wrong] if wrong else [])  # type: ignore[arg-type]
    assert "queue wait p50 11.0" in told(FINE)


@pytest.mark.load
@pytest.mark.parametrize("sabotage", [False, True])
async def test_a_slow_viewers_place_is_free_again_unless_it_has_no_limit(
    sabotage: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sabotage:
        monkeypatch.setattr(fairness, "FREE", 1.0)  # it is waited for in vain
    server = server_in(tmp_path, 2.0, sabotage=sabotage)
    await asyncio.to_thread(server.start, models=False)
    try:
        found = await run(server, None, phases=2, seconds=1.0, slow_seconds=2.0, events=1500)
    finally:
        await asyncio.to_thread(server.kill)
    assert found.visits["large"] and found.visits["pinging"] and found.visits["staring"] >= 62
    assert (found.free is None) is sabotage
    assert found.health["on"] and found.health["off"]
