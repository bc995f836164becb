"""What a replay has found, and how its events are compared with the recorded ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Events of the machine, not of the stream.
_OF_THE_MACHINE = {"latency.report", "session.going_away", "error"}
_LEFT_OUT = {"age_ms", "stages", "epoch", "id", "seq", "after", "started_utc"}


@dataclass
class Outcome:
    """What a replay has found.

    `events`, `recorded`: as JSON objects, in order. `divergences`: requests and stages that were not as
    recorded. `first`: the first of them, or the first event that differs, in words; "": none. `cut`: why the
    recording ends before the session; "": it does not.
    """

    events: list[dict[str, Any]] = field(default_factory=list)
    recorded: list[dict[str, Any]] = field(default_factory=list)
    divergences: int = 0
    first: str = ""
    cut: str = ""

    def diverge(self, what: str) -> None:
        """Count a divergence."""
        self.divergences += 1
        self.first = self.first or what

    def text(self) -> str:
        """The replayed events, one a line, without what is drawn by lot or read from the wall clock."""
        plain = (_plain(event, ages=True) for event in self.events)
        return "".join(json.dumps(event, ensure_ascii=False, sort_keys=True) + "\n" for event in plain)

    def line(self) -> str:
        """The result in one line."""
        until = f", until the recording ends early ({self.cut})" if self.cut else ""
        if self.first:
            return f"diverged: {self.first}"
        return f"equal: {len(self.events)} events, {len(self.recorded)} recorded{until}"

    def as_json(self) -> dict[str, Any]:
        """The result in figures, without what was said or shown."""
        return {
            "equal": not self.first,
            "first": self.first,
            "divergences": self.divergences,
            "events": len(self.events),
            "recorded": len(self.recorded),
            "cut": self.cut,
        }


def _plain(event: Mapping[str, Any], *, ages: bool = False) -> dict[str, Any]:
    """An event without ids and addresses; `ages`: with its ages."""
    left_out = _LEFT_OUT - {"age_ms", "stages"} if ages else _LEFT_OUT
    kept = {name: value for name, value in event.items() if name not in left_out}
    text = json.dumps(kept).replace(event["epoch"], "")
    found: dict[str, Any] = json.loads(text, object_hook=_without_ids)
    return found


def _without_ids(body: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.partition("?")[0] if isinstance(value, str) and value.startswith("/v1/") else value
        for name, value in body.items()
        if name not in ("watch_id", "url", "frame_url")
    }


def compare(outcome: Outcome, *, closed_captions_only: bool) -> None:
    """Note the first event that is not as recorded."""

    def wanted(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if closed_captions_only:
            return [event for event in events if event["type"] == "caption.final"]
        return [event for event in events if event["type"] not in _OF_THE_MACHINE]

    recorded, replayed = wanted(outcome.recorded), wanted(outcome.events)
    for place, (one, other) in enumerate(zip(recorded, replayed, strict=False)):
        if (differs := _difference(one, other)) is not None:
            outcome.first = outcome.first or (
                f"event {place + 1}, {one['type']} at {one['at']:.3f} s: {differs} differs"
            )
            return
    if len(recorded) > len(replayed) or (len(recorded) < len(replayed) and not outcome.cut):
        outcome.first = outcome.first or f"{len(replayed)} events, {len(recorded)} recorded"


def _difference(recorded: Mapping[str, Any], replayed: Mapping[str, Any]) -> str | None:
    """The name of the first field that differs; None: none does."""
    one, other = _plain(recorded), _plain(replayed)
    if not recorded["age_ms"]:  # it is about no medium, and `at` is when it was told
        other["at"] = one["at"]
    names = [*one, *(name for name in other if name not in one)]
    return next((name for name in names if one.get(name) != other.get(name)), None)
