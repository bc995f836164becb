"""One node's part in a cluster: its heartbeat, the claims of its sessions, and the copying to Redis."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from streamsvc.cluster.contact import Contact, CopyTools
from streamsvc.cluster.followers import Followers
from streamsvc.cluster.records import Claim, NodeRecord
from streamsvc.cluster.redis_client import RedisClient
from streamsvc.cluster.registry import Registry
from streamsvc.cluster.session_copy import SessionCopy
from streamsvc.cluster.shared_log import SharedLog
from streamsvc.core import clock, metrics
from streamsvc.core.cluster_config import Cluster
from streamsvc.core.errors import ClusterUnavailable, ConfigError
from streamsvc.core.tasks import BackgroundTasks

log = structlog.get_logger()
NODES_A_SECOND = 50  # records that a node reads at most: of more nodes it hears less often
NAME_FILE = "node"  # in the data folder
_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class NodeSetup:
    """What a node is made of.

    `name`: of the node. `keys`: see `digest`. `retention`, `events`: of the store's settings. `load`: the
    node's record with its load of now; the rest is filled in here. `fenced`: hears of a session that another
    node owns now.
    """

    settings: Cluster
    name: str
    keys: str
    retention: float
    events: int
    load: Callable[[NodeRecord], NodeRecord]
    fenced: Callable[[str], None]


class ClusterNode:
    """One node in its cluster. `start`, then `close`.

    Raises:
        ConfigError: redis-py is not installed.

    Attributes:
        name: of this node.
        redis, registry, log, followers: what it works with.
        contact: whether Redis answers, and what is to be copied to it.
        nodes: those that lived at the last heartbeat, by name, this one too.
    """

    def __init__(self, setup: NodeSetup) -> None:
        settings = setup.settings
        self.settings = settings
        self.name = setup.name
        self.nodes: Mapping[str, NodeRecord] = {}
        self.redis = RedisClient(settings)
        self.registry = Registry(self.redis, settings, setup.name, setup.retention)
        self.log = SharedLog(self.redis, self.registry, events=setup.events, frames=settings.frames)
        self.followers = Followers(self.redis, self.log)
        self._setup = setup
        self._instance = secrets.token_hex(8)
        self._tasks = BackgroundTasks()
        self.contact = Contact(setup.fenced)
        self._tools = CopyTools(
            self.registry, self.log, self.contact, self._tasks.spawn, settings.write_seconds
        )
        self._copies: dict[str, SessionCopy] = {}  # of sessions that have not ended
        self._looked_at = 0.0  # at the nodes
        self._taken = False  # another process has this node's name

    @property
    def up(self) -> bool:
        """Whether Redis answers: else a session that loses this node goes on nowhere."""
        return self.contact.up

    def record(self) -> NodeRecord:
        """What this node tells the others of itself."""
        bare = NodeRecord(self.name, self.settings.advertise, self._instance, self._setup.keys)
        return self._setup.load(replace(bare, reach=self._reach))

    @property
    def _reach(self) -> str:
        return self.settings.reach or self.settings.advertise

    # --- life ---

    async def start(self) -> None:
        """Join the cluster.

        Raises:
            ConfigError: Redis does not answer; another node has this one's name, or signs with other keys.
        """
        try:
            await self._begin()
        except BaseException:
            await self.redis.close()
            raise
        self.contact.found()
        self._tasks.spawn(self._beat())
        self._tasks.spawn(self._copy())
        log.info("joined the cluster", node=self.name, nodes=len(self.nodes))

    async def _begin(self) -> None:
        try:
            await self.registry.look_at_redis()
            await self._join()
        except ClusterUnavailable as error:
            raise ConfigError(
                f"cluster.url: {error.message}. Start Redis, or correct the address or password"
            ) from None
        except (ValueError, TypeError):
            raise ConfigError(
                f"cluster.prefix: what Redis holds below {self.settings.prefix!r} is not ours"
            ) from None

    async def _join(self) -> None:
        others = [one for one in await self.registry.nodes() if one.name != self.name]
        if unlike := [one.name for one in others if one.keys != self._setup.keys]:
            raise ConfigError(
                f"node {unlike[0]!r} of this cluster signs with other keys: server.api_key and "
                "cluster.secret must be the same at all nodes"
            )
        patience = clock.now() + self.settings.lease_seconds + self.settings.heartbeat_seconds
        while not await self.registry.join(self.record()):  # it may be this one's, before its restart
            if clock.now() > patience:
                raise ConfigError(
                    f"another node of this cluster is named {self.name!r}: set cluster.node to another name"
                )
            await clock.sleep(self.settings.heartbeat_seconds)
        await self._look()

    async def _look(self) -> None:
        self._looked_at = clock.now()
        self.nodes = {one.name: one for one in await self.registry.nodes()}
        metrics.cluster_nodes.set(len(self.nodes))

    async def close(self) -> None:
        """Leave the cluster: its sessions have ended, and given their claims back."""
        await self.followers.close()
        await self._tasks.cancel()
        for copy in {**self.contact.behind, **self._copies}.values():
            await copy.abandon()
        if self.contact.up:
            try:
                for copy in self._copies.values():
                    if copy.claim is not None and not copy.fenced:
                        await self.registry.release(copy.claim)
                await self.registry.leave(self.record())
            except ClusterUnavailable:
                self.contact.lost()
        metrics.cluster_redis_up.set(-1)
        await self.redis.close()

    # --- sessions ---

    def copy_of(
        self, session: str, facts: Mapping[str, str], claim: Claim | None = None, seq: int = 0
    ) -> SessionCopy:
        """The way of a session of this node to Redis; arguments as of SessionCopy."""
        mine = {"node": self.name, "address": self._reach, "behind": ""}
        copy = SessionCopy(session, self._tools, {**facts, **mine}, claim, seq)
        self._copies[session] = copy
        return copy

    def advertise_of(self, name: str) -> str | None:
        """The address of a node that lived at the last heartbeat; None: it did not."""
        record = self.nodes.get(name)
        return record.advertise if record is not None else None

    def reach_of(self, name: str) -> str | None:
        """Where this node reaches another that lived at the last heartbeat; None: it did not."""
        record = self.nodes.get(name)
        return (record.reach or record.advertise) if record is not None else None

    # --- heartbeat ---

    async def _beat(self) -> None:
        while True:
            began = clock.now()
            try:
                await self._beat_once()
            except ClusterUnavailable:
                self.contact.lost()
            except (ValueError, TypeError):
                log.error("what other nodes tell cannot be read", prefix=self.settings.prefix)
            await clock.sleep(self.settings.heartbeat_seconds - (clock.now() - began))

    async def _beat_once(self) -> None:
        began = clock.now()
        await self.registry.look_at_redis()
        if not self.contact.up or clock.now() - began > self.settings.write_seconds:
            self.registry.back = await self.registry.now()  # others may have shown events without Redis
        await self._renew()  # first: of a node that is listed a lease that has run out is a dead process's
        if await self.registry.join(self.record()) == self._taken:
            self._taken = not self._taken
            if self._taken:
                log.error("another node has this one's name: it is not listed", node=self.name)
        if clock.now() - self._looked_at >= len(self.nodes) / NODES_A_SECOND:
            await self._look()
        self.contact.found()

    async def _renew(self) -> None:
        for session, copy in list(self._copies.items()):
            if copy.fenced or (copy.ended and not copy.behind):
                del self._copies[session]
        held = [copy for copy in self._copies.values() if copy.claim is not None and not copy.ended]
        claims = [copy.claim for copy in held if copy.claim is not None]
        copied = [copy.copied for copy in held]
        renewed = await self.registry.renew(claims) if claims else []
        for copy, found, before in zip(held, renewed, copied, strict=True):
            copy.renewed(found, before)

    # --- what Redis lacks ---

    async def _copy(self) -> None:
        """Copy what Redis lacks, one session after the other, whenever Redis answers."""
        contact = self.contact
        while True:
            await contact.work.wait()
            contact.work.clear()
            for copy in list(contact.behind.values()):
                try:
                    await copy.catch_up()
                except ClusterUnavailable:
                    contact.lost()
                    break


def node_name(settings: Cluster, data_dir: Path) -> str:
    """The name of this node: as set, else one that is made once and kept in the data folder.

    Raises:
        ConfigError: it cannot be written.
    """
    if settings.node:
        return settings.node
    file = data_dir / NAME_FILE
    try:
        if file.is_file() and (kept := file.read_text(encoding="utf-8").strip()):
            return kept
        made = f"{_NO_NAME.sub('-', socket.gethostname())[:40]}-{secrets.token_hex(4)}"
        file.write_text(made, encoding="utf-8")
    except OSError:
        raise ConfigError(f"the name of this node cannot be kept in {file}: set cluster.node") from None
    return made


def digest(secret: str, *keys: str) -> str:
    """A digest of what must be equal at all nodes, which tells none of it."""
    return hmac.new(secret.encode(), "\0".join(keys).encode(), hashlib.sha256).hexdigest()[:16]
