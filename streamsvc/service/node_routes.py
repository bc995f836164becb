"""The nodes of the cluster, as this one sees them."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

import streamsvc
from streamsvc.service.service import Service


class NodeBody(BaseModel):
    """One node."""

    name: str = Field(description="empty where there is no cluster")
    address: str = Field(description="where clients and other nodes reach it")
    version: str
    sessions: int = Field(description="with a publisher")
    limit: int = Field(description="of them")
    free: dict[str, int] = Field(description="sessions more that fit, by kind: `audio`, `audio_video`")
    level: int = Field(description="degradation level")
    draining: bool
    asked: bool = Field(description="whether it is the node that answers here")


class Nodes(BaseModel):
    """All nodes that live."""

    nodes: list[NodeBody]
    failover: bool = Field(description="whether a session goes on elsewhere if its node dies now")


def router(service: Service) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["operations"])

    @routes.get("/v1/nodes")
    async def nodes() -> Nodes:
        """Addresses, load and sessions of the nodes of the cluster, by the heartbeats of the last second."""
        cluster = service.cluster
        if cluster is None:
            return Nodes(nodes=[_alone(service)], failover=False)
        records = {**cluster.nodes, cluster.name: cluster.record()}
        bodies = [
            NodeBody(
                name=name,
                address=record.advertise,
                version=record.version,
                sessions=record.sessions,
                limit=record.limit,
                free=dict(record.free),
                level=record.level,
                draining=record.draining,
                asked=name == cluster.name,
            )
            for name, record in sorted(records.items())
        ]
        return Nodes(nodes=bodies, failover=cluster.up and len(bodies) > 1)

    return routes


def _alone(service: Service) -> NodeBody:
    return NodeBody(
        name="",
        address=service.settings.server.public_url,
        version=streamsvc.__version__,
        sessions=service.sessions.places.taken,
        limit=service.settings.limits.sessions,
        free=dict(service.sessions.room().free),
        level=service.load_controller.state.level,
        draining=service.sessions.draining,
        asked=True,
    )
