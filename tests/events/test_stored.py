"""A folder says what its session was, also where the process was killed; its log then ends with the end."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest

from streamsvc.core.config import Limits
from streamsvc.core.errors import CapacityError
from streamsvc.core.session_clock import SessionClock
from streamsvc.events import schema
from streamsvc.events.log import EventLog
from streamsvc.events.store import Store
from streamsvc.events.stored import look

CAPTION = {"text": "hallo", "words": [], "start": 3.0, "end": 4.5, "language": "en"}
SCREEN = {"of": "e.1", "lines": [], "first_seen": 1.0}


async def written(folder: Path) -> EventLog:
    """A log as a killed process leaves it."""
    store = Store(folder, events=1000, frames=10)
    log = EventLog(folder.name, SessionClock(), Limits(), store)
    log.emit("session.created", {"started_utc": "2026-11-29T10:00:00.000Z", "tracks": []})
    log.emit("session.updated", {"started_utc": "2026-11-29T10:00:00.000Z", "tracks": ["audio", "video"]})
    for title in (None, "", "Budget", "Outlook"):
        log.emit("screen.text", {**SCREEN, "title": title}, at=1.0)
    log.emit("caption.final", CAPTION, at=3.0)
    store.put_frame(2.5, b"jpeg")
    store.rest()
    return log


async def test_a_session_that_was_cut_off_is_closed_as_interrupted_once(tmp_path: Path) -> None:
    log = await written(tmp_path / "talk")
    for file in (tmp_path / "talk").iterdir():
        os.utime(file, (1_795_000_000, 1_795_000_000))
    found = look(tmp_path / "talk")
    assert (found.id, found.epoch, found.seq) == ("talk", log.epoch, 8)
    assert found.started_utc == datetime(2026, 11, 29, 10, tzinfo=UTC)
    assert found.ended_utc == datetime.fromtimestamp(1_795_000_000, UTC)
    assert (found.seconds, found.tracks, found.title) == (4.5, ("audio", "video"), "Budget")
    assert (found.last_caption, found.thumbnail, found.error) == ("hallo", 2.5, None)
    store = Store(tmp_path / "talk", events=1000, frames=10)
    *_, last = store.read(0, 99, 99)
    store.close(purge=False)
    event = json.loads(last[3] + ',"prev":7}')
    jsonschema.validate(event, schema.document())
    assert (event["type"], event["reason"], event["seq"]) == ("session.closed", "interrupted", 8)
    assert (event["epoch"], event["at"]) == (log.epoch, 4.5)
    assert look(tmp_path / "talk") == found, "a second look changes nothing, its end least of all"


async def test_a_session_that_has_ended_is_as_it_said_itself(tmp_path: Path) -> None:
    log = await written(tmp_path / "talk")
    error = {"type": "source_error", "code": "gone", "message": "it broke off", "retryable": True}
    log.emit("session.closed", {"reason": "source_failed", "error": error})
    log.emit("answer.done", {"question_id": "q", "text": "Yes.", "supported": True, "evidence": []})
    log._store.put_meta(ended_utc="2026-11-29T10:05:00.000Z", seconds="300.25")
    log._store.close(purge=False)
    found = look(tmp_path / "talk")
    assert (found.seq, found.seconds, found.error) == (9, 300.25, error)
    assert found.ended_utc == datetime(2026, 11, 29, 10, 5, tzinfo=UTC)


async def test_a_session_without_an_event_is_one_and_a_broken_file_is_none(tmp_path: Path) -> None:
    Store(tmp_path / "empty", events=10, frames=10).close(purge=False)
    found = look(tmp_path / "empty")
    assert (found.seq, found.seconds, found.title) == (1, 0.0, None)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "session.db").write_bytes(b"no database " * 100)
    with pytest.raises(CapacityError, match="cannot be written"):
        look(tmp_path / "broken")
