"""What nodes tell each other through Redis."""

from __future__ import annotations

import json

import pytest

from streamsvc.cluster.records import NodeRecord, Owner, SharedSession

RECORD = NodeRecord("one", "http://10.0.0.5:8080", "abcd", "k", "0.1", {"audio": 2}, 1, 4, 2, True)


def test_a_record_is_read_as_it_was_written() -> None:
    assert NodeRecord.from_json(RECORD.to_json()) == RECORD


def test_fields_of_a_later_version_are_left_out() -> None:
    later = json.loads(RECORD.to_json()) | {"colour": "red"}
    assert NodeRecord.from_json(json.dumps(later)) == RECORD


@pytest.mark.parametrize("text", ["", "{", "[]", '"name"', "{}"])
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        NodeRecord.from_json(text)


def test_an_owner_is_read_as_it_was_written() -> None:
    owner = Owner("node:with-colon", 1764583200123)
    assert Owner.parse(str(owner).encode()) == owner
    assert Owner.parse(None) is None
    assert Owner.parse(b"") is None


def test_a_session_without_a_lease_is_stalled_until_it_has_ended() -> None:
    assert SharedSession("a", None, {"started_utc": "x"}, 3).stalled
    assert not SharedSession("a", Owner("one", 1), {"started_utc": "x"}, 3).stalled
    ended = SharedSession("a", None, {"ended_utc": "x"}, 3)
    assert ended.ended
    assert not ended.stalled
