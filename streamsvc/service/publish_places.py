"""Where in the cluster a publisher publishes: here, where its session lives, or at a free node."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from urllib.parse import urlencode

from streamsvc.cluster.node import ClusterNode
from streamsvc.core import metrics
from streamsvc.core.errors import CapacityError, ClusterUnavailable, Conflict, Redirected
from streamsvc.core.types import Grants
from streamsvc.service.capacity import Kind
from streamsvc.service.cluster_sessions import ClusterSessions
from streamsvc.service.node_signature import NodeSignature
from streamsvc.service.takeover import Takeover

_FULL = "capacity"  # code of a CapacityError for which another node may have room
# Of an address, what may stand in a header among others (CSP, host-source): it knows no IPv6.
_ORIGIN = re.compile(r"https?://[A-Za-z0-9._-]+(:[0-9]+)?(?=/|$)", re.ASCII)


class LivesElsewhere(Conflict):
    """The session lives on another node. `node`: its address; "": it cannot be reached now."""

    code = "another_node"

    def __init__(self, node: str) -> None:
        super().__init__(f"this session lives on another node: publish to it at {node}")
        self.node = node


@dataclass(frozen=True, slots=True)
class Asked:
    """What a publisher has posted.

    path: that it has posted to. session: its address; None: a new one. kind: what it sends. origin: of the
    page that publishes, if it is one that may use this service.
    """

    path: str
    session: str | None
    kind: Kind
    origin: str = ""


class PublishPlaces:
    """Sends publishers where their sessions live or find room.

    Args:
        sessions: finds sessions of the cluster.
        cluster: this node's part in it.
        takeover: lets sessions of dead nodes go on here.
        signature: of tickets.
    """

    def __init__(
        self, sessions: ClusterSessions, cluster: ClusterNode, takeover: Takeover, signature: NodeSignature
    ) -> None:
        self._sessions = sessions
        self._cluster = cluster
        self._takeover = takeover
        self._signature = signature

    async def prepare(self, name: str, place: Callable[[], AbstractContextManager[None]]) -> None:
        """Have the live session of a name here, if it has one, so that it can be published to.

        One whose node has died is taken over. While Redis is away only this node is asked.

        Args:
            name: of the session.
            place: holds a place for one more session.

        Raises:
            LivesElsewhere: it lives on another node. Conflict: another node begins it, or takes it over.
            CapacityError: no place is free for one to be taken over, or it cannot be stored here.
        """
        try:
            found = await self._sessions.locate(name)
            if found.shared is not None and not found.shared.ended:
                if found.node:
                    raise LivesElsewhere(found.advertise)
                with place():
                    await self._takeover.take_over(found.shared)
                await self._sessions.remote.drop(found.id)
            elif not self._sessions.is_live_here(found.id):
                with place():  # first: where there is none, another node begins it
                    await self._sessions.begin(name)
        except ClusterUnavailable as error:
            if error.code != ClusterUnavailable.code:  # not Redis
                raise

    def elsewhere(
        self, error: LivesElsewhere | CapacityError, asked: Asked, grants: Grants
    ) -> Redirected | None:
        """Where a publisher is sent that is refused here; None: nowhere.

        Args:
            error: why it is refused.
            asked: what it has posted.
            grants: of the publisher; its ticket has what they hold of publishing.
        """
        if isinstance(error, LivesElsewhere):
            node, why = error.node, "this session lives on another node"
        elif error.code == _FULL and not (asked.session and self._sessions.is_live_here(asked.session)):
            node, why = self._free(asked.kind), f"this node is full ({error.message}); another one has room"
        else:
            return None
        if not node:
            return None
        metrics.cluster_redirects.inc()
        ticket = urlencode({"ticket": self._signature.ticket(asked.path, grants, asked.origin)})
        return Redirected(why, f"{node}{asked.path}?{ticket}")

    def origins(self) -> list[str]:
        """The origins of the other nodes, as the last heartbeats told: a page here may be sent there."""
        nodes = self._cluster.nodes.items()
        found = [_ORIGIN.match(node.advertise) for name, node in nodes if name != self._cluster.name]
        return sorted({origin[0] for origin in found if origin is not None})

    def _free(self, kind: Kind) -> str:
        """The address of the node with most room, as the last heartbeats told; "": none has any."""
        others = [
            node
            for name, node in self._cluster.nodes.items()
            if name != self._cluster.name and node.free.get(kind, 0) > 0  # one that drains has no room
        ]
        best = max(others, key=lambda node: node.free[kind], default=None)
        return best.advertise if best is not None else ""
