"""Audio packet loss on a simulated link: our jitter buffer compared with aiortc's on the same packets.

    python -m load_tests.packet_loss [--packets 10000] [--seed 7]

Virtual time, fixed seed: each 20 ms packet is delayed by 20 ms plus a jitter of up to 15 ms (so none is
reordered twice), and lost with the given probability. Exit status 1 if our buffer misses a goal.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
from dataclasses import dataclass
from statistics import median

from aiortc.jitterbuffer import JitterBuffer
from aiortc.rtp import RtpPacket

from streamsvc.ingest.jitter import Jitter, Packet

PACKET_SECONDS = 0.02
PAYLOAD = b"\x78\0\0"  # Opus, 20 ms
STALL_GOAL = 0.15  # seconds


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one buffer. missing, worst_stall, added: seconds; lost: packets."""

    name: str
    sent: int
    lost: int
    missing: float
    worst_stall: float  # longest time between two deliveries, less the 20 ms between packets
    added: float  # median delay in the buffer over the last tenth, less the shortest of the run


def play(loss: float, *, packets: int, seed: int) -> tuple[Result, Result]:
    """Run our buffer and aiortc's over the same link."""
    rng = random.Random(seed)
    sent = [(n, n * PACKET_SECONDS + 0.02 + rng.uniform(0, 0.015)) for n in range(packets)]
    received = sorted(((n, at) for n, at in sent if n == 0 or rng.random() >= loss), key=lambda item: item[1])
    lost = packets - len(received)
    return (
        _result("streamsvc", packets, lost, _ours(received), dict(received)),
        _result("aiortc 16/4", packets, lost, _plain(received), dict(received)),
    )


def _ours(received: list[tuple[int, float]]) -> list[tuple[int, float]]:
    jitter = Jitter()
    out = []
    for n, at in received:
        out += [
            (frame.timestamp // 960, at) for frame in jitter.push(Packet(n & 0xFFFF, n * 960, PAYLOAD, at))
        ]
    return out


def _plain(received: list[tuple[int, float]]) -> list[tuple[int, float]]:
    buffer = JitterBuffer(capacity=16, prefetch=4)
    out = []
    for n, at in received:
        packet = RtpPacket(sequence_number=n & 0xFFFF, timestamp=n * 960, payload=PAYLOAD)
        packet._data = PAYLOAD  # type: ignore[attr-defined]
        _, frame = buffer.add(packet)
        if frame is not None:
            out.append((frame.timestamp // 960, at))
    return out


def _result(
    name: str, sent: int, lost: int, out: list[tuple[int, float]], arrived: dict[int, float]
) -> Result:
    delays = [at - arrived[n] for n, at in out]
    stalls = [later[1] - earlier[1] - PACKET_SECONDS for earlier, later in itertools.pairwise(out)]
    tenth = max(1, len(delays) // 10)
    # What still waits when the stream ends is no loss.
    last = max(n for n, _ in out)
    missing = (last + 1 - len({n for n, _ in out})) * PACKET_SECONDS
    return Result(name, sent, lost, missing, max(stalls), median(delays[-tenth:]) - min(delays))


def main() -> int:
    """Print the table; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--packets", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    missed = False
    print(f"{options.packets} packets of 20 ms, seed {options.seed}")
    print(
        "| loss | buffer | packets lost | audio missing s | of 20 ms x lost | % of audio | worst stall ms "
        "| latency added for good ms |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for loss in (0.0, 0.01, 0.05, 0.10):
        results = play(loss, packets=options.packets, seed=options.seed)
        for r in results:
            due = r.lost * PACKET_SECONDS or float("nan")
            share = 100 * r.missing / (r.sent * PACKET_SECONDS)
            print(
                f"| {loss:.0%} | {r.name} | {r.lost} | {r.missing:.2f} | {r.missing / due:.2f} | {share:.1f} "
                f"| {1000 * r.worst_stall:.0f} | {1000 * r.added:.0f} |"
            )
        ours = results[0]
        missed |= (
            ours.missing > 1.1 * ours.lost * PACKET_SECONDS
            or ours.worst_stall > STALL_GOAL
            or ours.added > 0.001
        )
    print(
        "goals missed"
        if missed
        else "goals met: missing <= 1.1 x 20 ms x lost, worst stall <= 150 ms, none added for good"
    )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
