"""Counts from hand-made raw logs that contain each fault once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from load_tests.cluster_counts import Counts, Line, Return, count, degraded_told, read, returns, zero_of

S = "a.1"


def event(seq: int, kind: str = "session.updated", epoch: str = "e", **body: Any) -> dict[str, Any]:
    return {"type": kind, "session": S, "epoch": epoch, "seq": seq, "at": float(seq), "prev": seq - 1, **body}


def got(*events: dict[str, Any], t: float = 100.0) -> list[Line]:
    """The log of a subscriber that had these, a second after the other."""
    return [
        {"t": t + n, "kind": "event", "session": S, "node": 0, "event": one} for n, one in enumerate(events)
    ]


def gap(reason: str, epoch: str = "e") -> dict[str, Any]:
    return {"type": "log.gap", "session": S, "epoch": epoch, "after": 0, "at": 0.0, "reason": reason}


def counted(*events: dict[str, Any], held: tuple[dict[str, Any], ...] | None = None) -> Counts:
    return count({"one": got(*events)}, {"reader": got(*(held if held is not None else events))})


def faults(found: Counts) -> dict[str, int]:
    """The counts that are not 0, but those of what was received."""
    names = set(Counts.__dataclass_fields__) - {"events", "distinct", "examples"}
    return {name: getattr(found, name) for name in sorted(names) if getattr(found, name)}


def test_what_came_once_and_in_order_and_is_still_there_has_no_fault() -> None:
    found = counted(event(1), event(2), event(3))
    assert (found.events, found.distinct, faults(found), found.examples) == (3, 3, {}, [])


def test_prev_may_differ_between_subscribers_and_other_contents_are_changed() -> None:
    one, other = event(1, text="a"), event(1, text="b")
    assert faults(counted(one, held=(one | {"prev": 7},))) == {}
    assert faults(counted(one, held=(other,))) == {"changed": 1}
    assert faults(count({"one": got(one), "two": got(other)}, {"reader": got(one)})) == {"changed": 1}


def test_an_event_that_one_reader_does_not_get_is_lost() -> None:
    seen = {"one": got(event(1), event(2)), "two": got(event(1))}
    found = count(seen, {"a": got(event(1), event(2)), "b": got(event(1))})
    assert faults(found) == {"lost": 1}
    assert found.examples == ["lost: a.1 e.2 session.updated"]
    assert faults(count(seen, {"a": []})) == {"lost": 2}


def test_an_event_that_the_shared_log_does_not_hold_is_told_apart() -> None:
    lines = {"one": got(event(1), event(2))}
    assert faults(count(lines, lines, [(S, "e", 1)])) == {"lost_shared": 1}
    assert faults(count(lines, lines, [(S, "e", 1), (S, "e", 2)])) == {}


def test_what_was_lost_counts_apart_where_a_new_epoch_was_told_from_whose_gap_all_comes_again() -> None:
    old, lost, new = event(1), event(2), event(2, epoch="f")
    told = (old, lost, gap("new_epoch", "f"), old, new, event(3, epoch="f"))
    held = (old, new, told[-1])
    assert faults(counted(*told, held=held)) == {"epochs": 1, "lost_told": 1}
    untold = counted(old, lost, new, told[-1], held=held)
    assert faults(untold) == {"out_of_order": 1, "lost": 1}
    again = counted(*told[:3], old, old, new, held=held)
    assert faults(again) == {"epochs": 1, "lost_told": 1, "repeated": 1}


def test_an_event_that_comes_twice_to_one_subscriber_is_repeated() -> None:
    assert faults(counted(event(1), event(2), event(1))) == {"repeated": 1}
    assert faults(counted(event(1), event(1))) == {"repeated": 1}
    both = {"one": got(event(1)), "two": got(event(1))}
    assert faults(count(both, both)) == {}


def test_a_caption_that_comes_again_under_another_seq_is_repeated() -> None:
    cue: dict[str, Any] = {"start": 1.0, "end": 2.0, "text": "w1 w2"}
    again = (event(1, "caption.final", **cue), event(2, "caption.final", **cue))
    assert faults(counted(*again)) == {"repeated": 1}
    assert faults(counted(again[0], event(2, "caption.final", **cue | {"end": 3.0}))) == {}


def test_an_event_after_a_later_one_is_out_of_order_and_the_later_one_told_what_was_missing() -> None:
    assert faults(counted(event(1), event(3), event(2))) == {"missing": 1, "out_of_order": 1}


def test_what_a_subscriber_never_got_is_missing_unless_a_gap_was_told() -> None:
    assert faults(counted(event(1), event(4))) == {"missing": 2}
    assert faults(counted(event(2))) == {"missing": 1}
    assert faults(counted(event(1), gap("trimmed"), event(4))) == {}
    # A gap excuses the next event alone.
    assert faults(counted(event(1), gap("trimmed"), event(2), event(4))) == {"missing": 1}


# --- returns ------------------------------------------------------------------------------------------------


def caption(end: float, text: str = "w1") -> dict[str, Any]:
    return {
        "type": "caption.partial",
        "session": S,
        "epoch": "e",
        "after": 3,
        "at": end,
        "end": end,
        "text": text,
    }


def accepted(t: float, asked: float, session: str = S) -> Line:
    return {"t": t, "kind": "accepted", "name": "n", "node": 1, "session": session, "asked": asked}


def came(t: float, one: dict[str, Any]) -> Line:
    return {"t": t, "kind": "event", "session": S, "node": 0, "event": one}


# Session second 0 is at 100; the publisher is gone at 110, asks again at 112 and is taken at 113.
BEFORE = [came(101.0, event(1, at=1.0)), came(109.2, caption(9.0))]
PUBLISHED = [
    accepted(100.5, 100.0),
    {"t": 110.0, "kind": "gone", "name": "n", "node": 0},
    accepted(113.0, 112.0),
]


def test_captions_are_again_there_with_what_was_said_since() -> None:
    # A late caption of before comes first, and does not count.
    after = [came(113.1, event(2, at=13.0)), came(113.4, caption(9.5)), came(115.0, caption(14.0))]
    (found,) = returns(PUBLISHED, {"one": BEFORE, "two": after})
    assert found.jump == pytest.approx(0.1)
    assert replace(found, jump=None) == Return("n", S, True, 112.0, 1.0, 3.0, None)


def test_without_a_caption_or_with_another_session_the_return_says_so() -> None:
    (found,) = returns(PUBLISHED, {"one": [*BEFORE, came(113.4, caption(9.5))]})
    assert (found.captions, found.same) == (None, True)
    (other,) = returns([PUBLISHED[0], accepted(113.0, 112.0, "a.2")], {"one": BEFORE})
    assert (other.captions, other.same, other.jump) == (None, False, None)
    assert returns(PUBLISHED[:1], {"one": BEFORE}) == []


def test_a_clock_that_jumps_is_told() -> None:
    (found,) = returns(PUBLISHED, {"one": [*BEFORE, came(113.1, event(2, at=3.0))]})
    assert found.jump == pytest.approx(10.1)
    assert zero_of(BEFORE, S, 0.0, 105.0) == pytest.approx(100.0)


def test_an_outage_counts_as_told_where_each_session_had_the_event_in_its_time() -> None:
    told = event(5, "session.degraded", at=20.0, reason="failover is off: Redis does not answer")
    other = told | {"reason": "a worker does not answer"}
    outage = {"t": 119.0, "until": 125.0, "kind": "redis", "sessions": [S]}
    readers = {"a": got(event(1), told)}
    assert degraded_told([outage], readers, {S: 100.0}) == (1, 1)
    assert degraded_told([outage], {"a": got(event(1))}, {S: 100.0}) == (0, 1)
    assert degraded_told([outage], {"a": got(other)}, {S: 100.0}) == (0, 1)
    assert degraded_told([outage | {"t": 140.0, "until": 150.0}], readers, {S: 100.0}) == (0, 1)
    assert degraded_told([{"t": 1.0, "kind": "node"}], readers, {S: 100.0}) == (0, 0)


def test_a_half_written_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert read(path) == []
    path.write_text('{"t": 1.0, "kind": "open"}\n{"t": 2.0, "ki')
    assert read(path) == [{"t": 1.0, "kind": "open"}]
