"""Abuse of serve: who is answered what, and the control run without limits misses the promises."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from load_tests import abuse
from load_tests.abuse import Attack, Figures, measure, server_in, told, verdict

FINE = Figures(
    Counter(
        {
            "huge body: 401": 3,
            "wrong key: 401": 30,
            "wrong key: 429": 5,
            "slow header: closed": 2,
            "nothing: closed": 2,
            "huge body, right key: 413": 1,
            "half a body, right key: 400": 1,
        }
    ),
    Counter({"200": 9}),
    quiet=[1.0] * 9,
    abused=[2.0] * 9,
    growth=1.0,
    opened=20,
)


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({}, ""),
        ({"growth": 6.0}, "memory grew by 6.0 MB"),
        ({"abused": [2.0, 51.0]}, "/healthz took 51 ms during abuse"),
        ({"quiet": [2.5] * 3}, "/healthz took 2.50 ms in quiet"),
        ({"holder": Counter({"200": 9, "429": 1})}, "the right key was refused: {'429': 1}"),
        ({"holder": Counter()}, "the right key was never answered"),
        ({"ended": FINE.ended + Counter({"huge body: 413": 1})}, "huge body: 413, which is none of"),
        ({"ended": FINE.ended - Counter({"wrong key: 429": 5})}, "no wrong key: 429"),
        ({"left": 1}, "1 of 20 half-open sockets are left"),
    ],
)
def test_each_promise_that_is_missed_is_told(change: dict[str, object], wrong: str) -> None:
    said = verdict(replace(FINE, **change))  # type: ignore[arg-type]
    assert [line.startswith(wrong) for line in said] == ([True] if wrong else [])
    assert "half-open: 20 opened" in told(FINE)


@pytest.mark.load
@pytest.mark.parametrize("sabotage", [False, True])
async def test_abusers_are_refused_unless_there_are_no_limits(
    sabotage: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(abuse, "BODY_SECONDS", 1.0)
    server = server_in(tmp_path, 1.0, sabotage=sabotage)
    await asyncio.to_thread(server.start, models=False)
    try:
        attack = Attack(server.port, abusers=8, seconds=1.0, body=400_000)
        found = await measure(server, attack, turns=1, sockets=20, header_seconds=-2.5 if sabotage else 1.0)
    finally:
        await asyncio.to_thread(server.kill)
    # Times and memory are those of a machine that does other things, and so is what came in the time.
    said = verdict(replace(found, growth=0.0, quiet=[1.0], abused=[1.0]))
    wrong = [line for line in said if not line.startswith("no ")]
    if sabotage:
        assert "20 of 20 half-open sockets are left" in wrong
        assert "no wrong key: 429" in said
    else:
        assert wrong == []
    assert sum(found.ended.values()) and found.holder["200"]
