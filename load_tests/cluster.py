"""A cluster of nodes on one Redis while sockets, nodes and Redis are killed: is anything that was seen lost?

    python -m load_tests.cluster [--nodes 3] [--kills 100] [--node-kills 20] [--redis-kills 3] [--both 1]
                                 [--sabotage] [--keep FOLDER] [--json FILE]

Starts a redis-server and the nodes (`serve` with engines without models, so that three fit on two cores), and
ends them, also on Ctrl-C. Publishers of tones come by WHIP, follow a 307, and come again by themselves at any
node once theirs is dead. Subscribers, each a process, follow all sessions at any node, resume with epoch and seq
where their socket ends, and keep a raw log of what they receive; all is counted from these logs. Meanwhile
sessions are changed all the time through any node. So many sockets are killed at random, so many nodes
(`kill -9`, then started again), and Redis, which has an append-only file; `--both`: a node while Redis is away,
after which what was seen may be lost, but subscribers must be told of a new epoch.

Exit status 1: an event that a subscriber had seen is lost, was repeated, out of order, changed or missing; a
publisher's captions were not there again within 5 s of its first offer after the kill; a dead node's session
was not told as stalled within 5 s, an outage of Redis not by `session.degraded` and /readyz. `--sabotage`: nodes
share no event, and say that they did; it must fail.
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
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from load_tests import cluster_counts, cluster_subscriber, report
from load_tests.beside import Beside
from load_tests.cluster_counts import Counts, Key, Line, Return
from load_tests.cluster_faults import Faults, Running
from load_tests.cluster_nodes import Node, Redis, missing, settings_of, start_all
from load_tests.serve_process import KEY
from streamsvc.cluster.redis_client import RedisClient, items
from streamsvc.cluster.shared_log import row_of
from streamsvc.core.cluster_config import Cluster
from streamsvc.evaluation.markdown import markdown_table

AGAIN, STALLED, JUMP = 5.0, 5.0, 0.5  # seconds that are promised; session time may jump by
PLACED_SECONDS = 60.0  # until all publishers are there
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
    """The faults in turn: sockets all the time, of nodes and Redis one after the other."""
    rounds = ["node"] * plan.node_kills
    for kind, count in (("redis", plan.redis_kills), ("both", plan.both)):
        for number in range(count):
            rounds.insert(round((number + 1) * len(rounds) / (count + 1)), kind)
    rounds = rounds or ["none"]
    for place, kind in enumerate(rounds):
        sockets = plan.kills * (place + 1) // len(rounds) - plan.kills * place // len(rounds)
        fault = {"node": faults.node, "redis": faults.redis, "both": faults.both, "none": faults.rest}[kind]
        await asyncio.gather(fault(), *([faults.sockets(sockets, 6.0)] if sockets else []))
        await faults.rest()
        print(f"{place + 1} of {len(rounds)}: {kind}, {sockets} sockets", file=sys.stderr, flush=True)


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
