"""What a service does as a node of a cluster: reading, forwarding, taking over, keeping equal."""

from __future__ import annotations

import contextlib
from typing import Any

from streamsvc.cluster.node import ClusterNode
from streamsvc.core.errors import ClusterUnavailable
from streamsvc.core.tasks import BackgroundTasks
from streamsvc.core.types import Grants
from streamsvc.service.cluster_sessions import ClusterSessions, stalled
from streamsvc.service.cluster_upkeep import ClusterUpkeep
from streamsvc.service.forwarding import Forwarder
from streamsvc.service.node_signature import NodeSignature
from streamsvc.service.publish_places import PublishPlaces
from streamsvc.service.remote_sessions import RemoteSessions, moved
from streamsvc.service.revocations import Revocations
from streamsvc.service.sessions import Sessions
from streamsvc.service.takeover import Takeover


class ClusterPart:
    """The parts of one service that know of other nodes.

    Args:
        node: this node in its cluster.
        sessions: of the service.
        revoked: its revoked tokens.
        tasks: where all of it runs.
    """

    def __init__(
        self, node: ClusterNode, sessions: Sessions, revoked: Revocations, tasks: BackgroundTasks
    ) -> None:
        secret = node.settings.secret
        self.node = node
        self.signature = NodeSignature(secret.get_secret_value() if secret is not None else "")
        self.forwarder = Forwarder(self.signature)
        self.remote = RemoteSessions(node, tasks)
        self.sessions = ClusterSessions(sessions, node, self.remote)
        self.takeover = Takeover(sessions, node, self.remote)
        self.publishing = PublishPlaces(self.sessions, node, self.takeover, self.signature)
        self.upkeep = ClusterUpkeep(node, sessions, revoked, self.takeover)
        self._tasks = tasks
        sessions.join(self.sessions)

    async def start(self) -> None:
        """Begin; the node has joined its cluster."""
        with contextlib.suppress(ClusterUnavailable):
            await self.upkeep.forget_stale()
        self._tasks.spawn(self.remote.run())
        self._tasks.spawn(self.upkeep.run())

    async def relay(
        self, session_id: str, text: str, grants: Grants, audience: str
    ) -> list[tuple[str, dict[str, Any]]] | None:
        """Have the owner of a session handle a message of an event socket here.

        Args:
            session_id: of the session.
            text: the message.
            grants: of its sender.
            audience: of private answers to it.

        Returns:
            The replies to the sender alone, each as type and body. None: the session lives here.

        Raises:
            StreamsvcError: what the owner says against it. ClusterUnavailable: it is gone, or silent.
        """
        if session_id not in self.remote.by_id:
            return None
        place = await self.sessions.locate(session_id)
        if place.shared is None:
            raise moved(session_id)
        if place.node:
            return await self.forwarder.message(place.node, place.id, text, grants, audience)
        if place.shared.ended:
            raise ClusterUnavailable(
                "the node that had this ended session is gone: ask by POST /v1/sessions/ID/questions",
                code="ended_elsewhere",
            )
        raise stalled(place)

    async def close(self) -> None:
        """End; the tasks have been cancelled."""
        await self.remote.close()
        await self.forwarder.close()
