"""Kills of serve: what was seen is compared with what is stored, and the control run loses events."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from load_tests.crash import SHORTEST, Kill, compared, run, server_in, told, verdict

EVENT: dict[str, Any] = {"seq": 1, "type": "session.created"}


def test_an_event_that_is_gone_is_lost_and_one_with_other_words_is_changed() -> None:
    seen: dict[int, dict[str, Any]] = {1: EVENT, 2: {"seq": 2}, 3: {"seq": 3, "text": "a"}}
    assert compared(seen, {1: EVENT, 3: {"seq": 3, "text": "b"}, 4: {"seq": 4}}) == (1, 1)


def test_what_was_lost_changed_unreadable_or_never_seen_is_wrong() -> None:
    fine = Kill(1.0, 2, seen=5, answers=3.0, ready=6.0)
    assert verdict([fine]) == []
    assert told([fine]).endswith("5 events seen, 0 lost, 0 changed; restart to the first answer 3.0 s, "
                                 "to ready 6.0 s (median)")  # fmt: skip
    assert verdict([fine, Kill(1.0, 2, seen=5, lost=2)]) == ["2 events that were seen are lost"]
    assert verdict([Kill(1.0, 2, seen=5, changed=1)]) == ["1 events that were seen are changed"]
    assert verdict([Kill(1.0, 2, seen=5, failed=["a cannot be erased"])]) == ["a cannot be erased"]
    assert verdict([Kill(1.0, 2)]) == ["no event was seen"]


@pytest.mark.load
@pytest.mark.parametrize("sabotage", [False, True])
def test_nothing_seen_is_lost_by_a_kill_unless_it_is_shown_before_it_is_stored(
    sabotage: bool, tmp_path: Path
) -> None:
    # Before the first tick, at which a log that stores late would write.
    server = server_in(tmp_path, sabotage=sabotage)
    kills = asyncio.run(run(server, kills=1, longest=SHORTEST, wait_ready=False))
    assert kills[0].failed == []
    assert kills[0].seen > 4
    assert (kills[0].lost > 0) is sabotage
