"""A cluster of nodes on one Redis while sockets, nodes and Redis are killed: is anything that was seen lost?

    python -m load_tests.cluster [--nodes 3] [--kills 100] [--node-kills 20] [--redis-kills 3] [--both 1]
                                 [--sabotage] [--keep FOLDER] [--json FILE]

Starts a redis-server and the nodes (`serve` with engines without models, so that three fit on two cores),
and ends them, also on Ctrl-C. Publishers of tones come by WHIP, follow a 307, and come again by themselves at
any node once theirs is dead. Subscribers, each a process, follow all sessions at any node, resume with epoch
and seq where their socket ends, and keep a raw log of what they receive; all is counted from these logs.
Meanwhile sessions are changed all the time through any node. So many sockets are killed at random, so many
nodes (`kill -9`, then started again), and Redis, which has an append-only file; `--both`: a node while Redis
is away, after which what was seen may be lost, but subscribers must be told of a new epoch.

Exit status 1: an event that a subscriber had seen is lost, was repeated, out of order, changed or missing; a
publisher's captions were not there again within 5 s of its first offer after the kill; a dead node's session
was not told as stalled within 5 s, an outage of Redis not by `session.degraded` and /readyz. `--sabotage`:
nodes share no event, and say that they did; it must fail.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from load_tests import cluster_counts, cluster_subscriber, report
from load_tests.beside import Beside
from load_tests.cluster_faults import Faults, Running
from load_tests.cluster_figures import Figures, counted, subscribers_of, table, verdict
from load_tests.cluster_nodes import Node, Redis, missing, settings_of, start_all
from load_tests.serve_process import KEY
from streamsvc.cluster.redis_client import RedisClient, items
from streamsvc.cluster.shared_log import row_of
from streamsvc.core.cluster_config import Cluster

PLACED_SECONDS = 60.0  # until all publishers are there
SOCKETS = 6.0  # in which the sockets of one round are killed
SETTLE = 3.0  # after the last fault, and after the last publisher


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run, and killed. `places`: for publishers, of each node."""

    nodes: int = 3
    sessions: int = 3
    subscribers: int = 3
    places: int = 2
    kills: int = 100
    node_kills: int = 20
    redis_kills: int = 3
    both: int = 1
    seed: int = 7
    sabotage: bool = False


@asynccontextmanager
async def cluster(plan: Plan, folder: Path) -> AsyncIterator[Running]:
    """Redis and nodes, with publishers and subscribers: all there and ended with the context."""
    redis = Redis(folder / "redis")
    settings = settings_of(plan.places)
    nodes = [
        Node(f"n{number}", folder / f"n{number}", redis, settings, sabotage=plan.sabotage)
        for number in range(plan.nodes)
    ]
    running = Running(nodes, redis, folder)
    async with AsyncExitStack() as stack:
        stack.callback(redis.kill)
        await asyncio.to_thread(redis.start)
        for node in nodes:
            stack.callback(node.kill)
        await asyncio.to_thread(start_all, nodes)
        names = [f"street{number}" for number in range(plan.sessions)]
        senders = stack.enter_context(
            Beside(
                "load_tests.cluster_publisher.publish",
                names,
                running.addresses,
                KEY,
                str(running.publishers),
                plan.seed,
            )
        )
        await asyncio.to_thread(senders.wait_begun)
        running.sessions = await _begun(running, names)
        running.crowd = [
            stack.enter_context(
                Beside(
                    "load_tests.cluster_subscriber.follow",
                    running.addresses,
                    list(running.sessions.values()),
                    KEY,
                    str(folder / f"subscriber{number}.jsonl"),
                    plan.seed + number,
                )
            )
            for number in range(plan.subscribers)
        ]
        for one in running.crowd:
            await asyncio.to_thread(one.wait_begun)
        yield running
        await asyncio.to_thread(senders.result)
        await asyncio.sleep(SETTLE)
        for one in running.crowd:
            await asyncio.to_thread(one.result)
        await _read_all(running)


async def _begun(running: Running, names: Sequence[str]) -> dict[str, str]:
    """Wait until all publishers are there; their sessions by name. Raises SystemExit: they are not."""
    until = time.monotonic() + PLACED_SECONDS
    while time.monotonic() < until:
        lines = cluster_counts.read(running.publishers)
        found = {line["name"]: line["session"] for line in lines if line["kind"] == "accepted"}
        if set(found) == set(names):
            return found
        await asyncio.sleep(0.1)
    raise SystemExit(f"of {len(names)} publishers {len(found)} were taken; see {running.publishers}")


async def _read_all(running: Running) -> None:
    """Read all sessions at each node, as subscribers that come at the end, and in Redis itself."""
    known = dict.fromkeys(running.sessions.values(), 0)
    for lines in subscribers_of(running.folder).values():
        for (session, _, seq), _ in cluster_counts.durable(lines):
            known[session] = max(known.get(session, 0), seq)
    for number, node in enumerate(running.nodes):
        log = running.folder / f"reader{number}.jsonl"
        log.touch()
        for session in await cluster_subscriber.read(node.address, number, known, KEY, log):
            running.failed.append(f"{node.name} gives nothing of session {session}")
    settings = Cluster.model_validate(
        {"url": running.redis.url, "advertise": "http://127.0.0.1", "secret": "not used here at all"}
    )
    redis = RedisClient(settings)
    try:
        held = [
            (session, json.loads(body + "}")["epoch"], seq)
            for session in known
            for seq, _, _, body in map(
                row_of, items(await redis.run("XRANGE", redis.of(session, "log"), "-", "+"))
            )
        ]
    finally:
        await redis.close()
    (running.folder / "shared.json").write_text(json.dumps(held))


async def run(plan: Plan, folder: Path) -> Figures:
    """Run a cluster in `folder`, kill what the plan says, and count. Raw logs stay in the folder."""
    began = time.monotonic()
    async with cluster(plan, folder) as running:
        faults = Faults(running, plan.seed)
        changing = [asyncio.create_task(faults.change(one)) for one in running.sessions.values()]
        try:
            await _kill(plan, faults)
            await asyncio.sleep(SETTLE)
        finally:
            for task in changing:
                task.cancel()
            await asyncio.gather(*changing, return_exceptions=True)
            faults.close()
    figures = counted(folder)
    figures.failed += running.failed
    figures.changes = faults.changes
    figures.stalled_s = max(faults.stalled, default=None)
    figures.readyz_told = (sum(faults.readiness), len(faults.readiness))
    figures.seconds = round(time.monotonic() - began, 1)
    return figures


async def _kill(plan: Plan, faults: Faults) -> None:
    """The faults of `_rounds`, one after the other, with sockets killed meanwhile."""
    rounds = _rounds(plan)
    ways = {"node": faults.node, "redis": faults.redis, "both": faults.both, "none": faults.rest}
    for place, (kind, sockets) in enumerate(rounds):
        await asyncio.gather(ways[kind](), *([faults.sockets(sockets, SOCKETS)] if sockets else []))
        await faults.rest()
        print(f"{place + 1} of {len(rounds)}: {kind}, {sockets} sockets", file=sys.stderr, flush=True)


def _rounds(plan: Plan) -> list[tuple[str, int]]:
    """What is killed in turn, each with how many sockets; Redis among the nodes, evenly."""
    kinds = ["node"] * plan.node_kills
    for kind, count in (("redis", plan.redis_kills), ("both", plan.both)):
        length = len(kinds)
        for number in range(count):
            kinds.insert(round((number + 1) * length / (count + 1)) + number, kind)
    kinds = kinds or ["none"]
    before = [plan.kills * place // len(kinds) for place in range(len(kinds) + 1)]
    return [(kind, after - first) for kind, first, after in zip(kinds, before, before[1:], strict=False)]


async def _run(plan: Plan, folder: Path) -> Figures:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run(plan, folder)


def main() -> None:
    parser = report.parser(__doc__)
    defaults = Plan()
    for name, what in (
        ("nodes", "serve processes"),
        ("sessions", "publishers"),
        ("subscribers", "processes that follow all sessions"),
        ("places", "for publishers, of each node"),
        ("kills", "of sockets"),
        ("node-kills", "kill -9 of a node that has a publisher"),
        ("redis-kills", "kill -9 of Redis"),
        ("both", "kills of a node while Redis is away"),
        ("seed", "of all choices"),
    ):
        value = getattr(defaults, name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=int, default=value, help=f"{what} (%(default)s)")
    parser.add_argument("--sabotage", action="store_true", help="the control run: nodes share no event")
    parser.add_argument("--keep", type=Path, help="folder for the raw logs; default: a temporary one")
    parser.add_argument(
        "--count", type=Path, metavar="FOLDER", help="count kept raw logs again; runs nothing"
    )
    chosen = parser.parse_args()
    if chosen.count is not None:
        figures = counted(chosen.count)
        report.finish(table(figures), figures, verdict(figures), chosen.json)
    if why := missing():
        raise SystemExit(why)
    plan = Plan(**{name: getattr(chosen, name) for name in Plan.__dataclass_fields__})
    with tempfile.TemporaryDirectory(prefix="cluster-") as temporary:
        folder = chosen.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            figures = asyncio.run(_run(plan, folder))
        except (asyncio.CancelledError, KeyboardInterrupt):
            raise SystemExit("cut off; all processes are ended") from None
    report.finish(table(figures), figures, verdict(figures), chosen.json)


if __name__ == "__main__":
    main()
