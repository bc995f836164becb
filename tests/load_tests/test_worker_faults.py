"""Faults of workers: what is told late, never, or not at all is wrong; one kill is seen from outside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from load_tests import worker_faults
from load_tests.worker_faults import WORKERS, Fault, Plan, questions_of, run, table, verdict

SPEECH = Path(__file__).parents[1] / "fixtures" / "canary.ogg"
FINE = Fault("hear", "kill", told=0.5, unready=0.4, captions=2.0, back=2.0, alive=True)
ALL = [replace(FINE, worker=worker) for worker in (*WORKERS, "none")]


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({}, ""),
        ({"told": 1.2}, "kill of hear: told after 1.20 s"),
        ({"told": None}, "kill of hear: told after never"),
        ({"captions": 3.5}, "kill of hear: captions after 3.50 s"),
        ({"unready": None}, "kill of hear: /readyz did not tell it"),
        ({"alive": False}, "kill of hear: the session has ended"),
    ],
)
def test_each_promise_that_is_missed_is_told(change: dict[str, object], wrong: str) -> None:
    fault = replace(FINE, **change)  # type: ignore[arg-type]
    assert verdict([*ALL, fault], (5, True), spare=True) == ([wrong] if wrong else [])


def test_captions_may_come_later_without_a_spare() -> None:
    assert verdict([*ALL, replace(FINE, captions=14.0)], (5, True), spare=False) == []


def test_a_crash_loop_and_a_worker_that_was_never_tried_are_told() -> None:
    assert verdict(ALL, (6, False), spare=True) == [
        "6 starts in the first minute of a crash loop",
        "the worker did not come back after a crash loop, or the session has ended",
    ]
    assert verdict(ALL[1:], (5, True), spare=True) == ["hear was never started, so it had no faults"]
    assert "| 0.50 / 0.50 |" in table(ALL).replace("  ", " ")


def test_a_recording_without_questions_is_asked_one_that_fits_every_recording(tmp_path: Path) -> None:
    assert len(questions_of(tmp_path / "a.ogg")) == 1


@pytest.mark.models
@pytest.mark.load
@pytest.mark.timeout(300)  # models load, also where the machine is busy
async def test_a_kill_of_hear_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_faults, "PATIENCE", 20.0)  # for what comes late where the machine is busy
    plan = Plan(kinds=("kill",), every=0.0, spare=False, workers=("hear",), loop_seconds=0.0)
    faults, _ = await run(tmp_path, SPEECH, plan)
    kill = faults[0]
    assert (kill.worker, kill.kind, kill.alive) == ("hear", "kill", True)
    assert None not in (kill.told, kill.unready)
