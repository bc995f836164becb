"""What the raw logs of `load_tests.cluster` say: events lost, repeated, out of order, captions again.

Pure: lines of JSON in, counts out. A line has `t` (monotonic seconds, which all processes of a machine
share) and `kind`. Of a subscriber: `open` (session, node, epoch, after), `event` (session, node, event) and
`closed` (session, node, why). Of publishers: `asked`, `refused`, `redirected`, `accepted` and `gone` (name,
node; accepted: session, asked). Of the faults: `node`, `socket` and `redis`, with `until` where it ended.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CLOCK_SLACK = 0.5  # seconds by which session seconds may differ between two machines' reckoning
TOLD_SLACK = 3.0  # seconds after Redis is back within which its outage may still be told
Line = dict[str, Any]
Event = dict[str, Any]
Key = tuple[str, str, int]  # session, epoch, seq
Logs = Mapping[str, Sequence[Line]]  # of each subscriber, or reader


@dataclass(slots=True)
class Counts:
    """What subscribers have received, compared with what the cluster still has.

    Attributes:
        events: durable ones received, by all subscribers together.
        distinct: of them.
        lost: distinct ones that some subscriber saw and some reader at the end did not get.
        lost_told: likewise, but their epoch is over and a new one was told: Redis and a node were both away.
        lost_shared: distinct ones that the shared log does not hold at the end.
        repeated: received again by the same subscriber, by seq, or the same caption under another seq.
        out_of_order: whose seq is not above the last one of its epoch at this subscriber, and is new to it.
        missing: never received by a subscriber though later ones were, without an event that says so.
        changed: with other contents than another subscriber, or a reader, received under the same seq.
        epochs: new ones that subscribers were told of by `log.gap`, after which all comes from the beginning.
    """

    events: int = 0
    distinct: int = 0
    lost: int = 0
    lost_told: int = 0
    lost_shared: int = 0
    repeated: int = 0
    out_of_order: int = 0
    missing: int = 0
    changed: int = 0
    epochs: int = 0
    examples: list[str] = field(default_factory=list)  # of what is wrong: kind, session, epoch, seq, type

    def wrong(self, kind: str, key: Key, event: Event | None = None) -> None:
        """Keep some examples: seq and type, never what was said."""
        if len(self.examples) < 50:
            self.examples.append(
                f"{kind}: {key[0]} {key[1]}.{key[2]} {(event or {}).get('type', '')}".strip()
            )


@dataclass(frozen=True, slots=True)
class Return:
    """A publisher that came again. Seconds count from `asked`, its first offer since it was gone.

    Attributes:
        session: that it went on with; `same`: which is the one it had before.
        accepted: seconds until its offer was taken.
        captions: seconds until a subscriber had a caption of what was said since; None: none came.
        jump: seconds by which session time jumped; None: not known.
    """

    name: str
    session: str
    same: bool
    asked: float
    accepted: float
    captions: float | None
    jump: float | None


def read(path: Path) -> list[Line]:
    """The lines of a raw log; the last one may be half written."""
    lines: list[Line] = []
    if not path.exists():
        return lines
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def durable(lines: Iterable[Line]) -> Iterator[tuple[Key, Event]]:
    """The durable events of a log, in its order, without `prev`, which depends on the subscriber."""
    for line in lines:
        event = line.get("event")
        if line["kind"] == "event" and event is not None and "seq" in event:
            plain = {name: value for name, value in event.items() if name != "prev"}
            yield (event["session"], event["epoch"], event["seq"]), plain


def count(subscribers: Logs, readers: Logs, shared: Iterable[Key] | None = None) -> Counts:
    """Compare what subscribers have received with what readers get at the end.

    Args:
        subscribers: the raw log of each.
        readers: the same of those that read every session from its beginning at the end, one at each node.
        shared: what the shared log holds; None: it was not read.
    """
    found = Counts()
    seen: dict[Key, Event] = {}
    told: set[str] = set()  # sessions of which a new epoch was told
    for lines in subscribers.values():
        _follow(lines, found, seen, told)
    found.distinct = len(seen)
    held = {name: dict(durable(lines)) for name, lines in readers.items()}
    latest = {session: epoch for session, epoch, _ in seen}
    for key, event in seen.items():
        if any(key not in of for of in held.values()):
            over = key[1] != latest[key[0]] and key[0] in told
            found.lost_told += over
            found.lost += not over
            found.wrong("lost_told" if over else "lost", key, event)
        if any(of.get(key, event) != event for of in held.values()):
            found.changed += 1
            found.wrong("changed", key, event)
    if shared is not None:
        kept = set(shared)
        found.lost_shared = sum(key not in kept for key in seen)
    return found


class _Follower:
    """One subscriber's place in one session, as its raw log tells it."""

    def __init__(self) -> None:
        self.reached = 0  # seq
        self.had: set[Key] = set()
        self.captions: set[tuple[float, float, str]] = set()
        self.excused = False  # a gap was told: the next event may be a later one

    def gap(self, reason: str) -> None:
        """Take a `log.gap`; after a new epoch everything comes from the beginning."""
        if reason == "new_epoch":
            self.reached = 0
            self.had.clear()
            self.captions.clear()
        self.excused = True

    def take(self, key: Key, event: Event, found: Counts) -> None:
        """Compare a durable event's place with those before it."""
        seq = key[2]
        if key in self.had:
            found.repeated += 1
            found.wrong("repeated", key, event)
        elif seq <= self.reached:
            found.out_of_order += 1
            found.wrong("out of order", key, event)
        else:
            if seq > self.reached + 1 and not self.excused:
                found.missing += seq - self.reached - 1
                found.wrong("missing before", key, event)
            self._caption(key, event, found)
        self.excused = False
        self.had.add(key)
        self.reached = max(self.reached, seq)

    def _caption(self, key: Key, event: Event, found: Counts) -> None:
        if event["type"] == "caption.final":
            cue = (event["start"], event["end"], event["text"])
            if cue in self.captions:
                found.repeated += 1
                found.wrong("repeated caption", key)
            self.captions.add(cue)


def _follow(lines: Sequence[Line], found: Counts, seen: dict[Key, Event], told: set[str]) -> None:
    """Count one subscriber's faults, and add what it saw."""
    followers: dict[str, _Follower] = {}
    for line in lines:
        event = line.get("event")
        if line["kind"] != "event" or event is None:
            continue
        if event["type"] == "log.gap":
            follower = followers.setdefault(event["session"], _Follower())
            follower.gap(event["reason"])
            if event["reason"] == "new_epoch":
                found.epochs += 1
                told.add(event["session"])
        for key, plain in durable([line]):
            found.events += 1
            followers.setdefault(key[0], _Follower()).take(key, plain, found)
            if seen.setdefault(key, plain) != plain:
                found.changed += 1
                found.wrong("changed", key, plain)


def zero_of(lines: Iterable[Line], session: str, since: float, until: float) -> float | None:
    """Monotonic second of session second 0, at the latest, by events that came then; None: none came."""
    found = [
        line["t"] - line["event"]["at"]
        for line in lines
        if line["kind"] == "event" and line["session"] == session and since <= line["t"] < until
    ]
    return min(found, default=None)


def returns(publishers: Sequence[Line], subscribers: Logs) -> list[Return]:
    """How each publisher came again, by the raw logs."""
    lines = sorted((line for of in subscribers.values() for line in of), key=lambda line: float(line["t"]))
    found = []
    sessions: dict[str, str] = {}
    accepted = [line for line in publishers if line["kind"] == "accepted"]
    for place, line in enumerate(accepted):
        name, session = line["name"], line["session"]
        before = sessions.get(name)
        sessions[name] = session
        if before is None:
            continue
        until = min((one["t"] for one in accepted[place + 1 :] if one["name"] == name), default=float("inf"))
        old, new = (
            zero_of(lines, session, *between) for between in ((0.0, line["asked"]), (line["t"], until))
        )
        found.append(
            Return(
                name,
                session,
                session == before,
                line["asked"],
                line["t"] - line["asked"],
                _captions(lines, session, line, old, until),
                None if old is None or new is None else round(abs(new - old), 3),
            )
        )
    return found


def _captions(
    lines: Sequence[Line], session: str, accepted: Line, zero: float | None, until: float
) -> float | None:
    """Seconds from a publisher's return to a caption of what was said since."""
    heard = accepted["t"] - zero - CLOCK_SLACK if zero is not None else float("-inf")
    for line in lines:
        event = line.get("event")
        if (
            event is not None
            and accepted["t"] <= line["t"] < until
            and event["session"] == session
            and event["type"] in ("caption.partial", "caption.final")
            and event["end"] >= heard
        ):
            return float(line["t"] - accepted["asked"])
    return None


def degraded_told(faults: Sequence[Line], readers: Logs, zeros: Mapping[str, float]) -> tuple[int, int]:
    """Outages of Redis by session: in how many `session.degraded` told that failover is off, of how many.

    Args:
        faults: `redis` lines name the sessions that were live then.
        readers: raw logs with the whole of each session.
        zeros: monotonic second of each session's second 0.
    """
    told = wanted = 0
    events = [event for lines in readers.values() for _, event in durable(lines)]
    for fault in faults:
        if fault["kind"] != "redis":
            continue
        for session in fault["sessions"]:
            first, last = (
                fault["t"] - zeros.get(session, 0.0),
                fault["until"] - zeros.get(session, 0.0) + TOLD_SLACK,
            )
            wanted += 1
            told += any(
                event["session"] == session
                and event["type"] == "session.degraded"
                and "failover" in event["reason"]
                and first - CLOCK_SLACK <= event["at"] <= last
                for event in events
            )
    return told, wanted
