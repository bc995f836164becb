"""What a session's folder says of the session, after the process that it lived in has ended.

A session that was cut off has no `session.closed`: it gets one here, so that every log ends with the end.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from streamsvc.core import clock
from streamsvc.events.log import closed_row
from streamsvc.events.store import Store

INTERRUPTED = "interrupted"  # reason of a session that ended with its process


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session on disk, in as much as the list of sessions shows it.

    `seconds`: its length. `thumbnail`: session seconds of the newest one. `error`: as in `session.closed`.
    `epoch`, `seq`: of its log. `stats`: its figures at the end; None: it was cut off.
    """

    id: str
    folder: Path
    epoch: str
    seq: int
    started_utc: datetime
    ended_utc: datetime
    seconds: float
    tracks: tuple[str, ...] = ()
    title: str | None = None
    last_caption: str | None = None
    thumbnail: float | None = None
    error: Mapping[str, Any] | None = None
    stats: Mapping[str, Any] | None = None


def look(folder: Path) -> StoredSession:
    """Read what is known of an ended session, and close its log if nobody has.

    Raises:
        FAILURES, CapacityError, ValueError, KeyError: the folder holds no log that can be read.
    """
    changed = last_change(folder)  # before it is opened: that changes files
    store = Store(folder, events=1 << 40, frames=1 << 40)
    try:
        return _seen(store, folder, changed)
    finally:
        store.close(purge=False)


def last_change(folder: Path) -> datetime:
    """When a session's files were last written, in UTC."""
    times = [file.stat().st_mtime for file in folder.iterdir()]
    return datetime.fromtimestamp(max(times, default=folder.stat().st_mtime), UTC)


def _seen(store: Store, folder: Path, changed: datetime) -> StoredSession:
    found = described(store, folder, changed)
    if "ended_utc" in store.meta():
        return found
    if store.newest("session.closed") is None:
        store.append([closed_row(folder.name, found.epoch, found.seq + 1, found.seconds, INTERRUPTED)])
    store.put_meta(ended_utc=clock.stamp(found.ended_utc), seconds=str(found.seconds))
    return described(store, folder, changed)


def described(store: Store, folder: Path, changed: datetime) -> StoredSession:
    """What a store tells of a session in this folder that has ended, or would have at `changed`.

    Raises:
        As `look`.
    """
    meta = store.meta()
    newest = store.newest()
    seq = newest[0] if newest else 0
    epoch = meta.get("epoch") or (_read(newest[1])["epoch"] if newest else secrets.token_hex(4))
    created = _newest(store, "session.created")
    started = meta.get("started_utc") or created.get("started_utc")
    seconds = float(meta["seconds"]) if "seconds" in meta else _length(store)
    ended = datetime.fromisoformat(meta["ended_utc"]) if "ended_utc" in meta else changed
    told = _newest(store, "session.created", "session.updated")
    title = store.first_title()
    return StoredSession(
        folder.name,
        folder,
        epoch,
        seq,
        datetime.fromisoformat(started) if started else changed,
        ended,
        seconds,
        tuple(told.get("tracks", ())),
        _read(title)["title"] if title else None,
        _newest(store, "caption.final").get("text"),
        store.newest_frame(),
        _newest(store, "session.closed").get("error"),
        json.loads(meta["stats"]) if "stats" in meta else None,
    )


def _length(store: Store) -> float:
    """Session seconds of the newest thing that was heard or seen."""
    kinds = ("caption.final", "caption.gap", "keyframe.sampled", "speech.stopped", "speech.started")
    event = _newest(store, *kinds)
    return max(0.0, float(event.get("end", 0.0)), float(event.get("at", 0.0)))


def _newest(store: Store, *kinds: str) -> dict[str, Any]:
    found = store.newest(*kinds)
    return _read(found[1]) if found else {}


def _read(text: str) -> dict[str, Any]:
    """An event as the store has it: its JSON without the closing brace."""
    event: dict[str, Any] = json.loads(text + "}")
    return event
