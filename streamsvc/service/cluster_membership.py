"""How a service takes part in a cluster: its load, what it shares of a session, sessions that it loses."""

from __future__ import annotations

from dataclasses import replace

import structlog

import streamsvc
from streamsvc.cluster.node import ClusterNode, NodeSetup, digest, node_name
from streamsvc.cluster.records import NodeRecord
from streamsvc.core import clock
from streamsvc.core.config import Settings
from streamsvc.core.errors import ClusterUnavailable
from streamsvc.core.tasks import BackgroundTasks
from streamsvc.service.broadcast_ids import name_of
from streamsvc.service.load_controller import LoadController
from streamsvc.service.session import Session
from streamsvc.service.sessions import Sessions

log = structlog.get_logger()
TAKEN_OVER = "taken_over"  # why a session ends here that goes on elsewhere


def node_of(
    settings: Settings, sessions: Sessions, load: LoadController, tasks: BackgroundTasks
) -> ClusterNode:
    """The node of a service in its cluster, not started; new sessions are shared from now on.

    Args:
        settings: with a cluster.
        sessions: of the service.
        load: of its process.
        tasks: where sessions that are lost end.

    Raises:
        ConfigError: redis-py is not installed, or the node's name cannot be kept.
    """
    cluster, keep = settings.cluster, settings.store

    def loaded(record: NodeRecord) -> NodeRecord:
        return replace(
            record,
            version=streamsvc.__version__,
            free={str(kind): count for kind, count in sessions.room().free.items()},
            sessions=sessions.places.taken,
            limit=settings.limits.sessions,
            level=load.state.level,
            draining=sessions.draining,
        )

    def fenced(session_id: str) -> None:
        session = sessions.by_id.get(session_id)
        if session is not None:
            tasks.spawn(_leave(sessions, session))

    secret = cluster.secret.get_secret_value() if cluster.secret is not None else ""
    setup = NodeSetup(
        settings=cluster,
        name=node_name(cluster, settings.data_dir),
        keys=digest(secret, settings.server.api_key or ""),
        retention=keep.retention,
        events=keep.events,
        load=loaded,
        fenced=fenced,
    )
    node = ClusterNode(setup)
    sessions.share(lambda session: session.log.share(node.copy_of(session.id, facts_of(session))))
    return node


def facts_of(session: Session) -> dict[str, str]:
    """What other nodes need to know of a session to show it, and to go on with it."""
    return {
        "started_utc": clock.stamp(session.clock.started_utc),
        "name": name_of(session.id) or "",
        "epoch": session.log.epoch,
        "stored": str(int(session.options.stored)),
        "holder": session.holder,
        "options": session.options.to_json(),
    }


async def _leave(sessions: Sessions, session: Session) -> None:
    """End a session that another node owns, without a word: there its events go on, and its subscribers."""
    session.log.cut(ClusterUnavailable("this session goes on at another node: connect again", code="moved"))
    session.end(TAKEN_OVER)
    await session.over.wait()
    await sessions.erase(session)
    log.info("a session goes on at another node", session=session.id)
