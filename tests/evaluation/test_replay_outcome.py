"""Events are compared without ages, ids and addresses, and with everything else."""

from __future__ import annotations

from typing import Any

import pytest

from streamsvc.evaluation.replay_outcome import Outcome, compare


def caption(**changes: Any) -> dict[str, Any]:
    head = {"v": 1, "type": "caption.final", "session": "s", "track": "main", "epoch": "ab12", "id": "ab12.3"}
    body = {"at": 1.0, "age_ms": 400.0, "stages": {"asr": 1.0}, "seq": 3, "text": "la", "words": []}
    return head | body | changes


def compared(recorded: dict[str, Any], replayed: dict[str, Any]) -> str:
    outcome = Outcome([replayed], [recorded])
    compare(outcome, closed_captions_only=False)
    return outcome.first


@pytest.mark.parametrize(
    ("recorded", "replayed"),
    [
        (caption(), caption(age_ms=1.0, stages={}, epoch="cd34", id="cd34.7", seq=7)),
        (caption(of="ab12.2"), caption(epoch="cd34", of="cd34.2")),
        (caption(url="/v1/sessions/s/frames/1.jpg?sig=x"), caption(url="/v1/sessions/s/frames/1.jpg")),
        (caption(link="/v1/sessions/s?sig=x"), caption(link="/v1/sessions/s")),
        (caption(age_ms=0.0, at=1.0), caption(age_ms=0.0, at=1.2)),
        (caption(watch_id="w_1", started_utc="a"), caption(watch_id="w_2", started_utc="b")),
    ],
)
def test_ages_ids_and_addresses_do_not_count(recorded: dict[str, Any], replayed: dict[str, Any]) -> None:
    assert compared(recorded, replayed) == ""


@pytest.mark.parametrize(
    ("change", "named"),
    [({"text": "lo"}, "text"), ({"at": 1.001}, "at"), ({"type": "caption.gap"}, "type"), ({"of": "x"}, "of")],
)
def test_everything_else_counts_and_is_named_without_its_content(change: dict[str, Any], named: str) -> None:
    assert compared(caption(), caption(**change)) == f"event 1, caption.final at 1.000 s: {named} differs"


def test_events_that_are_missing_or_too_many_count() -> None:
    for recorded, replayed in (([caption()] * 2, [caption()]), ([caption()], [caption()] * 2)):
        outcome = Outcome(replayed, recorded)
        compare(outcome, closed_captions_only=False)
        assert outcome.first == f"{len(replayed)} events, {len(recorded)} recorded"
        assert outcome.line().startswith("diverged: ")


def test_a_recording_that_was_cut_may_lack_the_last_events() -> None:
    outcome = Outcome([caption()] * 2, [caption()], cut="limit")
    compare(outcome, closed_captions_only=False)
    assert outcome.line() == "equal: 2 events, 1 recorded, until the recording ends early (limit)"


def test_events_of_the_machine_do_not_count() -> None:
    outcome = Outcome([caption()], [caption(type="latency.report"), caption()])
    compare(outcome, closed_captions_only=False)
    assert outcome.first == ""
