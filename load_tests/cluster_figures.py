"""Figures of `load_tests.cluster` from its raw logs, what was promised of them, and their table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from load_tests import cluster_counts
from load_tests.cluster_counts import Counts, Key, Line, Return
from streamsvc.evaluation.markdown import markdown_table

AGAIN, STALLED, JUMP = 5.0, 5.0, 0.5  # seconds that are promised; session time may jump by


@dataclass(slots=True)
class Figures:
    """What was measured; seconds. See Counts for the first ones.

    Attributes:
        captions_again_s: longest from a publisher's first offer after it was gone to a caption of what was
            said since; None: there was none. `captions_never`: returns without.
        accepted_s: longest from that offer to the connection.
        stalled_s: longest from a kill until another node told the session as stalled.
        degraded_told: outages of Redis by session that `session.degraded` told, and all of them.
        readyz_told: outages of Redis that each /readyz told, and all of them.
        other_sessions: returns that began another session instead of going on.
        jump_s: longest jump of session time at a return.
    """

    lost: int = 0
    lost_told: int = 0
    lost_shared: int = 0
    repeated: int = 0
    out_of_order: int = 0
    missing: int = 0
    changed: int = 0
    events: int = 0
    distinct: int = 0
    captions_again_s: float | None = None
    captions_again_p50_s: float | None = None
    captions_again_p95_s: float | None = None
    captions_never: int = 0
    accepted_s: float | None = None
    stalled_s: float | None = None
    degraded_told: tuple[int, int] = (0, 0)
    readyz_told: tuple[int, int] = (0, 0)
    other_sessions: int = 0
    jump_s: float | None = None
    returns: int = 0
    redirects: int = 0
    epochs: int = 0
    changes: int = 0
    killed: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    failed: list[str] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)


# --- counting -----------------------------------------------------------------------------------------------


def subscribers_of(folder: Path) -> dict[str, list[Line]]:
    """The raw logs of the subscribers."""
    return {path.stem: cluster_counts.read(path) for path in sorted(folder.glob("subscriber*.jsonl"))}


def counted(folder: Path) -> Figures:
    """Figures of the raw logs in a folder."""
    subscribers = subscribers_of(folder)
    readers = {path.stem: cluster_counts.read(path) for path in sorted(folder.glob("reader*.jsonl"))}
    publishers = cluster_counts.read(folder / "publishers.jsonl")
    faults = cluster_counts.read(folder / "faults.jsonl")
    shared = folder / "shared.json"
    held: list[Key] | None = None
    if shared.exists():
        held = [(session, epoch, seq) for session, epoch, seq in json.loads(shared.read_text())]
    every = [line for lines in subscribers.values() for line in lines]
    sessions = {line["session"] for line in every}
    zeros = {one: cluster_counts.zero_of(every, one, 0.0, float("inf")) or 0.0 for one in sessions}
    figures = Figures(degraded_told=cluster_counts.degraded_told(faults, readers, zeros))
    _add_counts(figures, cluster_counts.count(subscribers, readers, held))
    _add_returns(figures, cluster_counts.returns(publishers, subscribers))
    figures.redirects = sum(line["kind"] == "redirected" for line in publishers)
    for line in faults:
        figures.killed[line["kind"]] = figures.killed.get(line["kind"], 0) + 1
    return figures


def _add_counts(figures: Figures, counts: Counts) -> None:
    for name in Counts.__dataclass_fields__:
        setattr(figures, name, getattr(counts, name))


def _add_returns(figures: Figures, returns: Sequence[Return]) -> None:
    again = [one.captions for one in returns if one.captions is not None]
    figures.returns = len(returns)
    figures.captions_never = len(returns) - len(again)
    if again:
        figures.captions_again_s = round(max(again), 2)
        figures.captions_again_p50_s, figures.captions_again_p95_s = (
            round(float(np.percentile(again, part)), 2) for part in (50, 95)
        )
    figures.accepted_s = round(max(one.accepted for one in returns), 2) if returns else None
    figures.other_sessions = sum(not one.same for one in returns)
    figures.jump_s = max((one.jump for one in returns if one.jump is not None), default=None)


# --- report -------------------------------------------------------------------------------------------------


def verdict(found: Figures) -> list[str]:
    """What was promised and missed; [] if nothing."""
    wrong = list(dict.fromkeys(found.failed))
    if not found.events:
        wrong.append("no event was seen")
    for name, what in (
        ("lost", "lost"),
        ("repeated", "repeated"),
        ("out_of_order", "out of order"),
        ("missing", "missing at a subscriber that had later ones"),
        ("changed", "changed"),
    ):
        if count := getattr(found, name):
            wrong.append(f"{count} events are {what}")
    if found.captions_never:
        wrong.append(f"{found.captions_never} publishers came again and had no captions")
    if found.captions_again_s is not None and found.captions_again_s > AGAIN:
        wrong.append(f"captions came again after {found.captions_again_s:.1f} s")
    if found.stalled_s is not None and found.stalled_s > STALLED:
        wrong.append(f"a dead node's session was told as stalled after {found.stalled_s:.1f} s")
    if found.jump_s is not None and found.jump_s > JUMP:
        wrong.append(f"session time jumped by {found.jump_s:.1f} s")
    if found.other_sessions:
        wrong.append(f"{found.other_sessions} publishers came again and began another session")
    for name, (told, of) in (
        ("session.degraded", found.degraded_told),
        ("/readyz", found.readyz_told),
    ):
        if told < of:
            wrong.append(f"{name} told {told} of {of} outages of Redis")
    return wrong


def table(found: Figures) -> str:
    """The figures, a row each."""
    killed = ", ".join(f"{count} {kind}" for kind, count in sorted(found.killed.items()))

    def seconds(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f} s"

    rows = [
        ("killed", killed or "nothing"),
        ("durable events received, distinct", f"{found.events}, {found.distinct}"),
        (
            "lost, not in the shared log, lost and told",
            f"{found.lost}, {found.lost_shared}, {found.lost_told}",
        ),
        ("repeated, out of order", f"{found.repeated}, {found.out_of_order}"),
        ("missing, changed", f"{found.missing}, {found.changed}"),
        ("new epochs told", f"{found.epochs}"),
        ("publishers that came again; by 307", f"{found.returns}; {found.redirects}"),
        (
            "captions again: p50, p95, longest",
            ", ".join(
                map(seconds, (found.captions_again_p50_s, found.captions_again_p95_s, found.captions_again_s))
            ),
        ),
        ("connected again, longest", seconds(found.accepted_s)),
        ("stalled told, longest", seconds(found.stalled_s)),
        ("session time's longest jump", seconds(found.jump_s)),
        ("Redis away told: session.degraded, /readyz", f"{found.degraded_told}, {found.readyz_told}"),
        ("changes taken", f"{found.changes}"),
        ("seconds", f"{found.seconds:.0f}"),
        *(("e.g.", one) for one in found.examples[:10]),
    ]
    return markdown_table(("what", "figure"), rows)
