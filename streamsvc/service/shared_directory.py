"""The sessions of a cluster as any node finds them: by id or name, and for the list. Without their events."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from streamsvc.cluster.node import ClusterNode
from streamsvc.cluster.records import Row, SharedSession
from streamsvc.core import clock
from streamsvc.core.config import Server
from streamsvc.service import broadcast_ids
from streamsvc.service.session_addresses import addresses, frame_path

_PAGE = 100  # sessions that are looked at in one round trip
_MOST = 2000  # sessions that one page of the list looks through
_NEWEST = 60  # events of a session that its entry in the list is made of
_BROADCASTS = 50  # of a name, the newest, among which one is chosen
_LONG_AGO = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class SharedEntry:
    """A session of the cluster in the list. `newest`: its newest events; `thumbnail`: session seconds."""

    shared: SharedSession
    newest: Sequence[Row] = ()
    thumbnail: float | None = None

    @property
    def id(self) -> str:
        """Of the session."""
        return self.shared.id

    @property
    def started_utc(self) -> datetime:
        """When it began."""
        return started(self.shared)

    @property
    def state(self) -> str:
        """As of State: `stalled` too where its node has died."""
        return state_of(self.shared, self.newest)

    def overview(self, server: Server, sign: Callable[[str], str]) -> dict[str, Any]:
        """The entry, as `session_list.overview` would show it; `sign`: as of SharedResources."""
        events = [json.loads(text + "}") for _, _, _, text in self.newest]
        last = {event["type"]: event for event in events}
        meta, at = self.shared.meta, self.thumbnail
        ended, now = meta.get("ended_utc"), clock.utc()
        lasted = float(meta["seconds"]) if "seconds" in meta else (now - self.started_utc).total_seconds()
        title = next((event["title"] for event in events if event.get("title")), None)
        return {
            "id": self.id,
            "name": broadcast_ids.name_of(self.id),
            "state": self.state,
            "started_utc": clock.stamp(self.started_utc),
            "tracks": tracks_of(self.newest) or json.loads(meta.get("tracks", "[]")),
            **addresses(self.id, server),
            "title": title,
            "seconds": round(max(0.0, lasted), 1) if self.state != "created" else 0.0,
            "ended_utc": ended,
            "thumbnail_url": sign(frame_path(self.id, at)) if at is not None else None,
            "last_caption": last["caption.final"]["text"][:200] if "caption.final" in last else None,
            "error": last.get("session.closed", {}).get("error"),
        }


class SharedDirectory:
    """Finds sessions of the cluster. Every method raises ClusterUnavailable.

    Args:
        cluster: this node's part in it.
    """

    def __init__(self, cluster: ClusterNode) -> None:
        self._cluster = cluster

    async def find(self, address: str) -> SharedSession | None:
        """The session at an address, which is an id or a name; None: the cluster knows none.

        A name leads to its live or stalled broadcast, else to the newest that had media, else to the newest.
        """
        found = await self._cluster.log.look([address])
        if address in found or broadcast_ids.is_id(address):
            return found.get(address)
        named = await self._cluster.log.broadcasts(address)
        broadcasts = await self._cluster.log.look(named[:_BROADCASTS]) if named else {}
        return max(broadcasts.values(), key=standing, default=None)

    async def listed(
        self, wanted: Callable[[SharedSession], bool], count: int, before: datetime | None = None
    ) -> list[SharedEntry]:
        """The newest `count` sessions that are wanted, of those begun before a moment; None: before now."""
        found: list[SharedSession] = []
        before_ms = None if before is None else round(before.timestamp() * 1000) + 1
        for _ in range(_MOST // _PAGE):
            ids = await self._cluster.log.recent(_PAGE, before_ms)
            looked = await self._cluster.log.look(ids) if ids else {}
            found += [looked[one] for one in ids if one in looked and wanted(looked[one])]
            if len(ids) < _PAGE or len(found) >= count or not looked:
                break
            before_ms = round(min(map(started, looked.values())).timestamp() * 1000)
        return [await self._entry(shared) for shared in found[:count]]

    async def _entry(self, shared: SharedSession) -> SharedEntry:
        log = self._cluster.log
        newest = await log.read(shared.id, max(0, shared.seq - _NEWEST), _NEWEST)
        return SharedEntry(shared, newest, await log.newest_frame(shared.id))


def started(shared: SharedSession) -> datetime:
    """When a session began."""
    told = shared.meta.get("started_utc")
    return datetime.fromisoformat(told) if told else _LONG_AGO


def standing(shared: SharedSession) -> tuple[int, datetime]:
    """What is preferred among the broadcasts of one name, as `sessions` prefers among this node's."""
    had_media = shared.meta.get("tracks", "[]") != "[]"
    return (2 if not shared.ended else int(had_media)), started(shared)


def state_of(shared: SharedSession, newest: Sequence[Row]) -> str:
    """The state of a session as the newest of its events tell it; `stalled` where no node has it."""
    if shared.ended:
        return "ended"
    if shared.stalled:
        return "stalled"
    state = "created" if not shared.meta.get("tracks", "").strip("[] ") else "live"
    for _, kind, _, text in newest:
        state = state_after(
            state, kind, json.loads(text + "}").get("tracks") if kind in _WITH_TRACKS else None
        )
    return state


_WITH_TRACKS = ("session.created", "session.updated")


def state_after(state: str, kind: str, tracks: Sequence[str] | None = None) -> str:
    """The state of a session after an event; `tracks`: those that the event names."""
    match kind:
        case "session.stalled":
            return "stalled"
        case "session.resumed":
            return "live"
        case "session.closed":
            return "ended"
        case "session.created" | "session.updated" if not tracks:
            return "created"
        case "session.updated" if state == "created":
            return "live"
    return state


def tracks_of(rows: Sequence[Row]) -> list[str]:
    """The tracks that the newest of these events names; empty: none names any."""
    told = next((text for _, kind, _, text in reversed(rows) if kind in _WITH_TRACKS), None)
    return list(json.loads(told + "}")["tracks"]) if told is not None else []
