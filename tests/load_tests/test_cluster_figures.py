"""Figures of a folder of raw logs, and what is wrong with each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from load_tests.cluster_figures import Figures, counted, table, verdict

FINE = Figures(
    events=9,
    captions_again_s=4.0,
    captions_again_p50_s=2.0,
    captions_again_p95_s=3.5,
    stalled_s=4.5,
    jump_s=0.1,
    degraded_told=(3, 3),
    readyz_told=(1, 1),
    returns=2,
)


def event(seq: int, at: float) -> dict[str, Any]:
    return {"type": "speech.started", "session": "a.1", "epoch": "e", "seq": seq, "at": at, "prev": seq - 1}


def line(t: float, **more: Any) -> str:
    return json.dumps({"t": t, "kind": "event", "session": "a.1", "node": 0, **more})


def test_a_folder_of_raw_logs_is_counted(tmp_path: Path) -> None:
    caption = {"type": "caption.partial", "session": "a.1", "epoch": "e", "after": 2, "at": 14.0, "end": 14.5}
    seen = [line(101.0, event=event(1, 1.0)), line(113.1, event=event(2, 13.0)), line(115.0, event=caption)]
    (tmp_path / "subscriber0.jsonl").write_text("\n".join(seen))
    (tmp_path / "subscriber1.jsonl").write_text("\n".join(seen[:1]))
    (tmp_path / "reader0.jsonl").write_text("\n".join(seen[:1]))  # the second is lost
    (tmp_path / "shared.json").write_text('[["a.1", "e", 1]]')
    accepted = {"kind": "accepted", "name": "n", "node": 0}
    (tmp_path / "publishers.jsonl").write_text(
        "\n".join(
            [
                line(100.5, **accepted, asked=100.0),
                line(112.1, kind="redirected", name="n"),
                line(113.0, **accepted, asked=112.0),
            ]
        )
    )
    (tmp_path / "faults.jsonl").write_text(line(110.0, kind="node", until=120.0))
    found = counted(tmp_path)
    assert (found.events, found.distinct, found.lost, found.lost_shared) == (3, 2, 1, 1)
    assert (found.returns, found.redirects, found.captions_never, found.other_sessions) == (1, 1, 0, 0)
    assert (found.captions_again_s, found.accepted_s) == (3.0, 1.0)
    assert found.jump_s == pytest.approx(0.1)
    assert found.killed == {"node": 1}
    assert verdict(found) == ["1 events are lost"]
    assert "lost: a.1 e.2 speech.started" in table(found)


def test_without_raw_logs_nothing_was_seen(tmp_path: Path) -> None:
    assert verdict(counted(tmp_path)) == ["no event was seen"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"lost": 2}, "2 events are lost"),
        ({"repeated": 1}, "1 events are repeated"),
        ({"out_of_order": 1}, "1 events are out of order"),
        ({"missing": 1}, "1 events are missing at a subscriber that had later ones"),
        ({"changed": 1}, "1 events are changed"),
        ({"captions_never": 1}, "1 publishers came again and had no captions"),
        ({"captions_again_s": 5.1}, "captions came again after 5.1 s"),
        ({"stalled_s": 5.2}, "a dead node's session was told as stalled after 5.2 s"),
        ({"jump_s": 0.7}, "session time jumped by 0.7 s"),
        ({"other_sessions": 1}, "1 publishers came again and began another session"),
        ({"degraded_told": (2, 3)}, "session.degraded told 2 of 3 outages of Redis"),
        ({"readyz_told": (0, 1)}, "/readyz told 0 of 1 outages of Redis"),
        ({"failed": ["n1 was not ready"]}, "n1 was not ready"),
    ],
)
def test_each_promise_that_was_missed_is_told(change: dict[str, Any], told: str) -> None:
    assert verdict(FINE) == []
    assert verdict(replace(FINE, **change)) == [told]


def test_what_was_lost_with_an_epoch_that_was_told_is_no_broken_promise() -> None:
    assert verdict(replace(FINE, lost_told=3, lost_shared=3)) == []
