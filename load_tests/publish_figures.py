"""What a step of `load_tests.publishers` measured: latencies by the sender's clock, coverage, capacity. Pure.

All latencies are "glass to caption": from a word's last sample at the sender to the event that shows it, in a
subscriber's process. "First": shown and right, though it may still have changed meanwhile; "stable": promised
to stay. Picovoice's word emission latency is the mean time from a word's end to its emission by an engine
(github.com/Picovoice/speech-to-text-benchmark): that is the mean of "first" here, with the network in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from streamsvc.evaluation import score_captions
from streamsvc.evaluation.score_captions import Reference, Score, Snapshot, percentile

PACKET = 0.02  # seconds of sound in a packet: its first sample is that old when it is sent
AROUND = 0.5  # seconds around a word that count as captioned, as in the service's own coverage
SEEN_WITHIN = 5.0  # seconds in which a change of the picture must be sampled

Events = Sequence[tuple[float, Mapping[str, Any]]]  # monotonic second of its coming, event


@dataclass(frozen=True, slots=True)
class Published:
    """One publisher of a step. began: monotonic second at which its first packet left."""

    began: float
    events: Events
    counts: Mapping[str, Mapping[str, float]]  # of its tracks: packets, nacks, late, ...
    missing: int = 0  # packets that the service counts as lost


@dataclass(frozen=True, slots=True)
class Heard:
    """What the subscribers of a step had in so many seconds. All times are monotonic seconds.

    seen: id of an event -> when each had it; published: id -> when the service published it.
    """

    seen: Mapping[str, Sequence[float]]
    published: Mapping[str, float]
    subscribers: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Machine:
    """What a step cost. cpu: seconds a second by thread and worker; memory: MB by process."""

    cpu: Mapping[str, float]
    memory: Mapping[str, float]
    clients: Mapping[str, float]  # CPU seconds a second of the publishers and of the subscribers


@dataclass(frozen=True, slots=True)
class Step:
    """The figures of so many publishers at once; seconds, None where nothing was measured.

    first, stable: (p50, p95, p99) of each publisher's words together. emission: Picovoice's. coverage: see
    `covered`, the mean of all publishers and the worst. changes: (p50, p95) from a new picture to
    its keyframe; seen: share of them that were sampled. delivery: (p50, p99) of an event from its publication
    to one of the subscribers. level: the highest. late: of the senders. free, bound_by: of /v1/capacity, for
    publishers like these. refused: publishers that the service did not take. refusals: milliseconds until the
    503 of each offer to the full service.
    """

    publishers: int
    subscribers: int
    first: tuple[float | None, ...]
    stable: tuple[float | None, ...]
    emission: float | None
    coverage: float
    worst_coverage: float
    wer: float | None
    changes: tuple[float | None, ...]
    seen: float | None
    delivery: tuple[float | None, ...]
    events_a_second: float
    packets: int
    missing: int
    nacks: int
    gaps: float  # seconds told as lost
    level: int
    late: float
    machine: Machine
    free: int = 0
    bound_by: str = ""
    refused: int = 0
    refusals: tuple[float, ...] = ()

    def in_budget(self, budget: float, coverage: float) -> bool:
        """Whether captions were in time and whole. A late sender makes them later, never earlier."""
        late, whole = self.stable[1], not self.refused and self.coverage >= coverage
        return late is not None and late <= budget and whole


def snapshots(events: Events, began: float) -> list[Snapshot]:
    """What the captions of a session show, over the sender's time."""
    closed: list[str] = []
    shown: list[Snapshot] = []
    for at, event in events:
        kind = event["type"]
        if kind == "caption.final":
            closed.append(str(event["text"]))
            shown.append((at - began, " ".join(closed), ""))
        elif kind == "caption.partial":
            words = str(event["text"]).split()
            stable, tentative = words[: event["stable"]], words[event["stable"] :]
            shown.append((at - began, " ".join([*closed, *stable]), " ".join(tentative)))
    return shown


def scored(one: Published, reference: Reference) -> Score:
    """The captions of one publisher. The packet with a word's last sample leaves up to PACKET after it."""
    spoken = Reference(reference.words, tuple(end - PACKET for end in reference.ends), reference.true)
    return score_captions.score(snapshots(one.events, one.began), spoken)


def covered(one: Published, reference: Reference) -> float:
    """Share of the spoken words at whose time closed captions have a word within AROUND, right or wrong.

    So it falls where speech is lost, and not where a recogniser errs: that is the word error rate. The zero
    of the session's clock follows from the words that are right.
    """
    heard = [
        (part, float(word["start"]), float(word["end"]))
        for _, event in one.events
        if event["type"] == "caption.final"
        for word in event["words"]
        for part in score_captions.norm(word["text"])
    ]
    pairs, _ = score_captions.align(reference.words, [word for word, _, _ in heard])
    if not pairs:
        return 0.0
    zero = median(heard[there][2] - reference.ends[here] for here, there in pairs)
    found = sum(
        any(start - AROUND <= end + zero <= finish + AROUND for _, start, finish in heard)
        for end in reference.ends
    )
    return found / len(reference.ends)


def changes(one: Published, times: Sequence[float]) -> list[float]:
    """Seconds from each new picture to the event of its keyframe; those never sampled are left out."""
    sampled = [at for at, event in one.events if event["type"] == "keyframe.sampled"]
    found = []
    for place, change in enumerate(times):
        shown, following = one.began + change, [one.began + later for later in times[place + 1 : place + 2]]
        until = min([shown + SEEN_WITHIN, *following])
        first = next((at for at in sampled if shown <= at < until), None)
        if first is not None:
            found.append(first - shown)
    return found


def step(
    of: Sequence[Published],
    reference: Reference,
    times: Sequence[float],
    heard: Heard,
    machine: Machine,
) -> Step:
    """The figures of a step.

    Args:
        of: its publishers, at least one.
        reference: what each of them says.
        times: media seconds at which the picture changes.
        heard: what the subscribers had.
        machine: what it cost.
    """
    scores = [scored(one, reference) for one in of]
    together = score_captions.pool(scores)
    shares = [covered(one, reference) for one in of]
    late = [seconds for one in of for seconds in changes(one, times)]
    way = [
        at - heard.published[name]
        for name, came in heard.seen.items()
        if name in heard.published
        for at in came
    ]
    every = [event for one in of for _, event in one.events]
    return Step(
        publishers=len(of),
        subscribers=heard.subscribers,
        first=_shares(together.first, 50, 95, 99),
        stable=_shares(together.commit, 50, 95, 99),
        emission=round(mean(together.first), 3) if together.first else None,
        coverage=mean(shares),
        worst_coverage=min(shares),
        wer=together.edits / together.words if together.words else None,
        changes=_shares(late, 50, 95),
        seen=len(late) / (len(times) * len(of)) if times else None,
        delivery=_shares(way, 50, 99),
        events_a_second=sum(len(came) for came in heard.seen.values()) / heard.seconds,
        packets=int(_sum(of, "packets")),
        missing=sum(one.missing for one in of),
        nacks=int(_sum(of, "nacks")),
        gaps=sum(event["end"] - event["start"] for event in every if event["type"] == "caption.gap"),
        level=max((int(event["level"]) for event in every if event["type"] == "session.degraded"), default=0),
        late=max((float(track.get("late", 0.0)) for one in of for track in one.counts.values()), default=0.0),
        machine=machine,
    )


def _shares(values: Sequence[float], *shares: float) -> tuple[float | None, ...]:
    return tuple(percentile(values, share) for share in shares)


def _sum(of: Sequence[Published], name: str) -> float:
    return sum(track.get(name, 0) for one in of for track in one.counts.values())


def capacity(steps: Iterable[Step], budget: float, coverage: float) -> int:
    """The largest number of publishers with captions in time and whole; 0: none."""
    return max((one.publishers for one in steps if one.in_budget(budget, coverage)), default=0)


def bottleneck(last: Step, cores: int) -> str:
    """What is used most of what there is, in the step with most publishers, in words."""
    cpu = last.machine.cpu
    loop = cpu.get("event loop", 0.0)
    shares = {
        f"the event loop's thread: {loop:.2f} of the one core that it can use": loop,
        f"all cores: {sum(cpu.values()):.2f} of {cores}": sum(cpu.values()) / cores,
    }
    for name, spent in cpu.items():
        if name.startswith("worker "):
            shares[f"{name}: {spent:.2f} of {cores} cores"] = spent / cores
    return max(shares, key=lambda name: shares[name])
