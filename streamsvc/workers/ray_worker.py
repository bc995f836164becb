"""A worker whose models run on Ray Serve; see `ray_bridge` and `ray_replica`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from streamsvc.workers.supervisor import Worker


class RayWorker(Worker):
    """A worker whose process carries requests to the replicas of a Ray cluster.

    `cost` is what carrying them costs this machine. Replicas are Ray Serve's to watch, replace and add; it is
    `silent` while none answers.

    Args:
        name: of the worker; its models are the application of that name.
        roles: dotted engine module by role, for their names alone: the cluster has loaded them.
        address: of the cluster: "auto" or HOST:PORT.
        lazy: connect at the first request instead of at once.
    """

    program: ClassVar[str] = "streamsvc.workers.ray_bridge"

    def __init__(self, name: str, roles: Mapping[str, str], address: str, *, lazy: bool = False) -> None:
        super().__init__(name, roles, {"address": address, "worker": name}, lazy=lazy)
