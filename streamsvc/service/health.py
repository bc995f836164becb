"""Readiness, and the gauges of this process that are measured when `/metrics` is read."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path
from typing import TypedDict

from streamsvc.core import metrics
from streamsvc.service.media_input import State
from streamsvc.service.service import Service


class Readiness(TypedDict):
    """Body of `/readyz`. `workers`: by name, whether each gave a result lately.

    `failover`: whether sessions would go on at other nodes; None: there is no cluster. False: Redis does not
    answer; the node serves all the same, and is ready.
    """

    ready: bool
    workers: dict[str, bool]
    wrong_models: dict[str, str]
    draining: bool
    failover: bool | None


def readiness(service: Service) -> Readiness:
    """Whether the models are whole, those of every session gave a result lately, and nothing drains."""
    workers = {name: worker.fresh for name, worker in service.workers.items()}
    whole, draining = service.wrong_models == {}, service.sessions.draining
    return {
        "ready": whole and workers["hear"] and workers["see"] and not draining,
        "workers": workers,
        "wrong_models": service.wrong_models or {},
        "draining": draining,
        "failover": service.cluster.up if service.cluster is not None else None,
    }


async def measure(service: Service) -> None:
    """Set the gauges that nothing else sets: readiness, stalled sessions, free disk."""
    metrics.ready.set(readiness(service)["ready"])
    stalled = sum(session.state is State.STALLED for session in service.sessions.by_id.values())
    metrics.sessions_stalled.set(stalled)
    folders = {"data": service.settings.data_dir, "models": service.settings.models.dir}
    for name, free in (await asyncio.to_thread(_free, folders)).items():
        metrics.disk_free.labels(name).set(free)


def _free(folders: dict[str, Path]) -> dict[str, int]:
    """Free bytes of the disk of each folder, or of its nearest parent that exists; -1: it cannot be read."""
    found = {}
    for name, folder in folders.items():
        found[name] = -1
        with contextlib.suppress(OSError, StopIteration):
            place = next(path for path in (folder, *folder.parents) if path.exists())
            found[name] = shutil.disk_usage(place).free
    return found
