"""The cost of distance: calls and streams of a worker process, and of a replica on Ray, in one run.

    python -m load_tests.ray_distance [--steps 1000] [--streams 100] [--json FILE]

Starts Ray with an engine that computes nothing, and a worker process with the same one. Each step asks both,
one after the other, the first one in turn: a call with 320 KB of samples that come back, and every so often a
stream of 100 items. Exit status 1 if Ray adds more than 10 ms to the 95th percentile of the calls. Needs the
extra "cluster".
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import psutil

from load_tests import report
from streamsvc.core.roles import Role
from streamsvc.workers.ray_worker import RayWorker
from streamsvc.workers.supervisor import Worker
from tests.builders.ray_cluster import ENGINE, Cluster, running_cluster

GOAL_MS = 10.0  # that Ray may add to the 95th percentile of calls
SAMPLES = 80_000  # float32, 320 KB: 5 s of audio
ITEMS = 100  # of a stream
SECONDS = 30.0  # deadline of each step
WARM_UP = 20  # steps that are not counted
TRANSPORTS = ("process", "ray")


@dataclass(slots=True)
class Times:
    """Milliseconds of each step of one transport."""

    calls: list[float] = field(default_factory=list)
    streams: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Distance:
    """times: by transport. bytes: resident memory of Ray's processes, and of the bridge alone."""

    times: Mapping[str, Times]
    ray_bytes: int
    bridge_bytes: int


def quantile(values: list[float], share: float) -> float:
    """The smallest value that is not below `share` of all."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def added(distance: Distance, share: float) -> float:
    """Milliseconds by which a quantile of Ray's calls is later."""
    return quantile(distance.times["ray"].calls, share) - quantile(distance.times["process"].calls, share)


def table(distance: Distance) -> str:
    """One line a transport and kind of step."""
    lines = ["transport  step      n   p50 ms  p95 ms  max ms"]
    for transport in TRANSPORTS:
        times = distance.times[transport]
        for step, values in (("call", times.calls), ("stream", times.streams)):
            p50, p95 = quantile(values, 0.5), quantile(values, 0.95)
            lines.append(f"{transport:9}  {step:6} {len(values):4} {p50:8.1f} {p95:7.1f} {max(values):7.1f}")
    lines.append(f"Ray adds to a call: p50 {added(distance, 0.5):.1f} ms, p95 {added(distance, 0.95):.1f} ms")
    sizes = f"{distance.ray_bytes / 1e6:.0f} MB, and of a bridge {distance.bridge_bytes / 1e6:.0f} MB"
    lines.append(f"resident memory of Ray's processes (shared pages counted in each): {sizes}")
    return "\n".join(lines)


def wrong(distance: Distance) -> list[str]:
    """The promises that were missed."""
    late = added(distance, 0.95)
    return [f"Ray adds {late:.1f} ms to the p95 of a call, more than {GOAL_MS:.0f}"] if late > GOAL_MS else []


@contextlib.asynccontextmanager
async def role_of(worker: Worker) -> AsyncIterator[Role]:
    """The role of a worker that runs meanwhile."""
    task = asyncio.create_task(worker.run())
    try:
        await worker.wait_ready()
        yield worker.role("test")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def call(role: Role) -> float:
    """Milliseconds of one call."""
    samples = np.zeros(SAMPLES, np.float32)
    began = time.perf_counter()
    await role.call("echo", {"samples": samples}, deadline_in_s=SECONDS, affinity="s")
    return (time.perf_counter() - began) * 1000


async def stream(role: Role) -> float:
    """Milliseconds of one stream."""
    began = time.perf_counter()
    count = 0
    async for _ in role.stream("count", {"to": ITEMS}, deadline_in_s=SECONDS, affinity="s"):
        count += 1
    assert count == ITEMS
    return (time.perf_counter() - began) * 1000


async def measure(cluster: Cluster, steps: int, streams: int) -> Distance:
    """Both transports in turn, `steps` calls and `streams` streams of each."""
    bridged = RayWorker("test", {"test": ENGINE}, cluster.address)
    process = Worker("test", {"test": ENGINE}, {})
    times = {transport: Times() for transport in TRANSPORTS}
    async with role_of(process) as near, role_of(bridged) as far:
        roles = dict(zip(TRANSPORTS, (near, far), strict=True))
        every = max(1, steps // max(1, streams))
        for number in range(-WARM_UP, steps):
            order = TRANSPORTS if number % 2 else TRANSPORTS[::-1]
            for transport in order:
                took = await call(roles[transport])
                if number >= 0:
                    times[transport].calls.append(took)
            if number % every == 0 and len(times["ray"].streams) < streams:
                for transport in order:
                    took = await stream(roles[transport])
                    if number >= 0:
                        times[transport].streams.append(took)
        assert bridged.pid is not None
        bridge_bytes = psutil.Process(bridged.pid).memory_info().rss
        ray_bytes = sum(one.memory_info().rss for one in cluster.processes())
    return Distance(times, ray_bytes, bridge_bytes)


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--streams", type=int, default=100)
    chosen: argparse.Namespace = parser.parse_args()
    with running_cluster("test", replicas=1) as cluster:
        distance = asyncio.run(measure(cluster, chosen.steps, chosen.streams))
    report.finish(table(distance), distance, wrong(distance), chosen.json)


if __name__ == "__main__":
    main()
