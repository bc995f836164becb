"""Who the nodes are and which of them owns a session: leases, fencing tokens, claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamsvc.cluster import scripts
from streamsvc.cluster.records import Claim, NodeRecord, Owner
from streamsvc.cluster.redis_client import Argument, RedisClient, Reply, items, number, text
from streamsvc.core.cluster_config import Cluster

SHORTEST_KEPT = 60.0  # seconds that Redis keeps a session at least, whatever the retention
FORGOTTEN = 3600.0  # seconds after which a node that is gone is forgotten
# Of a session, in RENEW's order.
_PARTS = ("meta", "log", "followed", "frames", "frame_times", "questions", "question_names")


@dataclass(frozen=True, slots=True)
class Renewed:
    """What the renewal of a claim found.

    `held`: it is still ours. `seq`: of the newest event in the shared log. `followed`: another node follows.
    """

    held: bool
    seq: int
    followed: bool


class Registry:
    """Nodes and claims in Redis. Every method but `held` raises ClusterUnavailable.

    Args:
        redis: the client.
        settings: of the cluster.
        node: name of this node.
        keep: seconds that what a session has told stays after its last renewal.

    `run`: the id of Redis' process, as `look_at_redis` found it. `back`: Redis' milliseconds at the end of
    the last outage that this node has seen; 0: none.
    """

    def __init__(self, redis: RedisClient, settings: Cluster, node: str, keep: float) -> None:
        self.node = node
        self.run = ""
        self.back = 0
        self.lease_ms = round(settings.lease_seconds * 1000)
        self.keep_ms = round(max(keep, SHORTEST_KEPT) * 1000) + self.lease_ms
        self._redis = redis

    # --- nodes ---

    async def join(self, record: NodeRecord) -> bool:
        """Tell that this node lives, for one lease; False: another process has its name."""
        arguments: list[Argument] = [record.name, record.instance, record.to_json(), self.lease_ms]
        return bool(await self._redis.script(scripts.JOIN, [self._redis.key("nodes")], arguments))

    async def leave(self, record: NodeRecord) -> None:
        """Tell that this node goes, at once."""
        keys = [self._redis.key("nodes")]
        await self._redis.script(scripts.LEAVE, keys, [record.name, record.instance])

    async def nodes(self) -> list[NodeRecord]:
        """The nodes that live, by name. Raises ValueError, TypeError too: a record is not ours."""
        key = self._redis.key("nodes")
        found, time = await self._redis.pipeline([("HGETALL", key), ("TIME",)])
        now = _milliseconds(time)
        living: list[NodeRecord] = []
        forgotten: list[str] = []
        told = [text(part) for part in items(found)]
        for name, value in zip(told[::2], told[1::2], strict=True):
            beat, _, record = value.partition(" ")
            if now - int(beat) < self.lease_ms:
                living.append(NodeRecord.from_json(record))
            elif now - int(beat) > FORGOTTEN * 1000:
                forgotten.append(name)
        if forgotten:
            await self._redis.run("HDEL", key, *forgotten)
        return sorted(living, key=lambda record: record.name)

    async def now(self) -> int:
        """Redis' time, in milliseconds: the one that all nodes share."""
        return _milliseconds(await self._redis.run("TIME"))

    async def look_at_redis(self) -> bool:
        """Learn which process Redis is; returns whether it is another one than before."""
        lines = text(await self._redis.run("INFO", "server")).splitlines()
        run = next((line.partition(":")[2] for line in lines if line.startswith("run_id:")), "")
        changed = bool(self.run) and run != self.run
        self.run = run
        return changed

    # --- claims ---

    async def claim(self, session: str) -> Claim | Owner:
        """Claim a session that no lease holds, new or not; else who owns it."""
        keys = [self._redis.of(session, part) for part in ("owner", "fence", "meta")]
        reply = items(await self._redis.script(scripts.CLAIM, keys, [self.node, self.lease_ms, self.keep_ms]))
        if not number(reply[0]):
            owner = Owner.parse(text(reply[1]).encode())
            assert owner is not None
            return owner
        fence, run, renewed, behind = (text(part) for part in reply[1:])
        # What its earlier owner has shown may be missing where Redis was away since that owner's last
        # heartbeat: it is another process now, this node has lost it too, or the owner was catching up.
        whole = not behind and run in ("", self.run) and (not renewed or int(renewed) > self.back)
        return Claim(session, Owner(self.node, int(fence)), whole)

    async def renew(self, claims: Sequence[Claim]) -> list[Renewed]:
        """Renew claims in one round trip, and keep what their sessions have told."""
        found = await self._redis.scripts(
            [
                (
                    scripts.RENEW,
                    [self._redis.of(claim.session, part) for part in ("owner", "fence", *_PARTS)],
                    [*self.held(claim), self.run],
                )
                for claim in claims
            ]
        )
        replies = [items(reply) for reply in found]
        return [
            Renewed(number(state) == scripts.OK, number(seq), bool(followed))
            for state, seq, followed in replies
        ]

    def held(self, claim: Claim) -> list[Argument]:
        """The first arguments of every script that writes something of a session."""
        return [str(claim.owner), claim.owner.fence, self.lease_ms, self.keep_ms]

    async def release(self, claim: Claim) -> None:
        """Give a claim back, so that another node need not wait for its lease to run out."""
        await self._redis.script(
            scripts.RELEASE, [self._redis.of(claim.session, "owner")], [str(claim.owner)]
        )

    async def owner(self, session: str) -> Owner | None:
        """Who owns a session; None: nobody, or its lease has run out."""
        return Owner.parse(text(await self._redis.run("GET", self._redis.of(session, "owner"))).encode())

    async def owners(self, sessions: Sequence[str]) -> dict[str, Owner]:
        """Who owns each of some sessions, in one round trip; those of nobody are left out."""
        found = await self._redis.pipeline([("GET", self._redis.of(one, "owner")) for one in sessions])
        owners = {one: Owner.parse(text(value).encode()) for one, value in zip(sessions, found, strict=True)}
        return {one: owner for one, owner in owners.items() if owner is not None}


def _milliseconds(time: Reply) -> int:
    seconds, micros = items(time)
    return number(seconds) * 1000 + number(micros) // 1000
